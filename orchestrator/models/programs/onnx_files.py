"""Programs as ONNX: parsed, checked and written anew before onnxruntime sees them; answers only, on the CPU.

onnxruntime opens files that a model names for its weights, takes addresses of memory for them, and runs what
other domains of operators need. A model here holds all its weights and calls operators of ONNX alone.
"""

import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from orchestrator.config.base import NO_VALUE, Refused, shortened

BEGIN = b"\x08"
"""First byte of an ONNX file: its version of the format."""

_DOMAINS = ("", "ai.onnx")
_EXTERNAL = 1  # TensorProto.EXTERNAL
_FREE_TEXTS = ("producer_name", "producer_version", "domain", "doc_string")
"""Of a model, which begin its file: onnxruntime guesses the format from bytes 4 to 8."""

_FLOAT = "tensor(float)"
_INLINE = "save it with its weights inside: onnx.save_model(model, PATH, save_as_external_data=False)"
_AGAIN = "export it again with torch.onnx.export and stage that"


class OnnxNetwork(nn.Module):
    """Images (N, C, S, S) on any device -> the model's answers (N, k) there, computed on the CPU, without
    gradients."""

    def __init__(self, session: Any, batch: int | None) -> None:
        super().__init__()
        self._session, self.batch = session, batch
        (self._images,) = (one.name for one in session.get_inputs())

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's answers (N, k) to images (N, C, S, S)."""
        given = images.detach().float().cpu().contiguous().numpy()
        (answers,) = self._session.run(None, {self._images: given})
        return torch.from_numpy(answers).to(images.device)


def load_onnx(data: bytes, where: str) -> OnnxNetwork:
    """Return the network of an ONNX file.

    Raise `Refused` under the name `where` for a file that is damaged, names other files or operators of other
    domains, has other than one input and one output, or where onnxruntime is not installed.
    """
    try:
        import onnx  # here, because both are an extra
        import onnxruntime
    except ImportError as error:
        rule = f"is an ONNX program, and {error.name or 'onnxruntime'} is not installed"
        raise Refused(where, NO_VALUE, rule, "install the extra: pip install onnx onnxruntime") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of protobuf
        rule = f"is no ONNX model, or damaged ({type(error).__name__})"
        raise Refused(where, NO_VALUE, rule, _AGAIN) from None
    _check(model, where)
    model.DiscardUnknownFields()
    del model.metadata_props[:]  # among them settings of a session
    for name in _FREE_TEXTS:
        model.ClearField(name)
    try:
        onnx.checker.check_model(model)
        session = _session(onnxruntime, model.SerializeToString())
    except Exception as error:  # both raise kinds of their own
        reason = shortened(str(error).strip().partition("\n")[0])
        rule = f"is an ONNX model that onnxruntime {onnxruntime.__version__} does not load ({reason})"
        raise Refused(where, NO_VALUE, rule, _AGAIN) from None
    return _network(session, where)


def _check(model: Any, where: str) -> None:
    """Refuse files beside the model, functions, and operators of other domains, wherever they stand in it."""
    if model.functions or model.training_info:
        what = "functions of its own" if model.functions else "a training"
        rule = f"holds {what}, which are no operators of ONNX"
        raise Refused(where, NO_VALUE, rule, "inline them: onnx.inliner.inline_local_functions")
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location == _EXTERNAL):
            paths = [one.value for one in message.external_data if one.key == "location"]
            file = shortened(paths[0]) if paths else "another file"
            _refuse(where, f"keeps the weights {shortened(message.name)} in {file}, outside itself", _INLINE)
        if kind == "NodeProto" and message.domain not in _DOMAINS:
            name = shortened(f"{message.domain}::{message.op_type}")
            _refuse(
                where, f"calls {name}, which is no operator of ONNX", "export it without custom operators"
            )
        if kind == "OperatorSetIdProto" and message.domain not in _DOMAINS:
            domain = shortened(message.domain)
            _refuse(where, f"needs the operators of {domain}", "export it without custom operators")


def _messages(model: Any) -> Iterator[Any]:
    """Yield a message and all that are in it."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else list(value)


def _session(onnxruntime: Any, data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4  # fatal: what goes wrong is raised
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _network(session: Any, where: str) -> OnnxNetwork:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if (len(inputs), len(outputs)) != (1, 1):
        rule = f"takes {len(inputs)} tensors and returns {len(outputs)}, not one each"
        _refuse(where, rule, "export a network of images that returns one tensor of scores")
    if (inputs[0].type, outputs[0].type) != (_FLOAT, _FLOAT):
        rule = f"takes a {inputs[0].type} and returns a {outputs[0].type}, not float32 both"
        _refuse(where, rule, "export a network of float32 images and scores")
    first = inputs[0].shape[0] if inputs[0].shape else None
    return OnnxNetwork(session, first if isinstance(first, int) else None)


def _refuse(where: str, rule: str, way_out: str) -> NoReturn:
    raise Refused(where, NO_VALUE, rule, way_out)

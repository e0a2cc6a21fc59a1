"""Graph of a program of `torch.export.save`, as a network: nodes in order, each an operator of torch.

Its JSON has for each node the operator's name, arguments by name (values, or names of earlier results) and
the names of its results. Positions in the source, examples and descriptions of the call are not read.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.models.programs.operators import TENSORS
from orchestrator.models.programs.script_text import WITHOUT
from orchestrator.models.programs.trusting import TRUSTING

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Number in the file -> type of a tensor's numbers."""

_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.([A-Za-z]\w*)", re.ASCII)
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    f"_operator.{one.__name__}": one
    for one in (
        *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg),
        *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.truediv),
    )
}
_TRAINING = ("training", "train")  # arguments of batch norms and dropout
_STATEFUL = "batch_norm"


@dataclass(frozen=True)
class Name:
    """An earlier result, by its name."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operator with its arguments; results that nobody reads have no name."""

    run: Callable[..., Any]
    arguments: Mapping[str, Any]
    is_positional: bool
    results: Sequence[str | None] | str | None
    """The name of the one result, or of each of several."""


class ExportedGraph(nn.Module):
    """Images -> what the graph returns, by nodes in order."""

    def __init__(self, nodes: Sequence[Node], tensors: Mapping[str, Tensor], ends: tuple[str, str]) -> None:
        super().__init__()
        self._nodes, (self._images, self._result) = tuple(nodes), ends
        self._buffer_of = {name: f"tensor_{place}" for place, name in enumerate(tensors)}
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, tensors[name])
        self._last = {
            one.name: place for place, node in enumerate(nodes) for one in _names(node.arguments.values())
        }
        self.batch: int | None = None

    def forward(self, images: Tensor) -> Any:
        """Return the graph's result of images (N, C, S, S)."""
        values: dict[str, Any] = {name: getattr(self, one) for name, one in self._buffer_of.items()}
        values[self._images] = images
        for place, node in enumerate(self._nodes):
            given = {name: _filled(one, values, images.device) for name, one in node.arguments.items()}
            result = node.run(*given.values()) if node.is_positional else node.run(**given)
            _store(node.results, result, values)
            for one in _names(node.arguments.values()):
                if self._last[one.name] == place and one.name != self._result:
                    values.pop(one.name, None)  # memory, where no gradient holds it
        return values[self._result]


def parse_graph(description: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> ExportedGraph:
    """Return the network of a description (JSON); `tensors` has the file's, by the network's name for them.

    Raise `Refused` under the name `where` for a graph that asks for anything but computing, keeps a state,
    was exported in training mode, or has other than one input and one output.
    """
    module = description["graph_module"]
    graph, signature = module["graph"], module["signature"]
    held: dict[str, Tensor] = {}
    images = []
    for one in signature["input_specs"]:
        ((kind, spec),) = one.items()
        if kind == "user_input":
            images.append(_tensor_name(spec["arg"], where))
        elif kind in _HELD:
            held[spec["arg"]["name"]] = tensors[spec[_HELD[kind]]]
        else:
            _refuse(where, f"takes a {shortened(kind)}", WITHOUT)
    outputs = []
    for one in signature["output_specs"]:
        ((kind, spec),) = one.items()
        if kind != "user_output":
            _refuse(where, f"has a {shortened(kind)}: it changes itself", "export it after network.eval()")
        outputs.append(_tensor_name(spec["arg"], where))
    if (len(images), len(outputs)) != (1, 1):
        rule = f"takes {len(images)} tensors and returns {len(outputs)}, not one each"
        _refuse(where, rule, "export a network of images that returns one tensor of scores")
    network = ExportedGraph([_node(one, where) for one in graph["nodes"]], held, (images[0], outputs[0]))
    network.batch = graph["tensor_values"][images[0]]["sizes"][0].get("as_int")
    return network.eval()


_HELD = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def _tensor_name(argument: Mapping[str, Any], where: str) -> str:
    if "as_tensor" not in argument:
        _refuse(where, "takes or returns what is no tensor", "export a network of one tensor to another")
    name: str = argument["as_tensor"]["name"]
    return name


def _node(node: Mapping[str, Any], where: str) -> Node:
    target = node["target"]
    arguments = {
        f"{place}:{one['name']}": _argument(one["arg"], where) for place, one in enumerate(node["inputs"])
    }
    if target in _ARITHMETIC:
        return Node(_ARITHMETIC[target], arguments, True, _results(node["outputs"], where))
    found = _OPERATOR.fullmatch(target)
    named = {name.partition(":")[2]: value for name, value in arguments.items()}
    if found and found[1] in TRUSTING and found[2] == "default":
        return Node(TRUSTING[found[1]], named, False, _results(node["outputs"], where))
    packet = getattr(torch.ops.aten, found[1], None) if found and found[1] in TENSORS else None
    if found is None or packet is None or found[2] not in packet.overloads():
        _refuse(where, f"calls {shortened(target)}, which is no operator of a classifier", WITHOUT)
    if any(named.get(name) is True for name in _TRAINING) or (
        _STATEFUL in found[1] and named.get("training") is not False
    ):
        _refuse(where, f"calls {target} in training mode", "export it after network.eval()")
    return Node(getattr(packet, found[2]), named, False, _results(node["outputs"], where))


def _argument(argument: Mapping[str, Any], where: str) -> Any:
    """Return an argument's value, with `Name` for what is an earlier result."""
    ((kind, value),) = argument.items()
    if kind in _PARSED:
        return _PARSED[kind](value)
    if kind in _LISTS:
        return [_argument(one, where) for one in value]
    if kind not in _NESTED:
        _refuse(where, f"gives an operator a value of the kind {shortened(kind)}", WITHOUT)
    return _argument(value, where)


def _plain(value: Any) -> Any:
    if not isinstance(value, int | float | str):
        raise TypeError(f"a value that is a {type(value).__name__}")
    return value


_DEVICE = object()
"""Stands for the device: that of the images, wherever the graph was exported."""

_PARSED: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_tensor": lambda value: Name(value["name"]),
    "as_tensors": lambda value: [Name(one["name"]) for one in value],
    "as_name": Name,
    "as_float": float,
    **dict.fromkeys(("as_int", "as_bool", "as_string"), _plain),
    **dict.fromkeys(("as_ints", "as_bools"), lambda value: [_plain(one) for one in value]),
    "as_floats": lambda value: [float(one) for one in value],
    "as_scalar_type": lambda value: DTYPES[value],
    "as_memory_format": lambda value: _FORMATS[value],
    "as_layout": lambda value: {7: torch.strided}[value],
    "as_device": lambda _: _DEVICE,
}
_LISTS = ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools")
_NESTED = ("as_sym_int", "as_sym_float", "as_sym_bool")


def _results(outputs: Sequence[Mapping[str, Any]], where: str) -> Sequence[str | None] | str | None:
    if len(outputs) == 1:
        ((kind, value),) = outputs[0].items()
        if kind == "as_tensors":
            return [one["name"] for one in value]
        return _result(outputs[0], where)
    return [_result(one, where) for one in outputs]


def _result(output: Mapping[str, Any], where: str) -> str | None:
    ((kind, value),) = output.items()
    if kind == "as_none":
        return None
    if kind != "as_tensor" and kind not in _NESTED:
        _refuse(where, f"has a result of the kind {shortened(kind)}", WITHOUT)
    name: str = value["name" if kind == "as_tensor" else "as_name"]
    return name


def _names(values: Any) -> list[Name]:
    """Return the earlier results among values and those in lists of them."""
    flat = (part for one in values for part in (one if isinstance(one, list) else [one]))
    return [part for part in flat if isinstance(part, Name)]


def _filled(value: Any, values: Mapping[str, Any], device: torch.device) -> Any:
    if isinstance(value, list):
        return [_filled(one, values, device) for one in value]
    if value is _DEVICE:
        return device
    return values[value.name] if isinstance(value, Name) else value


def _store(results: Sequence[str | None] | str | None, made: Any, values: dict[str, Any]) -> None:
    if isinstance(results, str):
        values[results] = made
    elif results:
        values.update((name, one) for name, one in zip(results, made, strict=True) if name is not None)


def _refuse(where: str, rule: str, way_out: str) -> NoReturn:
    raise Refused(where, NO_VALUE, rule, way_out)

"""ONNX: the answers of the network, no gradients; files beside the model and other operators are refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.base import Refused
from orchestrator.models.programs import kind_of, load_program
from orchestrator.models.programs.onnx_files import load_onnx
from tests.models.programs import files
from tests.models.programs.exports import exported
from tests.models.programs.test_torchscript import IMAGES

FACTS = files.FACTS.but(kind="onnx")


@pytest.fixture
def library() -> Any:
    """Return the module of ONNX files, where onnx and onnxruntime are installed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from tests.models.programs import onnx_models

    return onnx_models


def test_three_kinds_of_files_give_the_same_logits(library: Any) -> None:
    network = files.Small().eval()
    assert network.bn.running_mean is not None
    network.bn.running_mean.uniform_()
    data = {
        "torchscript": files.scripted(network),
        "export": exported(network, IMAGES),
        "onnx": library.onnx_file(network),
    }
    images = torch.rand(5, files.CHANNELS, 12, 12, generator=torch.Generator().manual_seed(0))
    scores = {}
    for kind, one in data.items():
        assert kind_of(one, "x") == kind
        program = load_program(one, files.FACTS.but(kind=kind, scaling="imagenet"))
        assert program.is_differentiable == (kind != "onnx")
        scores[kind] = program(images)
    assert scores["onnx"].shape == (5, files.CLASSES)
    assert torch.allclose(scores["onnx"], scores["torchscript"], atol=1e-5)
    assert torch.allclose(scores["onnx"], scores["export"], atol=1e-5)
    assert scores["onnx"].std() > 0.01


def test_a_model_whose_bytes_look_like_another_format_is_read_as_onnx(library: Any) -> None:
    def change(model: Any) -> None:
        model.ir_version, model.producer_name = 8, "ORTM"

    network = files.Small().eval()
    data = library.onnx_file(network, change)
    assert data[4:8] == b"ORTM"  # the mark of onnxruntime's own format
    assert torch.allclose(load_onnx(data, "x")(IMAGES), network(IMAGES), atol=1e-5)


def test_a_model_of_fixed_batch_gets_such_batches(library: Any) -> None:
    network = files.Small().eval()
    program = load_program(library.onnx_file(network, batch=2), FACTS)
    assert program.batch == 2
    images = torch.cat([IMAGES, IMAGES[:1]])
    assert torch.allclose(program(images), network(images), atol=1e-5)


def test_no_gradient_reaches_the_images(library: Any) -> None:
    scores = load_program(library.onnx_file(files.Small().eval()), FACTS)(IMAGES.clone().requires_grad_())
    assert not scores.requires_grad


def added(op: str, domain: str = "") -> Callable[[Any, Any], object]:
    """Return a change that puts an operator before the scores."""

    def change(library: Any, model: Any) -> None:
        node = library.helper.make_node(op, ["scores"], ["more"], domain=domain)
        model.graph.node.append(node)

    return change


def in_a_branch(library: Any, model: Any) -> None:
    """Keep a tensor outside that only a branch of an If has."""
    tensor = library.numpy_helper.from_array(library.np.ones(1, dtype="float32"), "t")
    library.outside(tensor, "../../etc/passwd")
    constant = library.helper.make_node("Constant", [], ["t"], value=tensor)
    info = library.helper.make_tensor_value_info("t", 1, [1])
    branch = library.helper.make_graph([constant], "branch", [], [info])
    made = library.helper.make_node("If", ["scores"], ["t"], then_branch=branch, else_branch=branch)
    model.graph.node.append(made)


def second_input(library: Any, model: Any) -> None:
    model.graph.input.append(library.helper.make_tensor_value_info("mask", 1, [1]))
    model.graph.node.append(library.helper.make_node("Add", ["scores", "mask"], ["more"]))


def whole_numbers(library: Any, model: Any) -> None:
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(library.helper.make_node("Cast", ["raw"], ["scores"], to=7))
    model.graph.output[0].type.tensor_type.elem_type = 7


HOSTILE: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "weights outside": (
        lambda library, model: library.outside(model.graph.initializer[0], "../../etc/passwd"),
        r"keeps the weights conv\.weight in \.\./\.\./etc/passwd, outside itself; save it with its",
    ),
    "weights at an address": (
        lambda library, model: library.outside(model.graph.initializer[0], "*/_ORT_MEM_ADDR_/*"),
        r"keeps the weights conv\.weight in \*/_ORT_MEM_ADDR_/\*, outside itself",
    ),
    "weights outside in a branch": (in_a_branch, r"keeps the weights t in \.\./\.\./etc/passwd, outside"),
    "operator of another domain": (
        added("Run", "evil.ops"),
        r"calls evil\.ops::Run, which is no operator of ONNX",
    ),
    "operator of onnxruntime": (
        added("EPContext", "com.microsoft"),
        r"calls com\.microsoft::EPContext, which is no operator of ONNX",
    ),
    "another domain": (
        lambda library, model: model.opset_import.append(library.helper.make_opsetid("evil.ops", 1)),
        r"needs the operators of evil\.ops",
    ),
    "unknown operator": (added("Evil"), "does not load"),
    "functions": (
        lambda library, model: model.functions.append(
            library.helper.make_function(
                "", "Run", ["x"], ["y"], [library.helper.make_node("Relu", ["x"], ["y"])], model.opset_import
            )
        ),
        "holds functions of its own",
    ),
    "training": (lambda library, model: model.training_info.add(), "holds a training"),
    "second input": (second_input, "takes 2 tensors and returns 1, not one each"),
    "whole numbers": (whole_numbers, r"returns a tensor\(int64\), not float32 both"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_in_one_line_and_nothing_is_touched(
    name: str, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, text = HOSTILE[name]
    data = library.onnx_file(files.Small().eval(), lambda model: change(library, model))
    with pytest.raises(Refused, match=rf"^net\.onnx .*{text}") as caught:
        load_onnx(data, "net.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused(library: Any) -> None:
    data = library.onnx_file(files.Small().eval())
    for cut in (1, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(
            Refused, match=r"^x is (no ONNX model, or damaged|an ONNX model that onnxruntime)"
        ):
            load_onnx(data[:cut], "x")
    lines = []
    for place in range(0, len(data), len(data) // 60):
        try:
            load_onnx(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :], "x")
        except Refused as refused:
            lines.append(str(refused))
    assert len(lines) > 5  # most bytes are weights
    assert not [line for line in lines if "\n" in line]


def test_settings_of_a_session_in_the_file_are_not_followed(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.chdir(tmp_path)

    def change(model: Any) -> None:
        settings = '{"session_options": {"enable_profiling": 1}}'
        model.metadata_props.add(key="ort_config", value=settings)

    network = files.Small().eval()
    program = load_onnx(library.onnx_file(network, change), "x")
    assert torch.allclose(program(IMAGES), network(IMAGES), atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Refused) as caught:
        load_onnx(b"\x08\x09", "net.onnx")
    assert str(caught.value) == (
        "net.onnx is an ONNX program, and onnx is not installed; install the extra: pip install onnx "
        "onnxruntime."
    )

"""Programs of torch.export: read without torch's loader; what it would act on is refused, and nothing ran."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.base import Refused
from orchestrator.models.programs.exported import MODEL, is_exported, load_exported
from tests.models.programs import files
from tests.models.programs.exports import exported, with_json
from tests.models.programs.test_torchscript import IMAGES

Hostile = Callable[[bytes, Path], bytes]
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Acts:
    """Unpickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def good() -> bytes:
    """Return a program of any number of images."""
    return exported(files.Small().eval(), IMAGES)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return the path of a file that is not there: what is hostile would make it."""
    return tmp_path / "canary"


def graph(change: Callable[[Any, Path], object]) -> Hostile:
    """Return a program whose graph was changed."""
    return lambda data, path: with_json(data, MODEL, lambda value: _done(change(value["graph_module"], path)))


def weights(change: Callable[[Any], object]) -> Hostile:
    """Return a program whose first weight was described otherwise."""
    return lambda data, _: with_json(
        data, WEIGHTS, lambda value: _done(change(next(iter(value["config"].values()))))
    )


def _done(_: object) -> None:
    pass


def expression(text: str) -> Hostile:
    """Return a program whose number of images is a text."""

    def change(module: Any, path: Path) -> None:
        for value in module["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = text.replace("PATH", str(path))

    return graph(change)


def target(name: str) -> Hostile:
    """Return a program whose first node has another operator."""
    return graph(lambda module, _: module["graph"]["nodes"][0].update(target=name))


def record(name: str) -> Hostile:
    """Return a program with a record that makes a file when it is unpickled."""
    return lambda data, path: files.with_record(data, name, pickle.dumps(Acts(path)))


IMPORTS_OS = "__import__('os').system('touch PATH')"
HOSTILE: dict[str, tuple[Hostile, str]] = {
    "size that imports os": (
        expression(IMPORTS_OS),
        r"has the size __import__\('os'\)\.system.*, which is no",
    ),
    "size that opens a file": (expression("open('PATH', 'w')"), r"has the size open\("),
    "size that climbs": (expression("Symbol('s0').__class__"), r"has the size Symbol\('s0'\)\.__class__"),
    "operator of Python": (target("torch.hub.load"), r"calls torch\.hub\.load, which is no operator"),
    "operator of the system": (target("torch.os.system"), r"calls torch\.os\.system,"),
    "operator of another space": (
        target("torch.ops.evil.run.default"),
        r"calls torch\.ops\.evil\.run\.default,",
    ),
    "operator of files": (target("torch.ops.aten.from_file.default"), r"calls torch\.ops\.aten\.from_file"),
    "operator of the language": (target("_operator.attrgetter"), r"calls _operator\.attrgetter,"),
    "overload that is none": (
        target("torch.ops.aten.conv2d.__class__"),
        r"calls torch\.ops\.aten\.conv2d\.__cl",
    ),
    "registered extension": (target("#evil:run"), "calls #evil:run,"),
    "operator of higher order": (
        target("torch.ops.higher_order.cond"),
        r"calls torch\.ops\.higher_order\.cond",
    ),
    "pickled weight": (weights(lambda one: one.update(use_pickle=True)), "weight_0, a pickled tensor"),
    "weight beyond its bytes": (
        weights(lambda one: one["tensor_meta"]["storage_offset"].update(as_int=10**6)),
        r"the tensor conv\.weight of 36 numbers in 36",
    ),
    "weight elsewhere": (weights(lambda one: one.update(path_name="../../x")), "of 36 numbers in 0"),
    "size that is no number": (
        weights(lambda one: one["tensor_meta"]["sizes"][0].update(as_int="4")),
        r"damaged or of another version \(TypeError\)",
    ),
    "custom object": (
        record("data/constants/custom_obj_0"),
        "custom_obj_0, a custom object, which is pickled",
    ),
    "object of Python": (record("data/constants/opaque_obj_0"), "opaque_obj_0, a custom object"),
    "pickled weights": (record("data/weights/model.pt"), r"model\.pt, pickled tensors"),
    "pickled constants": (record("data/constants/model.pt"), r"model\.pt, pickled tensors"),
    "compiled library": (record("data/aotinductor/model/x.so"), r"x\.so, a compiled library"),
    "second model": (record("models/other.json"), "holds other models than one"),
    "graph in a graph": (
        graph(lambda module, _: module["graph"]["nodes"][0]["inputs"][0].update(arg={"as_graph": {}})),
        "a value of the kind as_graph",
    ),
    "custom object as an argument": (
        graph(lambda module, _: module["graph"]["nodes"][0]["inputs"][0].update(arg={"as_custom_obj": {}})),
        "a value of the kind as_custom_obj",
    ),
    "custom object as an input": (
        graph(lambda module, _: module["signature"]["input_specs"].insert(0, {"custom_obj": {}})),
        "takes a custom_obj",
    ),
    "state": (
        graph(lambda module, _: module["signature"]["output_specs"].insert(0, {"buffer_mutation": {}})),
        "has a buffer_mutation: it changes itself",
    ),
    "nothing returned": (
        graph(lambda module, _: module["signature"]["output_specs"].clear()),
        "takes 1 tensors and returns 0, not one each",
    ),
    "cut short": (lambda data, _: data[:-100], "(damaged or cut short|no version of torch saved)"),
    "no graph": (
        lambda data, _: with_json(data, MODEL, lambda value: value.clear()),
        r"damaged .*\(KeyError\)",
    ),
    "zip bomb": (
        lambda data, _: files.with_record(data, "data/x", bytes(1 << 26)),
        r"has \d+ bytes and would unpack to 67\d{6} in",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_refused_in_one_line_and_nothing_is_touched(
    name: str, good: bytes, canary: Path
) -> None:
    make, text = HOSTILE[name]
    with pytest.raises(Refused, match=rf"^net\.pt2 .*{text}") as caught:
        load_exported(make(good, canary), "net.pt2")
    assert "\n" not in str(caught.value)
    assert list(canary.parent.iterdir()) == []


def test_sample_inputs_are_not_read(good: bytes, canary: Path) -> None:
    data = files.with_record(good, "data/sample_inputs/model.pt", pickle.dumps(Acts(canary)))
    assert torch.isfinite(load_exported(data, "net.pt2")(IMAGES)).all()
    assert not canary.exists()


def test_a_network_in_training_mode_is_refused() -> None:
    data = exported(files.Small().train(), IMAGES)
    with pytest.raises(
        Refused, match=r"^net\.pt2 (has a buffer_mutation: it changes itself|.*training mode)"
    ):
        load_exported(data, "net.pt2")


def test_torch_reads_the_file_that_the_hostile_ones_are_made_of(good: bytes) -> None:
    network = torch.export.load(io.BytesIO(good)).module()
    assert torch.allclose(load_exported(good, "net.pt2")(IMAGES), network(IMAGES), atol=1e-6)


def test_an_archive_of_weights_is_no_program() -> None:
    assert is_exported({"models/model.json": b""})
    assert not is_exported({"data.pkl": b""})

"""Public weights: the same digest however they come, no code of a file runs, every byte is checked."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from orchestrator.config import Model
from orchestrator.datasets import Location, weights
from orchestrator.datasets.checkpoint_files import read
from orchestrator.datasets.state_dicts import choose
from orchestrator.datasets.weights_manifest import content
from orchestrator.models.build import build_classifier
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.directory import DirectoryBlobs
from tests.sweep.test_validation import flip

State = dict[str, Tensor]


def state(seed: int = 0) -> State:
    """Return the weights of a small classifier."""
    torch.manual_seed(seed)
    model = Model(name="ami-digit", width=0.01)
    return build_classifier(model, classes=2, channels=1, image_size=32).state_dict()


def saved(content: Any, **options: Any) -> bytes:
    """Return what torch saves."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def wrapped(tensors: State) -> State:
    """Return a state dict as DataParallel names it."""
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


FORMS: dict[str, Callable[[State], bytes]] = {
    "safetensors": save_tensors,
    "safetensors of DataParallel": lambda tensors: save_tensors(wrapped(tensors)),
    "torch": saved,
    "torch before 1.6": lambda tensors: saved(tensors, _use_new_zipfile_serialization=False),
    "in another order": lambda tensors: saved(dict(reversed(tensors.items()))),
    "parameters": lambda tensors: saved(
        {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in tensors.items()}
    ),
    "nested": lambda tensors: saved({"epoch": 3, "state_dict": wrapped(tensors), "best": {}}),
    "Lightning": lambda tensors: saved(
        {
            "state_dict": {f"model.{name}": one for name, one in tensors.items()},
            "callbacks": {"best": torch.ones(1)},
        }
    ),
    "torch.compile of DataParallel": lambda tensors: saved(
        {f"_orig_mod.module.{name}": one for name, one in tensors.items()}
    ),
    "nested twice": lambda tensors: saved({"nets": {"model": tensors}, "optimizer": {"state": {}}}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_file_and_digest(form: str, blobs: Blobs) -> None:
    tensors = state()
    once, is_new = weights.stage(tensors, "net", blobs, "net")
    assert is_new
    found = choose(read(FORMS[form](tensors), "net"), "net")
    again, is_new = weights.stage(found, "net", blobs, "net")
    assert (again, is_new) == (once, False)
    stored = weights.load("net", Location(blobs))
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensors[name]) for name in tensors)
    about = weights.describe("net", Location(blobs))
    assert about.digest == once.file.sha256 == sha256(blobs.get(f"weights/net/{once.file.name}") or b"")
    assert about.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (
            torch.tensor([1.0, float("nan"), float("inf")]),
            "where 2 of 3 values are not finite (NaN or infinity)",
        ),
        (torch.tensor([1.0, float("nan")]).to(torch.float8_e5m2), "where 1 of 2 values are not finite"),
        (torch.eye(2).to_sparse(), "a tensor that is sparse, quantized, complex or without values"),
        (torch.ones(2, dtype=torch.complex64), "a tensor that is sparse, quantized, complex"),
        (torch.ones(2, device="meta"), "a tensor that is sparse, quantized, complex or without values"),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, Tensor) else "",
)
def test_what_no_network_can_use_is_refused(tensor: Tensor, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^net\.pt holds head\.bias, {re.escape(fault)}"):
        weights.stage(
            {"a": torch.ones(1), "head.bias": tensor}, "net.pt", DirectoryBlobs(tmp_path / "x"), "net"
        )
    assert not (tmp_path / "x").exists()


def test_tied_weights_are_stored_one_by_one(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    blobs = DirectoryBlobs(tmp_path)
    weights.stage({"encoder": tied, "decoder": tied.T}, "net", blobs, "net")
    stored = weights.load("net", Location(blobs))
    assert torch.equal(stored["encoder"], tied)
    assert torch.equal(stored["decoder"], tied.T)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    manifest, _ = weights.stage(state(), "net", blobs, "net")
    stored = tmp_path / "weights" / "net" / manifest.file.name
    flip(stored)
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ValueError, match="does not match its manifest") as caught:
            weights.load("net", Location(blobs, cache))
        assert str(caught.value) == (
            f"{blobs.uri}/weights/net/{manifest.file.name} does not match its manifest: want SHA-256 "
            f"{manifest.file.sha256}, got {sha256(stored.read_bytes())}; remove the set's folder and stage "
            "it again with python -m jobs.stage_weights."
        )


def test_a_damaged_manifest_is_noticed(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    weights.stage(state(), "net", blobs, "net")
    (tmp_path / "weights" / "net" / "manifest.json").unlink()
    blobs.put("weights/net/manifest.json", b'{"name": "net"}')
    damaged = (
        r"weights/net/manifest\.json is damaged \(Field required\); remove that folder and stage the weights "
        r"again with python -m jobs\.stage_weights\."
    )
    with pytest.raises(ValueError, match=damaged):
        weights.describe("net", Location(blobs))
    with pytest.raises(ValueError, match=damaged):
        weights.stage(state(), "net", blobs, "net")


def test_a_name_taken_by_other_weights_is_refused(blobs: Blobs) -> None:
    weights.stage(state(), "net", blobs, "net")
    before = {name: blobs.get(name) for name in blobs.names("")}
    with pytest.raises(ValueError, match="is taken") as caught:
        weights.stage(state(seed=1), "net", blobs, "net")
    assert str(caught.value) == f"--name=net is taken by other weights at {blobs.uri}; choose another name."
    assert {name: blobs.get(name) for name in blobs.names("")} == before
    weights.stage(state(seed=1), "net", blobs, "other")


def test_names_of_outputs_are_kept_beside_the_file_and_change_no_digest(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    plain, _ = weights.stage(state(), "net", blobs, "net")
    assert weights.describe("net", Location(blobs)).classes is None
    manifest, is_new = weights.stage(state(), "net", blobs, "net", ("Ann", "Bob"))
    assert (manifest, is_new) == (plain.but(classes=("Ann", "Bob")), True)
    about = weights.describe("net", Location(blobs))
    assert (about.classes, about.digest) == (("Ann", "Bob"), plain.file.sha256)
    for classes in (None, ("Ann", "Bob")):
        assert weights.stage(state(), "net", blobs, "net", classes) == (manifest, False)
    for other, text in (
        (("Ann", "Bea"), "Bob for output 1 and not Bea"),
        (("Ann",), "Bob for output 1 and not"),
    ):
        with pytest.raises(ValueError, match=f"^--name=net has other class names at .*, {text}"):
            weights.stage(state(), "net", blobs, "net", other)


def test_staging_twice_writes_nothing(tmp_path: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    weights.stage(state(), "net", DirectoryBlobs(tmp_path), "net")
    before = times()
    manifest, is_new = weights.stage(state(), "elsewhere", DirectoryBlobs(tmp_path), "net")
    assert (manifest.source, is_new) == ("net", False)
    assert times() == before


@pytest.mark.parametrize("name", ["Net", "../net", "", ".net", "a/b", "n" * 65])
def test_a_name_is_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--name=.* must be lower-case letters, digits, dots, dashes and"):
        weights.stage(state(), "net", DirectoryBlobs(tmp_path / "data"), name)
    assert not (tmp_path / "data").exists()
    weights.stage(state(), "net", DirectoryBlobs(tmp_path / "data"), "net")
    with pytest.raises(ValueError, match=r"is unknown; staged at .* are net; "):
        weights.describe(name, Location(DirectoryBlobs(tmp_path / "data")))


def test_values_have_one_digest_whatever_they_are_called(blobs: Blobs) -> None:
    one = state()
    moved = {name: tensor + (name == "blocks.0.0.weight") for name, tensor in one.items()}
    files = {"net": one, "theirs": {f"model.{name}": tensor for name, tensor in one.items()}, "moved": moved}
    for name, tensors in files.items():
        weights.stage(tensors, "net", blobs, name)
    location = Location(blobs)
    assert len({weights.describe(name, location).digest for name in files}) == 3
    assert content("net", location) == content("theirs", location) != content("moved", location)


def test_an_unknown_name_lists_the_known(blobs: Blobs) -> None:
    def refusal(location: Location) -> str:
        with pytest.raises(ValueError, match="is unknown") as caught:
            weights.describe("alex", location, "evaluation.networks.alex")
        return str(caught.value)

    def unknown(known: str) -> str:
        return (
            f"evaluation.networks.alex=alex is unknown; staged at {blobs.uri} are {known}; correct the name "
            "or stage the weights with python -m jobs.stage_weights."
        )

    assert refusal(Location(blobs)) == unknown("none")
    for name in ("vgg", "net"):
        weights.stage(state(), "net", blobs, name)
    blobs.put("weights/half/weights-0.safetensors", b"")  # no manifest yet: not whole
    assert refusal(Location(blobs)) == unknown("net, vgg")
    assert refusal(Location()) == (
        "evaluation.networks.alex=alex is unknown: weights are staged at a data location; name it "
        "with --data."
    )

"""Checkpoint files: no code of a file runs, what stands beside the weights does no harm."""

import argparse
import collections
import datetime
import enum
import io
import pathlib
import pickle
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save
from torch import nn

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets import checkpoint_files
from orchestrator.datasets.checkpoint_files import children, read
from orchestrator.datasets.state_dicts import choose
from tests.datasets.test_weights import saved, state

WAY_OUT = r"save model\.state_dict\(\) and stage that\."


class Malicious:
    """Unpickles to a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [saved, pickle.dumps], ids=["torch", "pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(
    save: Callable[[Any], bytes], tmp_path: Path
) -> None:
    trace = tmp_path / "was-here"
    data = save({**state(), "extra": Malicious(trace)})
    with pytest.raises(
        ValueError, match=r"^evil\.pt is neither safetensors nor a state dict that loads with"
    ):
        read(data, "evil.pt")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malicious(trace)))  # it would have run
    assert trace.exists()


@pytest.mark.parametrize("data", [b"", b"not weights", saved(state())[:-900], b"\x80\x02]s."], ids=len)
def test_what_is_no_state_dict_is_refused(data: bytes) -> None:
    with pytest.raises(
        ValueError, match=rf"^x is neither safetensors nor a state dict .* \(.+\); {WAY_OUT}$"
    ):
        read(data, "x")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(1)], ids=str)
def test_a_file_without_tensors_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match=f"^x holds no tensor; {WAY_OUT}$"):
        choose(read(saved(content), "x"), "x")


class Settings(dict[str, Any]):
    """A dict of a trainer's own, as EasyDict and yacs have them."""


class Phase(enum.Enum):
    """A value of a class that is not importable elsewhere."""

    LAST = 1


class Named:
    """A value that is written as one of an enumeration is by Python 3.11.0 to 3.11.3."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (Phase, "LAST")


BESIDE: dict[str, Any] = {
    "NumPy scalar": np.float64(0.93),
    "NumPy array": np.arange(3),
    "NumPy generator": np.random.RandomState(0),
    "Namespace": argparse.Namespace(lr=0.1, seed=np.int64(1)),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1),
    "table": pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]}),
    "path": pathlib.PurePosixPath("runs/1"),
    "time": datetime.datetime(2026, 1, 1),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "own dict": Settings(lr=0.1),
    "enum": Phase.LAST,
    "enum by name": Named(),
    "optimizer": torch.optim.Adam([torch.ones(2, requires_grad=True)]),
    "loose tensor": torch.ones(3, 3),
    "generator": {"torch": torch.get_rng_state()},
    "none": None,
}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_weights_does_no_harm(name: str, is_zip: bool) -> None:
    data = saved({"beside": BESIDE[name], "state_dict": state()}, _use_new_zipfile_serialization=is_zip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = choose(read(data, "x"), "x")
    assert {key: one.sum() for key, one in found.items()} == {key: one.sum() for key, one in state().items()}


def test_a_class_of_a_package_that_is_not_installed_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trainer's configuration is, which most people have not installed."""
    with monkeypatch.context() as there:
        package = types.ModuleType("trainer_of_others")
        package.Config = type("Config", (dict,), {"__module__": package.__name__})  # type: ignore[attr-defined]
        there.setitem(sys.modules, package.__name__, package)
        data = saved({"config": package.Config(lr=0.1), "state_dict": state()})
    assert choose(read(data, "x"), "x").keys() == state().keys()


def test_a_module_that_was_saved_whole_gives_its_state_dict() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2)))
    network.register_buffer("volatile", torch.ones(1), persistent=False)
    found = choose(read(saved({"epoch": 1, "net": network}), "x"), "x")
    wanted = network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_module_that_holds_itself_ends() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    network._modules["again"] = network
    found = read(saved(network), "x")
    assert len(children(found)) > 2
    with pytest.raises(ValueError, match=r"^weights do not fit\.$"):
        choose(found, "x", check=refuse)


def test_a_module_of_modules_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, "_MAX_CHARACTERS", 10_000)
    network = nn.Sequential(nn.Linear(1, 1))
    network._modules |= {"left": network, "right": network}
    found = read(saved(network), "x")
    with pytest.raises(ValueError, match=r"^SOURCE holds a module with modules in it that never end; save"):
        children(found)


def packed(value: Any, pickled: bytes | None = None) -> bytes:
    """Return what torch saves, compressed, with another pickle in it if one is given."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(value))) as archive,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packing,
    ):
        for name in archive.namelist():
            is_pickle = pickled is not None and name.endswith("data.pkl")
            packing.writestr(name, pickled if is_pickle and pickled else archive.read(name))
    return buffer.getvalue()


def test_a_compressed_file_is_read_unless_it_unpacks_to_far_more() -> None:
    assert choose(read(packed(state()), "x"), "x").keys() == state().keys()
    data = packed({"weight": torch.zeros(1 << 19)})
    text = rf"^x has {len(data)} bytes and would unpack to 209\d{{4}}; do not unpack it; download it from"
    with pytest.raises(ValueError, match=text):
        read(data, "x")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
def test_a_key_whose_hash_takes_long_is_refused(is_zip: bool) -> None:
    key = b"\x80\x02})" + b"2\x86" * 16 + b"K\x01s."
    whole = saved({}, _use_new_zipfile_serialization=False)
    data = packed(state(), key) if is_zip else whole.replace(b"\x80\x02}q\x00.", key)
    assert len(data) > len(key)
    with pytest.raises(ValueError, match=r"^x is neither safetensors nor a state dict"):
        read(data, "x")


def refuse(_: object) -> None:
    raise Refused("weights", NO_VALUE, "do not fit")


@pytest.mark.parametrize("length", [0x80, 0x4B50, 0x227B20], ids=["pickle", "PK", "JSON"])
def test_safetensors_are_recognised_however_they_begin(length: int) -> None:
    plain = save({"weight": torch.ones(2)})
    size = int.from_bytes(plain[:8], "little")
    data = length.to_bytes(8, "little") + plain[8 : 8 + size].ljust(length) + plain[8 + size :]
    assert torch.equal(choose(read(data, "x"), "x")["weight"], torch.ones(2))


def archive(**files: bytes) -> bytes:
    """Return a zip archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for name, content in files.items():
            writer.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


DOWNLOAD = "download the file itself and stage that."
CONVERT = "convert it to a state dict or safetensors."
UNREADABLE = "is neither safetensors nor a state dict that loads with weights only"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<!DOCTYPE html><html>Quota exceeded</html>", f"is a web page, not weights; {DOWNLOAD}"),
        (b"\n  <html lang=en>", f"is a web page, not weights; {DOWNLOAD}"),
        (b'<?xml version="1.0"?><Error>', f"is a web page, not weights; {DOWNLOAD}"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44769410\n",
            "is a Git LFS pointer, not the weights; run git lfs pull and stage the file again.",
        ),
        (b'{"error": "not found"}', f"is JSON text, not weights; {DOWNLOAD}"),
        (b"\x89HDF\r\n\x1a\n", f"is an HDF5 file (Keras); {CONVERT}"),
        (b"\x93NUMPY\x01\x00", f"is a NumPy array; {CONVERT}"),
        (b"\x1f\x8b\x08", "is a compressed archive; unpack it and stage the file in it."),
        (
            archive(weights_pth=b"x"),
            "is a zip archive without weights of torch; unpack it and stage the file in it.",
        ),
        (
            archive(net__data_pkl=b"x", net__constants_pkl=b"x"),
            "is a TorchScript program, not a state dict; save model.state_dict() and stage that.",
        ),
        (b"", f"{UNREADABLE} (it is empty); save"),
        (b"weights", f"{UNREADABLE} (it begins as neither of them); save"),
        (
            saved(state(), pickle_protocol=4),
            f"{UNREADABLE} (its pickle has protocol 4, torch.save writes 2 unless",
        ),
        (saved(state())[:-900], f"{UNREADABLE} (it is damaged, cut short, or holds objects that"),
        (saved({"run": print}), f"{UNREADABLE} (it asks to run builtins.print); save"),
    ],
)
def test_a_file_that_holds_no_weights_is_named_in_one_whole_sentence(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=r"^x is ") as caught:
        read(data, "x")
    assert str(caught.value).startswith(f"x {text}")
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(".")

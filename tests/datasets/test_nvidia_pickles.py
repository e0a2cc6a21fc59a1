"""NVIDIA's pickles: what is read of them, and hostile ones, of which nothing runs."""

import collections
import io
import os
import pickle
import posix
import struct
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.generator_sources import generator_file
from orchestrator.config.base import Refused
from orchestrator.datasets import nvidia_pickles
from orchestrator.datasets.checkpoint_files import children
from tests.datasets.pickles import Network, generator_pickle, nvidias_modules

STATE = {"mapping.w_avg": torch.arange(3.0), "b4.conv1.weight": torch.randn(2, 3).t()}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tensors_and_arguments_of_a_network(protocol: int) -> None:
    arguments = {"z_dim": 4, "synthesis_kwargs": {"conv_clamp": 256, "gain": np.float32(0.5)}}
    data = generator_pickle(STATE, arguments, protocol=protocol)
    assert nvidia_pickles.is_plain_pickle(data)
    loaded: Any = nvidia_pickles.read(data, "net.pkl")
    assert vars(loaded["G_ema"])[nvidia_pickles.ARGUMENTS] == arguments
    assert vars(loaded["G_ema"])["gain"] == np.sqrt(2.0)
    found = children(loaded["G_ema"])
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())  # type: ignore[arg-type]


def test_what_torch_saves_is_not_taken_for_one() -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1)}, buffer, _use_new_zipfile_serialization=False)
    assert buffer.getvalue().startswith(b"\x80")
    assert not nvidia_pickles.is_plain_pickle(buffer.getvalue())


def test_networks_of_tensorflow_have_a_way_out() -> None:
    data = b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81."
    text = r"holds a network of TensorFlow \(dnnlib\.tflib\.network\.Network\).*convert it with legacy\.py"
    with pytest.raises(Refused, match=text):
        nvidia_pickles.read(data, "ffhq.pkl")


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def beside(value: Any) -> bytes:
    """Return a network's pickle with one more value."""
    return generator_pickle(STATE, {}, extra=value)


def permitted(name: str, arguments: Any) -> bytes:
    """Return a pickle that calls a permitted name with these arguments."""
    module, _, last = name.rpartition(".")
    body = pickle.dumps(arguments, protocol=3)[2:-1]
    return b"\x80\x03" + f"c{module}\n{last}\n".encode() + body + b"R."


def saved(value: Any, *, zipped: bool) -> bytes:
    """Return what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


class Persistent(pickle.Pickler):
    """A pickler that refers to objects outside the file."""

    def persistent_id(self, thing: Any) -> Any:
        return ("storage", "os.system") if isinstance(thing, Calls) else None


def persistent(value: Any) -> bytes:
    buffer = io.BytesIO()
    Persistent(buffer, protocol=4).dump(value)
    return buffer.getvalue()


def long_chain() -> bytes:
    """Return `getattr(getattr((), '__class__'), '__base__')`, as a pickle."""
    chain: Any = Calls(getattr, (), "__class__")
    return beside(Calls(getattr, chain, "__base__"))


def renamed_dict() -> bytes:
    return beside(collections.defaultdict(list, a=1))


NAMES = (
    "system",
    "eval",
    "exec",
    "nested storage",
    "source",
    "getattr",
    "posix",
    "subprocess",
    "permitted name",
    "function's globals",
    "memo",
    "allocation",
    "persistent id",
    "subclass",
    "zip",
)


def hostile(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Return pickles that would make a file, and what each refusal names."""
    touch = f"touch {sentinel}"
    write = f"open({str(sentinel)!r}, 'w').close()"
    load_from_bytes = "torch.storage._load_from_bytes"
    with nvidias_modules():
        in_source = pickle.dumps({"G_ema": Network(source=write, layer=Calls(os.system, touch))})
    beyond = (torch.storage.TypedStorage([0.0]), 0, (10**9, 10**9), (1, 1), False, None)
    return {
        "system": (beside(Calls(os.system, touch)), "posix.system"),
        "eval": (beside(Calls(eval, write)), "builtins.eval"),
        "exec": (beside(Calls(exec, write)), "builtins.exec"),
        "nested storage": (
            permitted(load_from_bytes, (saved(Calls(os.system, touch), zipped=False),)),
            "posix.system",
        ),
        "source": (in_source, "posix.system"),
        "getattr": (long_chain(), "builtins.getattr"),
        "posix": (beside(Calls(posix.open, str(sentinel), os.O_CREAT)), "posix.open"),
        "subprocess": (beside(Calls(subprocess.Popen, ["touch", str(sentinel)])), "subprocess.Popen"),
        "permitted name": (
            permitted(load_from_bytes, (saved({"a": 1}, zipped=True),)),
            "a storage that is a dict",
        ),
        "function's globals": (
            b"\x80\x04\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
            "torch._utils._rebuild_tensor_v2.__globals__",
        ),
        "memo": (b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".", "place 2147483647 of the memo"),
        "allocation": (
            beside(Calls(torch._utils._rebuild_tensor_v2, *beyond)),
            "a tensor of 1000000000000000000",
        ),
        "persistent id": (persistent({"G_ema": Calls(os.system, touch)}), "the operation BINPERSID"),
        "subclass": (renamed_dict(), "collections.defaultdict"),
        "zip": (saved({"g_ema": Calls(os.system, touch)}, zipped=True), "posix.system"),
    }


@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_run_nothing_and_are_named(name: str, tmp_path: Path) -> None:
    data, what = hostile(tmp_path / "ran")[name]
    with pytest.raises(Refused) as refused:
        generator_file(data, "net.pkl")
    text = str(refused.value)
    assert what in text
    assert text.startswith("net.pkl ")
    assert "\n" not in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
def test_the_files_would_run_elsewhere(tmp_path: Path) -> None:
    """So that the test above can fail."""
    data, _ = hostile(tmp_path / "ran")["posix"]
    with nvidias_modules(), pytest.raises(AssertionError, match="takes the place"):
        pickle.loads(data)
    pickle.loads(pickle.dumps(Calls(posix.open, str(tmp_path / "ran"), os.O_CREAT)))
    assert (tmp_path / "ran").exists()


def test_source_text_alone_is_left_unread(tmp_path: Path) -> None:
    write = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    with nvidias_modules():
        data = pickle.dumps({"G_ema": Network(source=write, size=3)})
    loaded: Any = nvidia_pickles.read(data, "net.pkl")
    assert vars(loaded["G_ema"]) == {"size": 3}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("end", [1, 20, -40])
def test_damaged_files(end: int) -> None:
    with pytest.raises(Refused, match=r"net\.pkl is no pickle of NVIDIA's networks, or damaged"):
        nvidia_pickles.read(generator_pickle(STATE, {})[:end], "net.pkl")


def named(name: str) -> bytes:
    """Return the operation that refers to a name."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def text(value: str) -> bytes:
    """Return the operation that makes a text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


STORAGE = named("torch.storage._load_from_bytes")
PARAMETER = named("torch._utils._rebuild_parameter")
TWICE = b"2\x86" * 16  # a tuple of 65,536 objects by 32 operations
LISTS = b"]q\x000" + b"".join(b"](h%ch%ceq%c0" % (place, place, place + 1) for place in range(16))
DAMAGED = "is no pickle of NVIDIA's networks, or damaged"


def in_bytes(number: int = 4) -> bytes:
    """Return the operations that make the bytes of a storage of so many numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = saved(torch.zeros(number).storage(), zipped=False)
    return b"B" + struct.pack("<I", len(data)) + data


def one_tensor(more: bytes) -> bytes:
    """Return a pickle of one tensor, whose storage is in the memo, followed by operations."""
    parts = STORAGE + in_bytes() + b"\x85Rq\x0aK\x00K\x04\x85K\x01\x85\x89}"
    tensor = named("torch._utils._rebuild_tensor_v2") + b"(" + parts + b"tR"
    return b"\x80\x03}" + text("g_ema") + b"}" + text("w.weight") + tensor + more + b"ss."


ENDLESS: dict[str, tuple[Callable[[], bytes], str]] = {
    "key": (lambda: b"\x80\x03})" + TWICE + b"K\x01s.", DAMAGED),
    "set": (lambda: b"\x80\x04\x8f()" + TWICE + b"\x90.", DAMAGED),
    "deep": (lambda: b"\x80\x03})" + b"\x85" * 20_000 + b"K\x01s.", DAMAGED),
    "parameter": (
        lambda: b"\x80\x03)q\x00" + PARAMETER + b"h\x00\x85R.",
        "asks for a parameter of a tuple",
    ),
    "kind": (lambda: b"\x80\x03" + LISTS + named("numpy.dtype") + b"h\x10\x85R.", "a number of a kind"),
    "long name": (
        lambda: b"\x80\x04" + text("os\x1b[2J\n") + text("system" * 10_000) + b"\x93.",
        r"asks for os\x1b[2J\n.system",
    ),
    "INST": (lambda: b"\x80\x03(S'touch ran'\nios\nsystem\n.", "the operation INST"),
    "OBJ": (lambda: b"\x80\x03(cos\nsystem\nS'touch ran'\no.", "the operation OBJ"),
    "EXT1": (lambda: b"\x80\x03\x82\x01.", "the operation EXT1"),
    "dotted": (lambda: b"\x80\x04" + text("builtins") + text("set.__class__") + b"\x93.", "set.__class__"),
    "method": (
        lambda: (
            b"\x80\x03"
            + named("torch_utils.persistence._reconstruct_persistent_obj")
            + b"N}K\x01K\x02s\x86b."
        ),
        DAMAGED,
    ),
    "class": (
        lambda: b"\x80\x03" + named("dnnlib.util.EasyDict") + b"N}U\x06__eq__K\x01s\x86b.",
        DAMAGED,
    ),
    "length": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".", DAMAGED),
    "frame": (lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.", DAMAGED),
    "storage again": (
        lambda: b"\x80\x03" + in_bytes(5000) + b"q\x000](" + (STORAGE + b"h\x00\x85R") * 3 + b"e.",
        "more bytes of storages than the file has",
    ),
    "state of a tensor": (
        lambda: one_tensor(b"(h\x0aK\x00\x8a\x08" + struct.pack("<q", 1 << 33) + b"\x85K\x01\x85tb"),
        DAMAGED,
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_files_without_end_are_refused_in_one_line(name: str) -> None:
    make, what = ENDLESS[name]
    with pytest.raises(Refused) as refused:
        nvidia_pickles.read(make(), "net.pkl")
    message = str(refused.value)
    assert what in message
    assert len(message) < 400
    assert message.isprintable()


def test_the_tensor_is_read_without_that_state() -> None:
    """So that the test above can fail."""
    loaded: Any = nvidia_pickles.read(one_tensor(b""), "net.pkl")
    assert loaded["g_ema"]["w.weight"].tolist() == [0.0] * 4


def test_an_attribute_does_not_stand_in_for_a_method() -> None:
    with nvidias_modules():
        data = pickle.dumps({"G_ema": Network(items=torch.ones(1), keys=3)})
    loaded: Any = nvidia_pickles.read(data, "net.pkl")
    assert children(loaded["G_ema"]) == {"items": torch.ones(1), "keys": 3}

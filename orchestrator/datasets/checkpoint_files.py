"""Checkpoint files: safetensors, or what `torch.save` wrote, read without running anything that is in them.

torch reads with `weights_only`. Trainers save more beside the weights: NumPy scalars, argparse Namespaces,
optimizers, whole modules. Their classes are never imported: `StandIn` takes the place of each, and keeps what
the file gives it. A file that asks for functions of Python's own library is refused.
"""

import io
import pickletools
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, which protocol 2 writes
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.pickle_bounds import bounded

SAVE = "save model.state_dict() and stage that"
MAX_RATIO, FREE = 10, 1 << 20
"""Bytes in memory for each of a file, since weights hardly shrink when they are packed, and those beside."""

_DOWNLOAD = "download the file itself and stage that"
_TORCH = (b"PK\x03\x04", b"\x80")  # a zip archive; a pickle, as before torch 1.6
# How a file begins that is often taken for weights, what it is, and what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*<(!doctype|html|\?xml|head|body|!--)", "is a web page, not weights", _DOWNLOAD),
    (
        rb"version https://git-lfs\.github\.com/",
        "is a Git LFS pointer, not the weights",
        "run git lfs pull and stage the file again",
    ),
    (
        rb"(/annex/objects/|\.git/annex/)",
        "is a git-annex pointer, not the weights",
        "run git annex get and stage the file again",
    ),
    (rb"\x89HDF\r\n", "is an HDF5 file (Keras)", "convert it to a state dict or safetensors"),
    (rb"\x93NUMPY", "is a NumPy array", "convert it to a state dict or safetensors"),
    (
        rb"(\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!)",
        "is a compressed archive",
        "unpack it and stage the file in it",
    ),
    (rb"GGUF", "is a GGUF file", "convert it to a state dict or safetensors"),
    (rb"\s*[{\[]\s*[\"\]}]", "is JSON text, not weights", _DOWNLOAD),
)
# What Python's own library may contribute: values and containers, all of them replaced. Python 3.11.0 to
# 3.11.3 writes a value of an enumeration as a call of getattr, which is not called here.
_HARMLESS = re.compile(
    r"(_codecs\.encode|argparse\.Namespace|types\.(SimpleNamespace|MappingProxyType)|copyreg\._reconstructor|functools\.partial"
    r"|builtins\.(set|frozenset|complex|slice|range|bytearray|bytes|dict|list|tuple|int|float|bool|str|object|type|getattr)"
    r"|random\.Random|logging\.Logger|re\._compile"
    r"|(collections|datetime|decimal|enum|fractions|pathlib|pathlib\._local|typing|uuid)\.\w+)"
)
_MAX_MODULES, _MAX_DEPTH = 10_000, 64  # a file may put a module into itself
_MAX_CHARACTERS = 1 << 24  # of the names of all tensors of a module
_PROTOCOL = 2  # of pickle, in torch.save


class StandIn:
    """Value in the place of an object whose class is not imported; its attributes are those in the file."""

    def __new__(cls, *_: object, **__: object) -> "Counter[object]":  # type: ignore[misc]
        """Return a mapping that takes items and attributes: torch fills no class of ours with items."""
        return Counter()


class Opaque:
    """Value in the place of a NumPy object, whose states are tuples."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read(data: bytes, where: str) -> object:
    """Return what a checkpoint file holds: tensors by name, or the object that was saved, with stand-ins.

    Raise `Refused` under the name `where` if the file is no checkpoint, is damaged, or asks for code.
    """
    try:  # first, because any byte may begin the length of its header
        return load_tensors(data)
    except SafetensorError:
        pass
    for begin, rule, way_out in _OTHERS:
        if re.match(begin, data[:1024], re.IGNORECASE):
            raise Refused(where, NO_VALUE, rule, way_out)
    if not data:
        raise _unreadable(where, "it is empty")
    if not data.startswith(_TORCH):
        raise _unreadable(where, "it begins as neither of them")
    if data.startswith(b"PK"):
        _check_archive(data, where)
    return _unpickled(data, where)


def _unreadable(where: str, reason: str) -> Refused:
    rule = f"is neither safetensors nor a state dict that loads with weights only ({reason})"
    return Refused(where, NO_VALUE, rule, SAVE)


def _unpickled(data: bytes, where: str) -> object:
    try:
        names = set(_globals(data))
    except Exception:  # torch and pickletools raise a dozen kinds, depending on where a file is damaged
        raise _unreadable(where, _fault(data)) from None
    if wanted := sorted(name for name in names if _is_code(name)):
        raise _unreadable(where, f"it asks to run {', '.join(wanted[:3])}")
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (Opaque if name.startswith("numpy") else StandIn, name) for name in names
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # as above
        raise _unreadable(where, _fault(data)) from None


def _fault(data: bytes) -> str:
    """Return why a file that begins as one of torch's cannot be read."""
    begin = data
    faults = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError)
    with suppress(*faults), zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        with archive.open(pickles[0]) if pickles else io.BytesIO() as file:
            begin = file.read(2)
    if begin[:1] == b"\x80" and begin[1:2] > bytes([_PROTOCOL]):
        return f"its pickle has protocol {begin[1]}, torch.save writes {_PROTOCOL} unless told otherwise"
    return "it is damaged, cut short, or holds objects that torch does not rebuild"


def _check_archive(data: bytes, where: str) -> None:
    """Refuse zip archives that torch.save did not write; their names are at the end."""
    end = data[-(1 << 20) :]
    if b"/data.pkl" in end and b"/constants.pkl" in end:
        raise Refused(where, NO_VALUE, "is a TorchScript program, not a state dict", SAVE)
    if b"PK\x05\x06" in end and b"data.pkl" not in end:
        raise Refused(
            where, NO_VALUE, "is a zip archive without weights of torch", "unpack it and stage the file in it"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise _unreadable(where, _fault(data)) from None
    if unpacked > MAX_RATIO * len(data) + FREE:
        rule = f"has {len(data)} bytes and would unpack to {unpacked}"
        raise Refused(where, NO_VALUE, rule, "do not unpack it; download it from its publisher again")


def _globals(data: bytes) -> Iterator[str]:
    """Yield the names that a file of torch.save refers to and torch does not allow by itself; raise
    `ValueError` if its pickle makes what is not `bounded`."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for one in archive.infolist():
                if one.filename.endswith("data.pkl"):
                    deque(bounded(pickletools.genops(archive.read(one))), maxlen=0)
        yield from torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
        return
    stream = io.BytesIO(data)
    for _ in range(4):  # magic number, protocol, system, the object itself
        for code, argument in bounded(pickletools.genops(stream)):
            if code.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                now = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                yield ".".join(now)


def _is_code(name: str) -> bool:
    """Return whether a name is one of Python's own library that no value beside weights needs."""
    return name.partition(".")[0] in sys.stdlib_module_names and not _HARMLESS.fullmatch(name)


def children(value: object) -> Mapping[str, object]:
    """Return the items and attributes of a mapping or a stand-in; of a whole module, its state dict.

    Raise `Refused` of a module that holds itself, or others, so often that its names would fill the memory.
    """
    if not isinstance(value, Mapping):
        return {}
    attributes = vars(value) if type(value) is Counter else {}
    if "_parameters" in attributes and "_modules" in attributes:
        return dict(_module_state(attributes))
    return {str(name): one for name, one in [*attributes.items(), *_mapping(value).items()]}


def _module_state(attributes: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the tensors of a module that was saved whole, under the names of its state dict."""
    waiting, room = [("", attributes)], _MAX_CHARACTERS
    for _ in range(_MAX_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop()
        if prefix.count(".") > _MAX_DEPTH:
            continue
        volatile = module.get("_non_persistent_buffers_set")
        skipped = set(volatile) if isinstance(volatile, set) else set()
        inner = _mapping(module.get("_modules"))
        named = {**_mapping(module.get("_parameters")), **_mapping(module.get("_buffers"))}
        room -= sum(len(prefix) + len(str(name)) + 1 for name in (*named, *inner))
        if room < 0:
            rule = "holds a module with modules in it that never end"
            raise Refused("SOURCE", NO_VALUE, rule, SAVE)
        yield from ((f"{prefix}{name}", one) for name, one in named.items() if name not in skipped)
        waiting += [(f"{prefix}{name}.", vars(one)) for name, one in inner.items() if type(one) is Counter]


def _mapping(value: object) -> dict[object, object]:
    """Return a copy without attributes, which a file may name as those of mappings are."""
    return {**value} if isinstance(value, dict) else {}

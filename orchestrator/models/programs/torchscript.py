"""Programs of `torch.jit.save`: their records are checked, written anew, and only then read by torch.

What torch gets: the pickles that `script_pickles` followed, the texts that `script_text` read, tensors as
bytes. Records that only tools read (traced inputs, positions of the source for debuggers, extra files) are
left out. After loading, the compiled program is checked again, operator by operator, before it first runs.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.models.programs.archives import AGAIN, read_archive, write_archive
from orchestrator.models.programs.operators import LANGUAGE, PRIMITIVES, STRUCTURE, TENSORS
from orchestrator.models.programs.script_pickles import check_pickle
from orchestrator.models.programs.script_text import WITHOUT, check_text
from orchestrator.models.programs.script_types import declared_in

_CODE = re.compile(r"code/__torch__(/\w+)*\.py", re.ASCII)
_STORAGE = re.compile(r"(data|constants)/\w+", re.ASCII)
_PLAIN = {"version": re.compile(rb"[0-9]{1,3}\n?"), "byteorder": re.compile(rb"little")}
_PICKLES = ("data", "constants")
CPU = torch.device("cpu")
_FLATBUFFER = b"PTMF"
"""At the fifth byte: torch reads such a file as another format, whatever else it is."""

_CALLS = frozenset({f"aten::{name}" for name in TENSORS | LANGUAGE}) | {
    f"prim::{name}" for name in PRIMITIVES | STRUCTURE
}


def is_torchscript(records: Mapping[str, bytes]) -> bool:
    """Return whether an archive is a program of `torch.jit.save`."""
    return "constants.pkl" in records


def load_torchscript(data: bytes, where: str, device: torch.device = CPU) -> nn.Module:
    """Return the program of a file, on a device, in evaluation mode.

    Raise `Refused` under the name `where` for a file that is damaged or asks for anything but computing.
    """
    if data[4:8] == _FLATBUFFER:
        raise Refused(where, NO_VALUE, "is a program for phones (flatbuffer)", AGAIN)
    checked = write_archive(_checked(read_archive(data, where), where))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this format is no longer developed
            module: Any = torch.jit.load(io.BytesIO(checked), map_location=device)
            module.eval()
            calls = set(_calls(module.inlined_graph))
    except Exception as error:  # torch raises many kinds, its compiler's among them
        reason = shortened(str(error).strip().partition("\n")[0])
        rule = f"is a TorchScript program that torch {torch.__version__} does not load ({reason})"
        raise Refused(where, NO_VALUE, rule, AGAIN) from None
    if unknown := sorted(calls - _CALLS):
        rule = f"calls {', '.join(unknown[:3])}, which is no operator of a classifier"
        raise Refused(where, NO_VALUE, rule, WITHOUT)
    network: nn.Module = module
    return network


def _checked(records: Mapping[str, bytes], where: str) -> dict[str, bytes]:
    """Return the records that torch needs, all of them checked."""
    for name in ("data.pkl", "constants.pkl", "version"):
        if name not in records:
            raise Refused(where, NO_VALUE, f"is a TorchScript program without its {name}", AGAIN)
    for name, content in records.items():
        if name in _PLAIN and _PLAIN[name].fullmatch(content) is None:
            raise Refused(where, NO_VALUE, f"has the odd {name} {shortened(repr(content))}", AGAIN)
    declared: dict[str, dict[str, str]] = {}
    for name in filter(_CODE.fullmatch, records):
        text = _ascii(records[name], name, where)
        check_text(text, where)
        declared |= declared_in(text, name[len("code/") : -len(".py")].replace("/", "."), where)
    for folder in _PICKLES:
        check_pickle(records[f"{folder}.pkl"], records, folder, where, declared)
    plain = {*_PLAIN, *(f"{folder}.pkl" for folder in _PICKLES)}
    return {
        name: content
        for name, content in records.items()
        if name in plain or _CODE.fullmatch(name) or _STORAGE.fullmatch(name)
    }


def _ascii(content: bytes, name: str, where: str) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        rule = f"holds {name}, which is no ASCII text"
        raise Refused(where, NO_VALUE, rule, "give classes and attributes ASCII names") from None


def _calls(graph: Any) -> Iterator[str]:
    """Yield the kind of each node of a graph and of the graphs in it."""
    waiting = [graph]
    while waiting:
        for node in waiting.pop().nodes():
            yield node.kind()
            waiting += node.blocks()

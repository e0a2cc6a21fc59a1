"""Programs of `torch.export.save`: the graph in the archive's JSON is followed here, operator by operator.

`torch.export.load` is never called. It evaluates texts of the file (sizes as sympy expressions, names of
operators, descriptions of arguments), unpickles sample inputs and constants, and loads compiled libraries.
A graph needs none of it: its operators are looked up in the list of `operators`, weights are read as bytes.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.models.programs.archives import AGAIN, read_archive
from orchestrator.models.programs.exported_graph import DTYPES, ExportedGraph, parse_graph

MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights", "data/constants"
_ACTING: tuple[tuple[str, str], ...] = (
    (r"data/aotinductor/.*", "a compiled library"),
    (r".*\.(so|dll|dylib|pyd|cpp|cubin)", "a compiled library"),
    (r"data/executorch/.*", "a program for phones"),
    (rf"{_CONSTANTS}/(custom|opaque)_obj.*", "a custom object, which is pickled"),
    (rf"({_WEIGHTS}|{_CONSTANTS})/.*\.pt", "pickled tensors"),
)
"""Records that torch would act on, and what they are."""

_WORDS = """
Symbol Integer Float Rational Add Mul Pow Max Min Mod PythonMod ModularIndexing FloorDiv CleanDiv CeilDiv Eq
Ne Lt Le Gt Ge And Or Not Where Identity positive nonnegative nonzero integer evaluate True False
StrictLessThan StrictGreaterThan LessThan GreaterThan Equality Unequality int_oo
"""
_SYMBOLS = frozenset(_WORDS.split())
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SYMBOL = re.compile(r"[suz]\d+", re.ASCII)
_EXPRESSION = re.compile(r"[\w ,()'+*/=<>&|~-]{1,1000}", re.ASCII)


def is_exported(records: Mapping[str, bytes]) -> bool:
    """Return whether an archive is a program of `torch.export.save`."""
    return any(name.startswith("models/") and name.endswith(".json") for name in records)


def load_exported(data: bytes, where: str) -> ExportedGraph:
    """Return the program of a file, on the CPU.

    Raise `Refused` under the name `where` for a file that is damaged or asks for anything but computing.
    """
    records = read_archive(data, where)
    _check_records(records, where)
    try:
        _check_expressions(records, where)
        tensors = {
            **_tensors(records, _WEIGHTS, "model_weights_config.json", where),
            **_tensors(records, _CONSTANTS, "model_constants_config.json", where),
        }
        return parse_graph(json.loads(records[MODEL]), tensors, where)
    except Refused:
        raise
    except Exception as error:  # a damaged description may miss anything anywhere
        rule = f"is a program of torch.export that is damaged or of another version ({type(error).__name__})"
        raise Refused(where, NO_VALUE, rule, f"{AGAIN}, with torch {torch.__version__}") from None


def _check_records(records: Mapping[str, bytes], where: str) -> None:
    for name in records:
        for pattern, what in _ACTING:
            if re.fullmatch(pattern, name):
                way_out = "save the network itself with torch.export.save, without custom objects"
                raise Refused(where, NO_VALUE, f"holds {shortened(name)}, {what}", way_out)
    if [name for name in records if name.startswith("models/")] != [MODEL]:
        raise Refused(where, NO_VALUE, "holds other models than one of the name model", AGAIN)


def _check_expressions(records: Mapping[str, bytes], where: str) -> None:
    """Refuse texts of sizes that are no expression of integers: nothing here evaluates them, but whoever
    loads the file by other means does."""
    for record in (one for one in records if one.endswith(".json")):
        waiting = [json.loads(records[record])]
        while waiting:
            value = waiting.pop()
            text = value.get("expr_str") if isinstance(value, dict) else None
            if text is not None and not _is_expression(text):
                rule = f"has the size {shortened(str(text))}, which is no expression of integers"
                raise Refused(where, NO_VALUE, rule, "do not load the file by other means")
            if isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value


def _is_expression(text: object) -> bool:
    if not isinstance(text, str) or _EXPRESSION.fullmatch(text) is None:
        return False
    names = _NAME.findall(text)
    return all(name in _SYMBOLS or _SYMBOL.fullmatch(name) for name in names)


def _tensors(records: Mapping[str, bytes], folder: str, config: str, where: str) -> dict[str, Tensor]:
    """Return tensors by the network's name for them; those that share bytes share memory."""
    flat: dict[tuple[str, torch.dtype], Tensor] = {}
    found: dict[str, Tensor] = {}
    payload = json.loads(records[f"{folder}/{config}"])["config"]
    for name, one in payload.items():
        record = f"{folder}/{one['path_name']}"
        if one["use_pickle"]:
            _refuse(where, f"{shortened(record)}, a pickled tensor")
        meta = one["tensor_meta"]
        dtype = DTYPES[meta["dtype"]]
        content = records.get(record, b"")
        if (record, dtype) not in flat:
            flat[record, dtype] = torch.frombuffer(bytearray(content) or bytearray(8), dtype=dtype)
        size, stride = (tuple(_integer(part) for part in meta[key]) for key in ("sizes", "strides"))
        offset, numbers = _integer(meta["storage_offset"]), math.prod(size)
        last = offset + sum((part - 1) * step for part, step in zip(size, stride, strict=True))
        has = len(content) // dtype.itemsize
        if min(offset, *size, *stride, 0) < 0 or (numbers and max(last + 1, numbers) > has):
            _refuse(where, f"the tensor {shortened(name)} of {numbers} numbers in {has}")
        found[name] = flat[record, dtype].as_strided(size, stride, offset)
    return found


def _integer(value: Mapping[str, Any]) -> int:
    number = value["as_int"]
    if type(number) is not int:
        raise TypeError("a size that is no integer")
    return number


def _refuse(where: str, what: str) -> NoReturn:
    raise Refused(where, NO_VALUE, f"holds {what}", AGAIN)

"""Weights of TensorFlow.js: a JSON manifest and binary files beside it, of 8 bits with scale and minimum."""

import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused

ENDING = ".json"
TYPES = {"float32": "<f4", "uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_WAY_OUT = "give the weights manifest of a TensorFlow.js model with its files beside it"


def read(data: bytes, where: str, beside: Callable[[str], bytes | None]) -> dict[str, Tensor]:
    """Return the tensors of a manifest, float32 by name; `beside` returns a file of its folder, or None.

    A quantised value q stands for q x scale + minimum. Raise `Refused` under the name `where` if it is no
    manifest, names a file that is not there, or if bytes are missing or left over.
    """
    found: dict[str, Tensor] = {}
    for paths, entries in _groups(data, where):
        files = [_file(path, where, beside) for path in paths]
        content, place = b"".join(files), 0
        for name, shape, entry in entries:
            kind = entry.get("quantization", entry).get("dtype")
            if kind not in TYPES:
                raise _refused(where, f"stores {name} as {kind}, not as one of {', '.join(TYPES)}")
            size = prod(shape) * np.dtype(TYPES[kind]).itemsize
            if place + size > len(content):
                raise _refused(where, f"needs more bytes for {name} than its files have")
            values = np.frombuffer(content[place : place + size], TYPES[kind]).astype(np.float32)
            found[name] = torch.from_numpy(_decoded(values, entry).reshape(shape))
            place += size
        if place != len(content):
            raise _refused(where, f"leaves {len(content) - place} bytes of its files unread")
    return found


def _groups(data: bytes, where: str) -> Iterator[tuple[list[str], list[tuple[str, list[int], Any]]]]:
    """Yield the files of each group with name, shape and entry of its tensors."""
    try:
        groups = json.loads(data)
        for group in groups:
            entries = [
                (str(one["name"]), [int(side) for side in one["shape"]], one) for one in group["weights"]
            ]
            yield [str(path) for path in group["paths"]], entries
    except (ValueError, TypeError, KeyError):
        raise _refused(where, "is JSON text, but no manifest of weights") from None


def _file(path: str, where: str, beside: Callable[[str], bytes | None]) -> bytes:
    if "/" in path or path.startswith("."):
        raise _refused(where, f"names {path}, which is not beside it")
    content = beside(path)
    if content is None:
        raise _refused(where, f"needs {path} beside it")
    return content


def _decoded(values: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    quantised = entry.get("quantization")
    if quantised is None or "scale" not in quantised:
        return values
    decoded: np.ndarray = values * np.float32(quantised["scale"]) + np.float32(quantised["min"])
    return decoded


def _refused(where: str, rule: str) -> Refused:
    return Refused(where, NO_VALUE, rule, _WAY_OUT)

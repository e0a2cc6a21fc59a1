"""Kept results: what follows from stored files alone is computed once in a process, not in every stage.

Stages of many trials read the same target, evaluation model and private images. A result is named by what it
is and by the content of the files that it follows from, so a file is read and verified each time; the least
recently used leave when all together exceed `MOST_BYTES`. Results are shared: never change them in place.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""Of all results that are kept in a process, on every device."""


class Kept:
    """Results by name; the least recently used ones leave first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._num_bytes = most_bytes, 0
        self._results: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def get(self, name: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of this name, computed if it is not kept; one that is too large is not."""
        if name in self._results:
            self._results.move_to_end(name)
            return self._results[name][0]  # type: ignore[return-value]
        result = compute()
        size = num_bytes(result)
        if size <= self._most_bytes:
            self._results[name] = (result, size)
            self._num_bytes += size
        while self._num_bytes > self._most_bytes:
            self._num_bytes -= self._results.popitem(last=False)[1][1]
        return result


_KEPT = Kept()


def kept(what: str, files: Iterable[bytes | Tensor], settings: Hashable, compute: Callable[[], T]) -> T:
    """Return what `compute` returns for these files, tensors and settings, a network or tensors; computed
    once for the same content in this process, as long as it is among those used last."""
    contents = tuple(_content(one) for one in files)
    return _KEPT.get((what, contents, settings, torch.get_num_threads()), compute)


def num_bytes(result: object) -> int:
    """Return the memory of a tensor, of a network's state, or of all of a tuple of these."""
    if isinstance(result, Tensor):
        return result.nbytes
    if isinstance(result, nn.Module):
        return sum(tensor.nbytes for tensor in (*result.parameters(), *result.buffers()))
    assert isinstance(result, tuple), type(result)
    return sum(num_bytes(part) for part in result)


def _content(one: bytes | Tensor) -> bytes:
    data = one if isinstance(one, bytes) else one.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(data).digest()

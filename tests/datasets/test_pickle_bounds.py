"""Bounds of a pickle: ordinary ones pass whole, tuples of tuples without end do not."""

import collections
import pickle
from pickletools import genops
from typing import Any

import numpy as np
import pytest

from orchestrator.datasets.pickle_bounds import LARGEST, bounded

PAIR = (1, "two")
VALUES: tuple[Any, ...] = (
    {"a": [PAIR, PAIR], (1, (2, 3)): {4}, "self": [PAIR] * 3},
    collections.OrderedDict(a=frozenset({1}), b=np.float32(2.0)),
    [tuple(range(LARGEST - 2))] * 3,
    bytearray(b"x"),
)


@pytest.mark.parametrize("protocol", range(6))
def test_ordinary_pickles_pass_whole(protocol: int) -> None:
    for value in VALUES:
        data = pickle.dumps(value, protocol)
        assert list(bounded(genops(data))) == [(code, argument) for code, argument, _ in genops(data)]


def doubled(times: int, between: bytes = b"") -> bytes:
    """Return a pickle of a tuple that holds one twice, so many times, by 2 ** times objects."""
    return b"\x80\x03)" + (b"2\x86" + between) * times + b"."


@pytest.mark.parametrize(
    "data",
    [
        doubled(14),
        b"\x80\x03)" + b"q\x00h\x00\x86" * 14 + b".",
        b"\x80\x04)" + b"".join(b"\x940h%c(h%ch%ct" % (i, i, i) for i in range(14)) + b".",
        doubled(14, b"q\x000cbuiltins\ntuple\nh\x00\x85R"),
        b"\x80\x03)" + b"\x85" * LARGEST + b".",
        b"\x80\x03(" + b"N" * LARGEST + b"t.",
    ],
    ids=["twice", "memo", "memoize", "calls", "deep", "wide"],
)
def test_tuples_without_end_do_not(data: bytes) -> None:
    with pytest.raises(ValueError, match="too many tuples"):
        list(bounded(genops(data)))


def test_what_is_in_a_list_counts_once() -> None:
    assert len(list(bounded(genops(b"\x80\x03)" + b"2\x86]q\x00(h\x00h\x00e" * 30 + b".")))) > 30
    assert len(list(bounded(genops(doubled(12))))) > 12

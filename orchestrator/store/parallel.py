"""Calls that wait for an answer from a store, several at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE = 16  # a bucket answers in tens of milliseconds, whatever it is asked


def parallel_map(call: Callable[[S], T], items: Iterable[S], at_once: int = AT_ONCE) -> Iterator[T]:
    """Yield the results in the order of `items`; the first error ends what has not begun."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(call, items)

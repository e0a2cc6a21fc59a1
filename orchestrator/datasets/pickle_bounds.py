"""Bounds of a pickle, by its operations alone: what would take unbounded time or memory to compare or print.

A tuple may hold another one twice, which holds a third one twice: sixty operations make one whose hash takes
years, and a hundred thousand nested ones overflow the stack of the process that hashes them.
"""

from collections.abc import Iterable, Iterator
from pickletools import OpcodeInfo, markobject
from typing import Any

Operation = tuple[OpcodeInfo, Any, int | None]
"""As `pickletools.genops` yields them: operation, argument, place."""

LARGEST = 10_000
"""Objects in a tuple, those in the tuples in it included and counted each time; weights have dozens."""

_MARK = 0  # on the stack below; everything else counts at least 1
_MADE = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ", "NEWOBJ_EX")  # of what they were given


def bounded(operations: Iterable[Operation]) -> Iterator[tuple[OpcodeInfo, Any]]:
    """Yield operations with their arguments; raise `ValueError` at the first that makes too large a tuple."""
    stack: list[int] = []  # how many objects each entry is, its tuples unfolded
    memo: dict[int, int] = {}
    for code, argument, _ in operations:
        if code.name.endswith("PUT") or code.name == "MEMOIZE":
            memo[len(memo) if argument is None else _place(argument)] = stack[-1]
        elif code.name.endswith("GET"):
            stack.append(memo[_place(argument)])
        elif code.name == "DUP":
            stack.append(stack[-1])
        else:
            _apply(code, stack)
        yield code, argument


def _apply(code: OpcodeInfo, stack: list[int]) -> None:
    """Take from the stack what an operation takes, and put what it makes."""
    size = 1
    takes = len(code.stack_before)
    if markobject in code.stack_before:
        while (one := stack.pop()) != _MARK:
            size += one
        takes = code.stack_before.index(markobject)
    for _ in range(takes):
        size += stack.pop()
    if code.name in _MADE and size > LARGEST:
        raise ValueError("a tuple of too many tuples")
    made = size if code.name in _MADE else 1
    stack += [_MARK if one is markobject else made for one in code.stack_after]


def _place(argument: object) -> int:
    assert isinstance(argument, int)  # of an operation that names a place of the memo
    return argument

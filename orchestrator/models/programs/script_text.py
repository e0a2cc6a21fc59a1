"""Text of TorchScript: every token and every name is checked before torch's compiler sees it.

Loading already runs some of it: defaults of arguments, constants and `__setstate__`. The compiler of torch
writes few kinds of tokens (no comment, no operator besides signs of numbers, strings on one line); a text
with others is refused, so that no reader takes it for anything else. Then each name behind a dot must be on
the list of `operators`, or be no operator of torch at all: a text cannot call what it does not name.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.models.programs.operators import COMPILED, LANGUAGE, PRIMITIVES, TENSORS

MAX_DEPTH = 200
"""Brackets or steps of indentation in each other; the compiler calls itself for each."""

WITHOUT = "export the network without it, on the CPU, as code that only computes"

_TOKEN = re.compile(
    r"""(?P<space>[ \n]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?j?(?![A-Za-z0-9_.]))
    |(?P<text>"(?:[^"\\\n]|\\["'\\nt])*"(?!"))
    |(?P<sign>->|[()\[\]{},:=.-])""",
    re.VERBOSE | re.ASCII,
)
_DENIED = frozenset(
    {"print", "fork", "awaitable", "rpc_async", "rpc_sync", "rpc_remote"}
    | {"__setstate__", "__getstate__", "__import__"}
)
_CONSTANT = re.compile(r"c[0-9]+", re.ASCII)
_NESTING = re.compile(
    r"[)\]][.(\[]|\b(if|not|and|or|lambda)\b", re.ASCII
)  # that a line has one of in another

_CAST = "unchecked_cast"

Token = tuple[str, str]
"""Kind and text."""


def check_text(text: str, where: str) -> None:
    """Raise `Refused` under the name `where` for a text of TorchScript that names what is not allowed, or
    that the compiler of torch would not have written."""
    tokens = [("", ""), *_tokens(text, where), ("", "")]
    for place, (_, token) in enumerate(tokens):
        if token == "." and (tokens[place - 1][0] in ("", "space") or tokens[place + 1][0] != "name"):
            _refuse_token(where, "a dot that joins no names")
    for place, (kind, token) in enumerate(tokens):
        if kind == "text" and _is_operator(token[1:-1]):
            _refuse(where, token[1:-1])  # getattr(x, "save")
        if kind == "text" and _is_joined(tokens, place):
            _refuse_token(where, "a string that joins another word")  # getattr(x, "sa" "ve")
        if token == _CAST:
            _check_cast(tokens[place:], where)
        if kind == "name" and tokens[place - 1][1] != ".":
            _check_chain(_chain(tokens, place), where)
        elif kind == "name" and tokens[place - 2][0] != "name":  # behind a bracket: (x).save
            _check_names(_chain(tokens, place), where)
    _check_nesting("".join('""' if kind == "text" else token for kind, token in tokens), where)


def _chain(tokens: Sequence[Token], place: int) -> list[str]:
    """Return the names that dots join, from a place."""
    names = [tokens[place][1]]
    while tokens[place + 1][1] == ".":
        place += 2
        names.append(tokens[place][1])
    return names


def _is_joined(tokens: Sequence[Token], place: int) -> bool:
    """Return whether a string follows another one, or a name without a space."""
    before = tokens[place - 1][0]
    return before in ("name", "text") or (before == "space" and tokens[place - 2][0] == "text")


def _check_cast(tokens: Sequence[Token], where: str) -> None:
    """Refuse a cast that is not checked to an object or a tuple, which would read the memory of another."""
    depth, named = 0, []
    for _, token in tokens[1:]:
        depth += (token in ("(", "[")) - (token in (")", "]"))
        if depth == 0 or (depth == 1 and token == ","):
            break
        named.append(token)
    if not named or {"__torch__", "Tuple", "NamedTuple", "Any"} & set(named):
        _refuse(where, "".join((_CAST, *named)))


def check_class(name: str, where: str) -> None:
    """Raise `Refused` for the name of a class that is not in the program itself: of torch or an extension."""
    if name.startswith("__torch__.torch.classes"):
        rule = (
            f"asks for the custom class {shortened(name.removeprefix('__torch__.'))}, which runs native code"
        )
        raise Refused(where, NO_VALUE, rule, WITHOUT)
    if re.fullmatch(r"__torch__(\.[A-Za-z_][A-Za-z0-9_]*)+", name, re.ASCII) is None:
        raise Refused(where, NO_VALUE, f"asks for the class {shortened(name)}", WITHOUT)


def _tokens(text: str, where: str) -> Iterator[Token]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            _refuse_token(where, text[place : place + 20])
        place = found.end()
        assert found.lastgroup is not None
        yield found.lastgroup, found.group()


def _check_nesting(plain: str, where: str) -> None:
    depth = 0
    for sign in re.findall(r"[()\[\]{}]", plain):
        depth += 1 if sign in "([{" else -1
        if depth > MAX_DEPTH:
            _refuse_token(where, f"{MAX_DEPTH} brackets in each other")
    for line in plain.split("\n"):
        indented = len(line) - len(line.lstrip(" "))
        if (
            indented > 2 * MAX_DEPTH
            or len(_NESTING.findall(line)) > MAX_DEPTH
            or "- -" in line
            or "--" in line
        ):
            _refuse_token(where, f"{MAX_DEPTH} parts of a line in each other")


def _check_chain(names: Sequence[str], where: str) -> None:
    """Check names that dots join and that begin a term."""
    if len(names) > MAX_DEPTH:
        _refuse_token(where, f"{MAX_DEPTH} names joined by dots")
    match names:
        case ["__torch__", *_]:
            check_class(".".join(names), where)
        case ["torch", name, *more] | ["ops", "aten", name, *more] if name in TENSORS | LANGUAGE:
            _check_names(more, where)
        case ["ops", "prim", name, *more] if name in PRIMITIVES - COMPILED:
            _check_names(more, where)
        case ["CONSTANTS", name, *more] if _CONSTANT.fullmatch(name):
            _check_names(more, where)
        case ["torch" | "ops" | "CONSTANTS", *_]:
            _refuse(where, ".".join(names))
        case [name] if name not in _DENIED:  # a variable, a type or a function of the program
            pass
        case _:
            _check_names(names, where)


def _check_names(names: Sequence[str], where: str) -> None:
    """Check names of attributes and methods."""
    for name in names:
        if _is_operator(name):
            _refuse(where, name)


@functools.cache
def _operators() -> frozenset[str]:
    """Return the names in the namespaces that a method of a tensor is looked up in."""
    import torch

    schemas = torch._C._jit_get_all_schemas()
    spaces = ("aten::", "prim::", "prims::")
    return frozenset(one.name.partition("::")[2] for one in schemas if one.name.startswith(spaces))


def _is_operator(name: str) -> bool:
    """Return whether a name is an operator that is not allowed."""
    return name in _DENIED or name in _operators() - TENSORS - LANGUAGE - PRIMITIVES


def _refuse(where: str, name: str) -> NoReturn:
    raise Refused(where, NO_VALUE, f"names {shortened(name)}, which is no operator of a classifier", WITHOUT)


def _refuse_token(where: str, what: str) -> NoReturn:
    rule = f"holds code that torch.jit.save does not write ({shortened(what)})"
    raise Refused(where, NO_VALUE, rule, "save the program again with torch.jit.save and stage that")

"""Types of attributes in a TorchScript program: what its code declares, and whether its pickle keeps to it.

torch's loader does not compare them. Code that was compiled for objects of one class would read the memory of
those of another.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused, shortened

Declared = Mapping[str, Mapping[str, str]]
"""Class -> its attributes with the texts of their types."""

LIST, DICT = "[]", "{}"
"""Kinds of what is held, which no type is called."""

_CLASS = re.compile(r"class (\w+)\(.*", re.ASCII)
_ATTRIBUTE = re.compile(r'  (?:(\w+) :|__annotations__\["([^"]*)"\] =) (.+)', re.ASCII)
_TYPE = re.compile(r"([\w.]+)(?:\[(.*)\])?", re.ASCII)
_AGAIN = "get the file from its publisher again, or save the network again with torch.jit.save"


@dataclass(eq=False)
class Held:
    """A list, a mapping or an object of a class of the program, with what it holds: of a mapping keys and
    values in turn, of an object its state."""

    kind: str
    content: list[Any] = field(default_factory=list)


class Value:
    """A tensor or a device, of which the type alone is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def declared_in(text: str, module: str, where: str) -> dict[str, dict[str, str]]:
    """Return the attributes of the classes in a module's text; raise `Refused` for what is there twice."""
    classes: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] = {}
    for line in text.split("\n"):
        if begun := _CLASS.fullmatch(line):
            name = f"{module}.{begun[1]}"
            if name in classes:
                raise Refused(where, NO_VALUE, f"holds the class {shortened(name)} twice", _AGAIN)
            classes[name] = attributes = {}
        elif found := _ATTRIBUTE.fullmatch(line):
            name = found[2] if found[1] is None else found[1]
            if name in attributes:
                raise Refused(where, NO_VALUE, f"declares the attribute {shortened(name)} twice", _AGAIN)
            attributes[name] = found[3]
    return classes


def check_types(values: Sequence[Held], declared: Declared, where: str) -> None:
    """Raise `Refused` under the name `where` for an object whose attributes are not those that its class
    declares, in number or type."""
    for held in values:
        if held.kind in (LIST, DICT):
            continue
        state = held.content[0] if len(held.content) == 1 else None
        if held.kind not in declared or not isinstance(state, Held) or state.kind != DICT:
            raise Refused(where, NO_VALUE, f"holds no state of the class {shortened(held.kind)}", _AGAIN)
        types = declared[held.kind]
        for name, value in zip(state.content[::2], state.content[1::2], strict=True):
            if type(name) is not str or name not in types or not _fits(value, types[name]):
                wanted = types.get(str(name), "no such attribute")
                what = (
                    f"{shortened(held.kind)}.{shortened(str(name))} as another type than {shortened(wanted)}"
                )
                raise Refused(where, NO_VALUE, f"holds {what}", _AGAIN)


_PLAIN: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "NoneType": type(None)}


def _fits(value: Any, text: str) -> bool:
    """Return whether a value has the type that a text names."""
    found = _TYPE.fullmatch(text)
    if found is None:
        return False
    name, inner = found[1], list(_parts(found[2])) if found[2] is not None else []
    match name:
        case "Optional":
            return value is None or (len(inner) == 1 and _fits(value, inner[0]))
        case "List":
            return (
                _holds(value, LIST) and len(inner) == 1 and all(_fits(one, inner[0]) for one in value.content)
            )
        case "Dict":
            return _holds(value, DICT) and len(inner) == 2 and _fit_in_turn(value.content, inner)
        case "Tuple":
            is_tuple = isinstance(value, tuple)
            return is_tuple and len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(value, Value | Held):
        return value.kind == name
    return name in _PLAIN and type(value) is _PLAIN[name]


def _holds(value: object, kind: str) -> bool:
    return isinstance(value, Held) and value.kind == kind


def _fit_in_turn(content: Sequence[object], types: Sequence[str]) -> bool:
    return len(content) % 2 == 0 and all(_fits(one, types[place % 2]) for place, one in enumerate(content))


def _parts(text: str) -> Iterator[str]:
    """Yield the types in a list of them: commas in brackets are of another list."""
    depth, part = 0, ""
    for sign in text:
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += sign
    if part.strip() and part.strip() != "()":
        yield part.strip()

"""Types of attributes in a TorchScript program: what its code declares, and whether its pickle keeps to it.

torch's loader does not compare them. Code that was compiled for objects of one class would read the memory of
those of another.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from orchestrator.config.base import NO_VALUE, Refused, shortened

Declared = Mapping[str, Mapping[str, str]]
"""Class -> its attributes with the texts of their types."""

LIST, DICT = "[]", "{}"
"""Kinds of what is held, which no type is called."""

_CLASS = re.compile(r"class (\w+)(?:\((?:Module|NamedTuple|(?:Module)?Interface)\))?:", re.ASCII)
_MEMBER = re.compile(r"  (?:def \w+\(.*|\w+ = .+)", re.ASCII)
_ATTRIBUTE = re.compile(r'  (?:(\w+) :|__annotations__\["([^"]*)"\] =) (.+)', re.ASCII)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.ASCII)
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
    """Return the attributes of the classes in a module's text, whose tokens `script_text` has checked.

    torch reads tokens and this reads lines, so a line that torch.jit.save would not write where it stands is
    refused: what it declares could be read in another way. Raise `Refused` for one, and for what is there
    twice.
    """
    classes: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] | None = None  # of the class that a line is in; None in a function
    has_body = False  # whether lines that are indented further belong to a method or function
    for line in _statements(text):
        if begun := _CLASS.fullmatch(line):
            name = f"{module}.{begun[1]}"
            if name in classes:
                raise Refused(where, NO_VALUE, f"holds the class {shortened(name)} twice", _AGAIN)
            classes[name] = attributes = {}
            has_body = False
        elif line.startswith("def "):
            attributes, has_body = None, True
        elif attributes is None or line.startswith("    "):
            if not has_body or not line.startswith("  "):
                _refuse_line(line, where)
        elif found := _ATTRIBUTE.fullmatch(line):
            name = found[2] if found[1] is None else found[1]
            if name in attributes:
                raise Refused(where, NO_VALUE, f"declares the attribute {shortened(name)} twice", _AGAIN)
            attributes[name] = found[3]
            has_body = False
        elif _MEMBER.fullmatch(line):
            has_body = line.startswith("  def ")
        else:
            _refuse_line(line, where)
    return classes


def _statements(text: str) -> Iterator[str]:
    """Yield the lines that begin outside of brackets and are not empty."""
    depth = 0
    for line in text.split("\n"):
        if depth == 0 and line.strip():
            yield line
        plain = _STRING.sub("", line)
        depth += sum(map(plain.count, "([{")) - sum(map(plain.count, ")]}"))


def _refuse_line(line: str, where: str) -> NoReturn:
    rule = f"holds code that torch.jit.save does not write ({shortened(line.strip())})"
    raise Refused(where, NO_VALUE, rule, _AGAIN)


def check_types(
    values: Sequence[Held], declared: Declared, where: str, tagged: Sequence[tuple[Any, str]] = ()
) -> None:
    """Raise `Refused` under the name `where` for an object whose attributes are not those that its class
    declares, in number or type, and for one of `tagged` values that has not the type beside it.

    A list or mapping has one type wherever it is held: of two, code could put in what has the one and take it
    out as the other.
    """
    seen: dict[int, str] = {}
    for value, text in tagged:
        if not _fits(value, text, seen):
            raise Refused(where, NO_VALUE, f"holds a value that is no {shortened(text)}", _AGAIN)
    for held in values:
        if held.kind in (LIST, DICT):
            continue
        state = held.content[0] if len(held.content) == 1 else None
        if held.kind not in declared or not isinstance(state, Held) or state.kind != DICT:
            raise Refused(where, NO_VALUE, f"holds no state of the class {shortened(held.kind)}", _AGAIN)
        types = declared[held.kind]
        for name, value in zip(state.content[::2], state.content[1::2], strict=True):
            if type(name) is not str or name not in types or not _fits(value, types[name], seen):
                wanted = types.get(str(name), "no such attribute")
                what = (
                    f"{shortened(held.kind)}.{shortened(str(name))} as another type than {shortened(wanted)}"
                )
                raise Refused(where, NO_VALUE, f"holds {what}", _AGAIN)


_PLAIN: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "NoneType": type(None)}


def _fits(value: Any, text: str, seen: dict[int, str]) -> bool:
    """Return whether a value has the type that a text names; `seen` has the types of lists and mappings by
    identity, as far as they are known."""
    found = _TYPE.fullmatch(text)
    if found is None:
        return False
    name, inner = found[1], list(_parts(found[2])) if found[2] is not None else []
    match name:
        case "Optional":
            return value is None or (len(inner) == 1 and _fits(value, inner[0], seen))
        case "List":
            return _holds(value, LIST, text, seen) and len(inner) == 1 and _fit(value.content, inner, seen)
        case "Dict":
            is_paired = _holds(value, DICT, text, seen) and len(value.content) % 2 == 0
            return is_paired and len(inner) == 2 and _fit(value.content, inner, seen)
        case "Tuple":
            is_tuple = isinstance(value, tuple)
            return is_tuple and len(value) == len(inner) and (not inner or _fit(value, inner, seen))
    if isinstance(value, Value | Held):
        return value.kind == name
    return name in _PLAIN and type(value) is _PLAIN[name]


def _holds(value: object, kind: str, text: str, seen: dict[int, str]) -> bool:
    return isinstance(value, Held) and value.kind == kind and seen.setdefault(id(value), text) == text


def _fit(values: Sequence[object], types: Sequence[str], seen: dict[int, str]) -> bool:
    """Return whether values have types in turn, from the first again after the last."""
    return all(_fits(one, types[place % len(types)], seen) for place, one in enumerate(values))


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

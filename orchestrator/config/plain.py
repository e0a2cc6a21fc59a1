"""Plain content of study files: mappings with text as keys, lists, printable text, numbers; not too deep."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused

MAX_DEPTH = 24
"""Mappings and lists inside each other; the deepest field of a study is at 10."""

MAX_VALUES = 200_000
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
DEEP = f"is nested deeper than {MAX_DEPTH} levels"
FLATTEN = "take out the brackets and indents that no field needs"


def check_plain(value: Any, path: str) -> None:
    """Raise `Refused` of a dotted path below `path` if a value that YAML made can be in no study."""
    for count, (field, part) in enumerate(_parts(value, path, 0)):
        if count == MAX_VALUES:  # anchors that repeat anchors make any number of a few lines
            way_out = "write a range, or split the study"
            raise Refused(path or "study", NO_VALUE, f"has more than {MAX_VALUES} values", way_out)
        if isinstance(part, str):
            _check_text(field, part)
        elif part is not None and not isinstance(part, bool | int | float):
            rule = f"is a YAML {type(part).__name__}, and fields are text, numbers, true, false and null"
            raise Refused(field, part, rule, "put it in quotes")


def check_path(field: str, path: str | Path) -> None:
    """Raise `Refused` of a field if no file system can have such a path."""
    text = str(path)
    if "\0" in text:
        raise Refused(field, text, "has a null byte, which no path may have", "leave it out")
    sizes = [len(part.encode(errors="surrogateescape")) for part in text.split("/")]
    if max(sizes) > MAX_NAME_BYTES or sum(sizes) + len(sizes) - 1 > MAX_PATH_BYTES:
        rule = f"is longer than a path can be ({MAX_NAME_BYTES} bytes in a name, {MAX_PATH_BYTES} in all)"
        raise Refused(field, text, rule, "use a shorter one")


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested mappings and lists with its path; raise `Refused` for their form."""
    if depth > MAX_DEPTH:
        raise Refused(path, NO_VALUE, DEEP, FLATTEN)
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                rule = "is a key that is no text, and names of fields and axes are"
                raise Refused(f"{path}.{key}" if path else str(key), NO_VALUE, rule, "put it in quotes")
            _check_text(path or key, key)
            yield from _parts(part, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _parts(part, f"{path}.{place}", depth + 1)
    else:
        yield path, value


def _check_text(field: str, text: str) -> None:
    bad = next((sign for sign in text if not (sign.isprintable() or sign in "\n\t")), None)
    if bad is not None:
        rule = f"has the character {bad!a}, which cannot be printed"
        raise Refused(field, text, rule, "leave it out")

"""The one reader of YAML, for study files and `--set`: plain data, and every plain word has one meaning.

YAML 1.1 takes `010` for 8 and `1:30` for 90, YAML 1.2 for 10 and for text: such words are refused, as is text
that asks to be replaced, `${oc.env:NAME}`. A study is data: it reads no environment and no other file.
"""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from orchestrator.config.base import Refused

WHOLE = r"(?:0|[1-9][0-9]*)"
NUMBERS = {
    "int": rf"[-+]?{WHOLE}",
    "float": rf"[-+]?(?:{WHOLE}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?{WHOLE}[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
"""YAML's type -> the words that are numbers of it, as in YAML 1.2 and JSON."""

OTHER_NUMBERS = (
    r"[-+]?(?:0[0-9_]+(?:\.[0-9_]*)?|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|0[box][0-9a-fA-F_]+"
    r"|[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?|[0-9]+\.[0-9]*_[0-9_]*)(?:[eE][-+]?[0-9]+)?"
)
"""Words that only some versions of YAML take for numbers, or for other ones."""

REFERENCE = "${"


class _Ambiguous(str):
    """A plain word of `OTHER_NUMBERS`."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader for plain data without repeated keys, of which PyYAML would keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the node; raise `ConstructorError` if a key is repeated."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                where, what = node.start_mark, f"found duplicate key {key.value}"
                raise ConstructorError("while constructing a mapping", where, what, key.start_mark)
            seen.add(key.value)
        return node


def _set_up_types() -> None:
    """Give the loader its numbers, and take from it the types that JSON lacks."""
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, words) for tag, words in resolvers if tag.endswith((":bool", ":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for kind, words in {**NUMBERS, "ambiguous": OTHER_NUMBERS}.items():
        whole = re.compile(f"^(?:{words})$")
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", whole, list("-+.0123456789"))
    for kind in ("binary", "omap", "pairs", "set", "timestamp"):
        del _Loader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]


_Loader.add_constructor("tag:yaml.org,2002:ambiguous", lambda loader, node: _Ambiguous(node.value))
_set_up_types()


def read_yaml(text: str) -> Any:
    """Return the data of a YAML document.

    Raise `yaml.YAMLError` for what is no YAML, `ValueError` for a value that is none of its `!!type`, and
    `Refused` for a word with two meanings and for `${...}`.
    """
    try:
        value = yaml.load(text, _Loader)
        _check(value, "", set())
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    return value


def _check(value: Any, path: str, seen: set[int]) -> None:
    """Raise `Refused` for a text that does not mean itself; `seen`: the containers that anchors repeat."""
    if isinstance(value, dict | list):
        if id(value) in seen:
            return
        seen.add(id(value))
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _check(name, path, seen)
            _check(part, f"{path}.{name}".removeprefix("."), seen)
    elif isinstance(value, _Ambiguous):
        rule = "means different numbers, or text, in different versions of YAML"
        raise Refused(
            path or "value", value[:60], rule, f"write a decimal number, or '{value[:60]}' for text"
        )
    elif isinstance(value, str) and REFERENCE in value:
        rule = "is not replaced: a study is data and reads no environment"
        raise Refused(path or "value", value[:60], rule, "write the value, or give it with --set")

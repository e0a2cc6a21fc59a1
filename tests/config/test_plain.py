"""Content that no study can have, and paths that no file system can have, are refused in one line."""

import datetime
from typing import Any

import pytest

from orchestrator.config.base import Refused
from orchestrator.config.plain import MAX_DEPTH, MAX_VALUES, check_path, check_plain


def nested(depth: int) -> Any:
    """Return a list in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def laughing(depth: int) -> Any:
    """Return a list that holds another six times, which holds another six times, and so on."""
    value: Any = [1] * 6
    for _ in range(depth):
        value = [value] * 6
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"smoke": {1: 2}},
            "scales.smoke.1 is a key that is no text, and names of fields and axes are; put it in quotes.",
        ),
        (
            {"smoke": {None: 2}},
            "scales.smoke.None is a key that is no text, and names of fields and axes are; put it in quotes.",
        ),
        (
            {"about": "a\x1b[31mb"},
            r"scales.about=a\x1b[31mb has the character '\x1b', which cannot be printed; leave it out.",
        ),
        (
            {"a": "\ud800"},
            r"scales.a=\ud800 has the character '\ud800', which cannot be printed; leave it out.",
        ),
        (
            {"a\x07": 1},
            r"scales=a\x07 has the character '\x07', which cannot be printed; leave it out.",
        ),
        (
            {"a": [datetime.date(2020, 1, 2)]},
            "scales.a.0=2020-01-02 is a YAML date, and fields are text, numbers, true, false and null; put "
            "it in quotes.",
        ),
        ({"a": b"hi"}, "scales.a=b'hi' is a YAML bytes, and fields are text,"),
        ({"a": nested(2000)}, "is nested deeper than 24 levels; take out the brackets and indents"),
        (laughing(12), f"scales has more than {MAX_VALUES} values; write a range, or split the study."),
    ],
    ids=["number", "null", "escape", "surrogate", "key", "date", "bytes", "deep", "many"],
)
def test_what_no_study_can_have(value: Any, text: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_plain(value, "scales")
    assert text in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_plain_content_passes() -> None:
    check_plain({"a": [1, 2.0, None, True, "two\nlines\tand a tab, \u00e9\u4e2d"], "b": {}}, "")
    check_plain(nested(MAX_DEPTH), "")


@pytest.mark.parametrize("path", ["x" * 256, "/a/" + "\u00e9" * 128, "a/" * 2100, "a\0b"])
def test_a_path_that_no_file_system_can_have(path: str) -> None:
    with pytest.raises(Refused, match=r"^--out=.* (is longer than a path can be|has a null byte)"):
        check_path("--out", path)


def test_a_long_path_that_can_be() -> None:
    check_path("--out", "/" + "/".join(["x" * 255] * 15))

"""The one reader of YAML: what numbers are, what has two meanings, what is no plain data."""

import re

import pytest
import yaml

from orchestrator.config.base import Refused
from orchestrator.config.yaml_text import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-2E+4", -2e4),
        (".5", 0.5),
        ("3.", 3.0),
        ("+7", 7),
        ("0", 0),
        ("-0.0", 0.0),
        ("0e5", 0.0),
        (".inf", float("inf")),
        ("'010'", "010"),
        ('"1:30"', "1:30"),
        ("units0-46", "units0-46"),
        ("40%", "40%"),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("=", "="),
        ("y", "y"),
        ("[yes, no, on, off, true, False]", [True, False, True, False, True, False]),
        ("[~, null, ]", [None, None]),
        ("{<<: {a: 1, b: 2}, a: 3}", {"a": 3, "b": 2}),
        ("", None),
    ],
)
def test_a_word_has_one_type(text: str, value: object) -> None:
    read = read_yaml(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "word",
    [
        "010",
        "08",
        "-007",
        "00",
        "01.5",
        "01e3",
        "1:30",
        "190:20:30.15",
        "1_000",
        "1_0.5",
        "1.0_1",
        "0x1F",
        "0b11",
    ],
)
@pytest.mark.parametrize("text", ["{}", "a: [1, {}]", "{{{}: 1}}"])
def test_a_word_with_two_meanings_is_refused(word: str, text: str) -> None:
    rule = "means different numbers, or text, in different versions of YAML"
    with pytest.raises(
        Refused, match=rf"={re.escape(word)} {rule}; write a decimal number, or '.*' for text\.$"
    ):
        read_yaml(text.format(word))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{a: 1, b: 2, a: 3}", "found duplicate key a"),
        ("x: &x {a: 1, a: 1}\ny: {<<: *x}", "found duplicate key a"),
        ("!!set {a}", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("[" * 3000, "it is nested too deeply"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_plain_data_is_no_yaml(text: str, error: str) -> None:
    with pytest.raises(yaml.YAMLError, match=error):
        read_yaml(text)


def test_anchors_that_repeat_each_other_are_checked_once_each() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    assert len(read_yaml("\n".join(lines))) == 40

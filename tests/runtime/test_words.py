"""Texts of others as they are passed on."""

import pytest

from orchestrator.runtime.words import last_line, sentences


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("One line\n  of two.\n", "One line of two"),
        ("\x1b[1mBold\x1b[0m and \x1b[31mred\x1b[m", "Bold and red"),
        ("\x1b]0;title\x07Text\x00s", "Text s"),
        ("First. Second is too long to be kept whole.", "First"),
        ("s3://user:secret@host refuses", "s3://***@host refuses"),
        ("a sentence without any end that is longer", "a sentence without any end ..."),
        ("x" * 40, "x" * 30 + " ..."),
    ],
)
def test_texts_are_whole_sentences_of_one_line(text: str, wanted: str) -> None:
    assert sentences(text, 30) == wanted


def test_the_last_line_of_a_traceback_is_the_error() -> None:
    assert (
        last_line("Traceback:\n  File x\n\x1b[31mValueError: no. such\x1b[0m\n\n") == "ValueError: no. such"
    )
    assert last_line("\n") == ""

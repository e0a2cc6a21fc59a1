"""Answers of a user study: the CSV files that the page downloads, read as what may come from anybody."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from orchestrator.config.base import Refused
from orchestrator.datasets.sources.files import read_regular
from orchestrator.report.user_study.key import Key, read_key
from orchestrator.report.user_study.page import HEADER, RATER

FIELD = "--answers"
MAX_BYTES = 2**20  # of one rater's file
MAX_SECONDS = 1e6
WAY_OUT = "give the file as the page downloads it"


@dataclass(frozen=True)
class Answer:
    """One rater's choice in one pair."""

    rater: str
    pair: int  # from 1
    person: int  # the class of its private image
    prefers_first: bool  # whether the first setting's reconstruction was found closer
    seconds: float  # that the pair was on the screen


def read_answers(paths: Sequence[Path], folder: Path) -> tuple[Key, list[Answer]]:
    """Return the key of the page that the files answer, from `folder`, and all answers.

    Raise `Refused` for a file that is none of the page's, for files of several pages, for a pair that a rater
    answers twice, and if there is no answer or no key.
    """
    rows = [(path, number, row) for path in paths for number, row in enumerate(_rows(path), start=2)]
    if not rows:
        raise Refused(FIELD, ", ".join(map(str, paths)), "hold no answer", WAY_OUT)
    key = read_key(folder, rows[0][2][0])
    answers: dict[tuple[str, int], Answer] = {}
    for path, number, row in rows:
        answer = _answer(path, number, row, key)
        if (answer.rater, answer.pair) in answers:
            _refuse(path, number, f"answers pair {answer.pair} of rater {answer.rater} a second time")
        answers[answer.rater, answer.pair] = answer
    return key, list(answers.values())


def _rows(path: Path) -> list[list[str]]:
    """Return the rows below the header."""
    try:
        data = read_regular(path, MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise Refused(FIELD, path, f"has more than {MAX_BYTES} bytes", WAY_OUT)
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise Refused(FIELD, path, f"cannot be read ({error.strerror})", WAY_OUT) from None
    except (UnicodeDecodeError, csv.Error):
        raise Refused(FIELD, path, "is no CSV in UTF-8", WAY_OUT) from None
    if not rows or tuple(rows[0]) != HEADER:
        raise Refused(FIELD, path, f"does not begin with the columns {', '.join(HEADER)}", WAY_OUT)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(HEADER):
            _refuse(path, number, f"has {len(row)} cells instead of {len(HEADER)}")
    return rows[1:]


def _answer(path: Path, number: int, row: Sequence[str], key: Key) -> Answer:
    page, rater, pair, choice, seconds = row
    if page != key.page:
        _refuse(path, number, f"is of page {page}, another one than {key.page}")
    if not re.fullmatch(RATER, rater):
        _refuse(
            path, number, f"has the rater {rater}, and a code has letters, digits, ., _ and - (at most 40)"
        )
    if not re.fullmatch(r"[1-9][0-9]{0,6}", pair) or int(pair) > len(key.pairs):
        _refuse(path, number, f"has the pair {pair}, and the page has 1..{len(key.pairs)}")
    if choice not in ("left", "right"):
        _refuse(path, number, f"has the choice {choice}, and it is left or right")
    asked = key.pairs[int(pair) - 1]
    return Answer(rater, int(pair), asked.person, choice == asked.first, _seconds(path, number, seconds))


def _seconds(path: Path, number: int, text: str) -> float:
    value = float(text) if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) else math.nan
    if not 0 <= value <= MAX_SECONDS:
        _refuse(path, number, f"has {text} seconds, and they lie in 0..{MAX_SECONDS:.0f}")
    return value


def _refuse(path: Path, number: int, rule: str) -> NoReturn:
    raise Refused(FIELD, path, f"line {number} {rule}", WAY_OUT)

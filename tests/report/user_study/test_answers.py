"""Answers of raters: read as the page writes them, and refused in one line as anybody else might."""

import os
from pathlib import Path

import pytest

from orchestrator.config.base import Refused
from orchestrator.report.user_study import answers as module
from orchestrator.report.user_study.answers import Answer, read_answers
from orchestrator.report.user_study.key import Key
from tests.report.user_study.test_key import write
from tests.report.user_study.trials import study

HEAD = "page,rater,pair,choice,seconds\n"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """Return a key that lies in the folder."""
    _, key = study()
    write(tmp_path, key)
    return key


def file(folder: Path, text: str, name: str = "a.csv") -> Path:
    """Write a file of answers."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_choices_become_settings_by_the_key(tmp_path: Path, key: Key) -> None:
    rows = [f"{key.page},ann,{pair},left,1.50\n" for pair in (1, 2, 3)]
    first = file(tmp_path, HEAD + "".join(rows))
    second = file(tmp_path, "\ufeff" + HEAD + f"{key.page},b.ob-2,1,right,61\r\n", "b.csv")
    found, read = read_answers([first, second], tmp_path)
    assert found == key
    assert read == [
        *(
            Answer("ann", place, pair.person, pair.first == "left", 1.5)
            for place, pair in enumerate(key.pairs[:3], start=1)
        ),
        Answer("b.ob-2", 1, key.pairs[0].person, key.pairs[0].first == "right", 61.0),
    ]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("PAGE,ann,1,left", "line 2 has 4 cells instead of 5"),
        ("PAGE,ann,1,left,1,1", "line 2 has 6 cells instead of 5"),
        ("", "line 2 has 0 cells instead of 5"),
        ("PAGE,=cmd|'/c calc'!A1,1,left,1", "line 2 has the rater =cmd|'/c calc'!A1, and a code has letters"),
        ("PAGE,,1,left,1", "line 2 has the rater , and a code has"),
        (f"PAGE,{'a' * 41},1,left,1", f"line 2 has the rater {'a' * 41}, and a code has"),
        ("PAGE,ann\u202e,1,left,1", "line 2 has the rater ann\\u202e, and a code has"),
        ("PAGE,ann,0,left,1", "line 2 has the pair 0, and the page has 1..8"),
        ("PAGE,ann,9,left,1", "line 2 has the pair 9, and the page has 1..8"),
        ("PAGE,ann,\u0661,left,1", "line 2 has the pair \u0661, and the page"),
        (f"PAGE,ann,{'9' * 5000},left,1", "line 2 has the pair 9"),
        ("PAGE,ann,1,first,1", "line 2 has the choice first, and it is left or right"),
        ("PAGE,ann,1,left,nan", "line 2 has nan seconds, and they lie in 0..1000000"),
        ("PAGE,ann,1,left,1e999", "line 2 has 1e999 seconds"),
        ("PAGE,ann,1,left,-1", "line 2 has -1 seconds"),
        ("PAGE,ann,1,left,9999999", "line 2 has 9999999 seconds"),
        ("PAGE,ann,1,left,1\nPAGE,ann,1,right,1", "line 3 answers pair 1 of rater ann a second time"),
        ("PAGE,ann,1,left,1\n000000000000,ann,2,left,1", "line 3 is of page 000000000000, another one than"),
        ('PAGE,"ann', "is no CSV in UTF-8"),
    ],
)
def test_a_row_that_the_page_does_not_write_is_refused(tmp_path: Path, key: Key, row: str, rule: str) -> None:
    path = file(tmp_path, HEAD + row.replace("PAGE", key.page) + "\n")
    if not row:
        path = file(tmp_path, f"{HEAD}\n{key.page},ann,1,left,1\n")
    with pytest.raises(Refused) as caught:
        read_answers([path], tmp_path)
    assert str(caught.value).startswith(f"--answers={path} {rule}"), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "does not begin with the columns page, rater, pair, choice, seconds"),
        (b"page,rater\n", "does not begin with the columns"),
        (HEAD.encode(), "hold no answer"),
        (b"\xff\xfe\x00", "is no CSV in UTF-8"),
        (HEAD.encode() + b"\x00\n" * 3, "line 2 has 1 cells instead of 5"),
        (HEAD.encode() + b"x" * 200_000, "is no CSV in UTF-8"),  # a cell longer than csv reads
        (HEAD.encode() + b"../../key,ann,1,left,1\n", "=../../key is no name of a page"),
        (b"\n" * (module.MAX_BYTES + 1), f"has more than {module.MAX_BYTES} bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_the_page_does_not_write_is_refused(
    tmp_path: Path, key: Key, data: bytes, rule: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        read_answers([path], tmp_path)
    assert rule in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, key: Key) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    for one, reason in ((path, "not a regular file"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(Refused, match=rf"cannot be read \({reason}\); give the file as the page"):
            read_answers([one], tmp_path)


def test_one_rater_in_two_files_is_refused(tmp_path: Path, key: Key) -> None:
    row = f"{key.page},ann,2,left,1\n"
    paths = [file(tmp_path, HEAD + row, name) for name in ("a.csv", "b.csv")]
    with pytest.raises(Refused, match=r"b\.csv line 2 answers pair 2 of rater ann a second time"):
        read_answers(paths, tmp_path)

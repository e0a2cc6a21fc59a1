"""Keys of user studies: read back as written, and only the one that belongs to a page."""

import os
from pathlib import Path

import pytest

from orchestrator.config.base import Refused
from orchestrator.report.user_study.key import Key, files_of_sweep, key_file, page_file, read_key
from tests.report.user_study.trials import study


def write(folder: Path, key: Key, name: str = "") -> Path:
    """Write a key to a folder, under its own name unless another is given."""
    path = folder / key_file(name or key.page)
    path.write_text(key.model_dump_json())
    return path


def test_a_key_is_read_back(tmp_path: Path) -> None:
    _, key = study()
    write(tmp_path, key)
    assert read_key(tmp_path, key.page) == key


def test_names_of_files_hold_nothing_but_the_page() -> None:
    _, key = study()
    assert {page_file(key.page), key_file(key.page)} == {
        f"user-study-{key.page}.html",
        f"user-study-{key.page}-key.json",
    }
    assert len(key.page) == 12


@pytest.mark.parametrize("page", ["../../etc/passwd", "", "0" * 13, "ABCDEFABCDEF", "0" * 11 + "\n"])
def test_a_page_that_is_no_name_opens_no_file(tmp_path: Path, page: str) -> None:
    with pytest.raises(Refused, match=r"is no name of a page; give the file that the page downloads\.$"):
        read_key(tmp_path, page)


def test_a_key_that_is_not_the_pages_is_refused(tmp_path: Path) -> None:
    _, key = study()
    with pytest.raises(Refused, match=rf"of page {key.page} cannot be read \(No such file or directory\)"):
        read_key(tmp_path, key.page)
    write(tmp_path, key, "0" * 12)
    with pytest.raises(Refused, match=rf"is the key of page {key.page}; restore the one of this name"):
        read_key(tmp_path, "0" * 12)
    path = write(tmp_path, key)
    for text in ("", "{}", "[]", path.read_text().replace('"left"', '"up"'), path.read_text()[:-9]):
        path.write_text(text)
        with pytest.raises(Refused, match=f"is not the key of page {key.page}; restore it"):
            read_key(tmp_path, key.page)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match=r"cannot be read \(not a regular file\)"):
        read_key(tmp_path, key.page)


def test_the_files_of_a_sweeps_user_studies_are_known_by_their_keys(tmp_path: Path) -> None:
    _, unknown = study()
    own, other = (
        unknown.but(page=page, sweep=sweep) for page, sweep in (("a" * 12, "one"), ("b" * 12, "two"))
    )
    for key in (own, other, unknown):
        write(tmp_path, key)
        (tmp_path / page_file(key.page)).write_text("page")
    (tmp_path / f"user-study-{own.page}.csv").write_text("table")
    (tmp_path / key_file("c" * 12)).write_text("no key")
    found = {path.name for path in files_of_sweep(tmp_path, "one")}
    assert found == {page_file(own.page), key_file(own.page), f"user-study-{own.page}.csv"}
    assert files_of_sweep(tmp_path, "three") == []
    assert files_of_sweep(tmp_path / "nowhere", "one") == []

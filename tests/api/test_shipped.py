"""Shipped studies: found by name, after a file of that name in the working directory."""

import os
from pathlib import Path

import pytest

from orchestrator.api.shipped import STUDIES, find_study, shipped_studies
from orchestrator.config.base import Refused


def test_a_name_is_a_shipped_study_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_study("demo") == STUDIES / "demo.yaml"
    assert find_study("mine.yaml") == Path("mine.yaml")  # its reader says that it does not exist
    Path("demo").mkdir()
    assert find_study("demo") == STUDIES / "demo.yaml"
    Path("demo").rmdir()
    os.mkfifo("demo")
    assert find_study("demo") == Path("demo")
    Path("demo").unlink()
    Path("demo").touch()
    assert find_study("demo") == Path("demo")


def test_a_name_that_is_close_to_a_shipped_one_is_refused_with_it() -> None:
    assert {"demo", "ami-truncation", "tl-dmi-fig-1"} <= set(shipped_studies())
    with pytest.raises(Refused, match=r"^study=Demos.yaml does not exist; did you mean demo"):
        find_study("Demos.yaml")

"""The folder of this package, and its commands as messages spell them."""

from pathlib import Path

import pytest

from orchestrator.config.base import Refused
from orchestrator.config.installation import ROOT, called, to_call
from orchestrator.config.load import read_study
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, verify
from orchestrator.datasets.weights_manifest import describe
from orchestrator.store.directory import DirectoryBlobs


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/env/bin/inversion", "inversion stage-data"),
        ("/code/jobs/sweep.py", "python -m jobs.stage_data"),
        ("/env/bin/pytest", "python -m jobs.stage_data"),
    ],
)
def test_a_command_is_called_as_this_process_was(
    program: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program, "sweep"])
    assert " ".join(called("stage_data")) == words
    assert to_call("stage_data", "SOURCE") == f"{words} SOURCE"


def test_messages_of_every_room_call_commands_as_they_were_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/env/bin/inversion", "sweep"])
    location = Location(DirectoryBlobs(tmp_path))
    with pytest.raises(Refused, match=r"stage the set with inversion stage-data\."):
        verify("absent", location)
    with pytest.raises(Refused, match=r"stage the weights with inversion stage-weights\."):
        describe("absent", location)
    with pytest.raises(StudyError, match="inversion sweep --list prints the shipped ones"):
        read_study(tmp_path / "absent.yaml")


def test_no_room_spells_a_command_or_finds_the_folder_itself() -> None:
    for path in (ROOT / "orchestrator").rglob("*.py"):
        text = path.read_text(encoding="ascii")
        if path.name == "installation.py":
            continue
        assert "resolve().parents[" not in text, path
        told = [line for line in text.splitlines() if '"' in line and "python -m jobs." in line]
        assert [
            line for line in told if '"""' not in line and "`" not in line and "ray job" not in line
        ] == [], path

"""The JSON tracker: a line for each trial. tests/runtime/mlflow has the suite of all trackers."""

import json
from dataclasses import replace
from pathlib import Path

from orchestrator.sweep.json_tracker import JsonTracker, read_trials
from tests.runtime.samples import sample_report, sample_sweep, sample_trials

FIRST, SECOND = sample_trials(2, with_images=False)


def started(folder: Path) -> JsonTracker:
    tracker = JsonTracker(folder)
    tracker.open(sample_sweep())
    return tracker


def test_a_line_that_a_crash_cut_off_is_dropped_at_the_next_start(tmp_path: Path) -> None:
    tracker = started(tmp_path)
    tracker.ended(FIRST)
    file = tracker.folder / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    again = started(tmp_path)
    assert file.read_bytes() == whole
    again.ended(FIRST)  # stored already
    again.ended(SECOND)
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == [FIRST.key, SECOND.key]


def test_the_last_line_of_a_trial_counts(tmp_path: Path) -> None:
    tracker = started(tmp_path)
    for trial in (FIRST, replace(FIRST, status="failed", error="no memory"), FIRST):
        tracker.ended(trial)
    assert len((tracker.folder / "trials.jsonl").read_text().splitlines()) == 3
    assert read_trials(tracker.folder)[FIRST.key]["status"] == "finished"


def test_a_folder_without_trials_has_none(tmp_path: Path) -> None:
    assert read_trials(tmp_path) == {}


def test_the_reports_files_lie_in_one_folder(tmp_path: Path) -> None:
    tracker = started(tmp_path)
    report = replace(sample_report([FIRST]), files={"report/results.csv": b"a,b\n", "figure.png": b"png"})
    assert tracker.finished(report, {}) == [f"Trials as JSON lines: {tracker.folder / 'trials.jsonl'}"]
    assert (tracker.folder / "report" / "results.csv").read_bytes() == b"a,b\n"
    assert (tracker.folder / "report" / "figure.png").read_bytes() == b"png"
    assert json.loads((tracker.folder / "report.json").read_text())["files"] == sorted(report.files)

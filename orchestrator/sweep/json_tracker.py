"""JSON tracker: one line per trial in a folder, without a server; the last line of a trial counts.

Files: `sweep.json`, `trials.jsonl`, `report.json`, the report's files under `report/`. No trial images.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.sweep.records import StageCounts, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task


class JsonTracker:
    """Implements `Tracker` in `folder/<study>-<sweep key>`; a trial that has not changed is not written."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._lines: dict[str, str] = {}  # trial key -> its last line

    @property
    def folder(self) -> Path:
        """Where the started sweep is written."""
        return self._root

    def open(self, sweep: SweepRecord) -> None:
        """Write `sweep.json` and read what an earlier start left; a line cut off by a crash is dropped."""
        self._root = self._root / f"{sweep.study}-{sweep.key[:12]}"
        self._root.mkdir(parents=True, exist_ok=True)
        (self._root / "sweep.json").write_text(_line(asdict(sweep)) + "\n", encoding="utf-8")
        self._lines = {key: _line(trial) for key, trial in read_trials(self._root).items()}
        kept = "".join(f"{line}\n" for line in self._lines.values())
        aside = self._root / "trials.jsonl.new"
        aside.write_text(kept, encoding="utf-8")
        aside.replace(self._root / "trials.jsonl")

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Write nothing: only ended trials are kept."""

    def started(self, task: Task) -> None:
        """Write nothing: only ended trials are kept."""

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """Append the trial's line unless its last line equals it."""
        line = _line(record.plain() | {"images": sorted(record.images)})
        if self._lines.get(record.key) == line:
            return
        with (self._root / "trials.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._lines[record.key] = line

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Write `report.json` and the report's files; return where they are."""
        for name, content in report.files.items():
            path = self._root / "report" / PurePosixPath(name.removeprefix("report/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        models = {one.key: one.role for one in report.models}
        plain = asdict(replace(report, models=())) | {"files": sorted(report.files), "models": models}
        (self._root / "report.json").write_text(_line(plain) + "\n", encoding="utf-8")
        return [f"Trials as JSON lines: {self._root / 'trials.jsonl'}"]

    @property
    def is_complete(self) -> bool:
        """Every line is on disk."""
        return True

    def interrupted(self) -> None:
        """Close nothing: every line is already on disk."""


def read_trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last whole line of every trial in `folder/trials.jsonl`, by trial key."""
    path = folder / "trials.jsonl"
    if not path.exists():
        return {}
    trials: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            trial = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off by a crash; the next start writes the trial again
        trials[trial["key"]] = trial
    return trials


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)

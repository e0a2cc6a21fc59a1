"""The journal of a sweep: its events as lines, and what the next start reads back."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import JournalListener, read_pruned, read_started_ms
from orchestrator.sweep.records import Status, SweepReport, TrialRecord
from orchestrator.sweep.trial import Outcome


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(DirectoryBlobs(tmp_path), "5eed" * 16) as opened:
        yield opened


def record(key: str, status: Status, **fields: Any) -> TrialRecord:
    return TrialRecord(key, 0, f"0000-{key}", {}, {}, status, **fields)


def task(key: str, *stages: str) -> Any:
    point = SimpleNamespace(key=key, name=f"m001-{key}", axes={"seed": len(stages), "m": "all"})
    datasets = {"private": {"name": "digits"}}
    return SimpleNamespace(
        point=point, stages={one: SimpleNamespace(key=one, datasets=datasets) for one in stages}
    )


def test_every_event_becomes_a_line(journal: Journal) -> None:
    listener = JournalListener(journal)
    listener.planned([task("a", "s", "t"), task("b", "s")], num_missing=2)
    listener.started(task("a"))
    listener.ended(record("a", "finished"), ["s", "t"])
    listener.ended(record("b", "failed", failed_stage="t", error="no memory"))
    assert listener.finished(SweepReport({}, {}, "", 1, 0), {"target": {"run": 1, "reused": 0}}) == []
    events = [{name: value for name, value in one.items() if name != "time_ms"} for one in journal.events()]
    assert events == [
        {
            "event": "planned",
            "trials": ["a", "b"],
            "names": ["m001-a", "m001-b"],
            "axes": ["seed", "m"],
            "values": [[2, "all"], [1, "all"]],
            "stages": 2,
            "needs": ["s", "t"],
            "datasets": ["digits"],
        },
        {"event": "started", "trial": "a"},
        {
            "event": "ended",
            "trial": "a",
            "status": "finished",
            "built": ["s", "t"],
            "stage": None,
            "error": None,
        },
        {
            "event": "ended",
            "trial": "b",
            "status": "failed",
            "built": [],
            "stage": "t",
            "error": "no memory",
        },
        {"event": "finish", "finished": 1, "failed": 1, "stages": {"target": {"run": 1, "reused": 0}}},
    ]


def test_the_next_start_reads_pruned_trials_and_the_first_start(journal: Journal) -> None:
    assert read_pruned(journal) == {}
    assert read_started_ms(journal) is None
    journal.append("start", points=2)
    JournalListener(journal).ended(record("slow", "pruned"))
    JournalListener(journal).ended(record("good", "finished"))
    journal.append("start", points=2)
    assert read_pruned(journal) == {"slow": Outcome("pruned")}
    first = next(event for event in journal.events() if event["event"] == "start")
    assert read_started_ms(journal) == first["time_ms"]

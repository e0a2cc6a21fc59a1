"""The journal of a sweep: events of two starts, read back by the third."""

from dataclasses import replace
from pathlib import Path

from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import JournalListener, read_pruned, read_started_ms
from tests.runtime.samples import sample_report, sample_trials

FIRST, SECOND, THIRD = sample_trials(3, with_images=False)


def test_what_a_start_writes_the_next_one_reads(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(str(tmp_path))
    with Journal(blobs, "sweep") as journal:
        assert read_started_ms(journal) is None
        journal.append("start")
        listener = JournalListener(journal)
        listener.ended(replace(FIRST, status="pruned"), ["a" * 64])
        listener.ended(replace(SECOND, status="failed", failed_stage="target", error="no memory"))
        listener.ended(THIRD)
        assert listener.finished(sample_report([THIRD]), {"target": {"run": 1, "reused": 2}}) == []
    with Journal(blobs, "sweep") as journal:
        events = {(event["event"], event.get("trial")): event for event in journal.events()}
        assert read_pruned(journal) == {FIRST.key}
        assert read_started_ms(journal) == events["start", None]["time_ms"]
    assert events["ended", FIRST.key]["built"] == ["a" * 64]
    assert events["ended", SECOND.key]["stage"] == "target"
    assert events["ended", SECOND.key]["error"] == "no memory"
    finish = events["finish", None]
    assert (finish["finished"], finish["failed"], finish["pruned"]) == (1, 1, 1)
    assert finish["stages"] == {"target": {"run": 1, "reused": 2}}

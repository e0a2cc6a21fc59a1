"""The journal over both stores: nothing lost, nothing reordered, foreign bytes ignored."""

import json
import threading
import time
from pathlib import Path

import pytest

from orchestrator.store import journal as journal_module
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal

FOLDER = "sweeps/s1/journal/"


def names_of(journal: Journal) -> list[str]:
    return [event["event"] for event in journal.events()]


def test_events_of_all_attempts_come_back_in_order(blobs: Blobs) -> None:
    with Journal(blobs, "s1") as first:
        first.append("planned", points=3)
        first.append("failed", error="line one\nline two \u00e9")
    time.sleep(0.002)  # segments are ordered by the millisecond in which their attempt began
    with Journal(blobs, "s1") as second, Journal(blobs, "s2") as other:
        other.append("elsewhere")
        second.append("finished")
        events = second.events()
    assert [event["event"] for event in events] == ["planned", "failed", "finished"]
    assert events[0]["points"] == 3
    assert events[1]["error"] == "line one\nline two \u00e9"
    assert events[0]["time_ms"] <= events[2]["time_ms"]
    assert len(blobs.names(FOLDER)) == 2


def test_an_event_is_durable_soon_without_a_flush(blobs: Blobs) -> None:
    with Journal(blobs, "s1", flush_seconds=0.05) as journal:
        journal.append("leased", key="k")
        deadline = time.monotonic() + 5
        while not blobs.names(FOLDER) and time.monotonic() < deadline:
            time.sleep(0.01)
        (segment,) = blobs.names(FOLDER)
        assert json.loads(blobs.get(segment) or b"")["key"] == "k"


def test_a_flush_makes_events_durable_at_once(blobs: Blobs) -> None:
    with Journal(blobs, "s1", flush_seconds=60.0) as journal:
        journal.append("committed")
        assert blobs.names(FOLDER) == []
        journal.flush()
        (segment,) = blobs.names(FOLDER)
        assert (blobs.get(segment) or b"").count(b"\n") == 1


def test_a_journal_without_events_writes_nothing(blobs: Blobs) -> None:
    with Journal(blobs, "s1") as journal:
        assert journal.events() == []
    assert blobs.names("") == []


def test_torn_and_foreign_lines_are_left_out(blobs: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    torn = b'{"event":"a"}\n[1,2]\n{"no":"event"}\n\xff\xfe\n{"event":"b"}\n{"event":"c","ti'
    segment = f"{FOLDER}1700000000000-1-0123abcd-0000.jsonl"
    blobs.put(segment, torn)
    blobs.put(f"{FOLDER}notes.txt", b'{"event":"foreign"}\n')
    with Journal(blobs, "s1") as journal:
        assert names_of(journal) == ["a", "b"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"event=journal_line_ignored segment={segment} line={line}" for line in (2, 3, 4, 6)]


def test_eight_threads_lose_nothing_and_long_journals_have_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_PART_BYTES", 2_000)
    blobs = DirectoryBlobs(tmp_path)

    def write(writer: int) -> None:
        for number in range(100):
            journal.append("step", writer=writer, number=number)

    with Journal(blobs, "s1", flush_seconds=0.001) as journal:
        journal.append("planned", about="x" * 2_000)
        journal.flush()
        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        planned, *events = journal.events()
        assert planned["event"] == "planned"
        assert len(blobs.names(FOLDER)) > 1
        assert len(events) == 800
        for writer in range(8):
            assert [event["number"] for event in events if event["writer"] == writer] == list(range(100))


class Unsteady(DirectoryBlobs):
    """A store that is away at times."""

    is_away = False

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        if self.is_away:
            raise OSError(28, "No space left on device")
        return super().put(name, data, overwrite=overwrite)


def test_a_store_that_was_away_gets_every_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = Unsteady(tmp_path)
    with Journal(blobs, "s1", flush_seconds=0.01) as journal:
        blobs.is_away = True
        journal.append("one")
        with pytest.raises(OSError, match="No space left on device"):
            journal.flush()
        deadline = time.monotonic() + 5
        while "journal_flush_failed" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.005)
        assert "event=journal_flush_failed error=OSError" in caplog.text
        blobs.is_away = False
        while not blobs.names("") and time.monotonic() < deadline:
            time.sleep(0.005)
        assert names_of(journal) == ["one"]


def test_a_store_that_stays_away_fails_the_close(tmp_path: Path) -> None:
    blobs = Unsteady(tmp_path)
    journal = Journal(blobs, "s1", flush_seconds=0.01)
    blobs.is_away = True
    journal.append("one")
    with pytest.raises(OSError, match="No space left on device"):
        journal.close()


def test_no_event_after_the_end(tmp_path: Path) -> None:
    journal = Journal(DirectoryBlobs(tmp_path), "s1")
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="event=late came after the journal was closed"):
        journal.append("late")

"""Requests in the sweep's process: what a pause halts, what a resize changes, what is printed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.requests import RequestFolder
from orchestrator.sweep.ledger import Ledger
from orchestrator.sweep.requests import BUILDING_SECONDS, Requests, Size


@dataclass
class Halted:
    """Implements `Executor`: counts how often it is halted; the first `errors` times the cluster is away."""

    errors: int = 0
    halts: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, ledger: Ledger) -> None:
        """Run until it is halted."""
        assert self.ended.wait(20)

    def halt(self, seconds: float) -> None:
        """End the run."""
        self.halts += 1
        if self.halts <= self.errors:
            raise ConnectionError("away")
        self.ended.set()


@dataclass
class Steered:
    """A start of a sweep without stages, and the folder of the requests to it."""

    folder: RequestFolder
    journal: Journal
    requests: Requests
    size: Size
    lines: list[str]


@pytest.fixture
def steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steered:
    monkeypatch.setattr("orchestrator.sweep.requests.POLL_SECONDS", 0.02)
    blobs, size, lines = DirectoryBlobs(tmp_path), Size(asked=2), list[str]()
    journal = Journal(blobs, "ab" * 32)
    folder = RequestFolder(blobs, "ab" * 32, journal.attempt)
    requests = Requests(folder, journal, size, lines.append)
    return Steered(folder, journal, requests, size, lines)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("errors", [0, 2])
def test_a_pause_halts_the_executor_and_lasts_until_it_is_resumed(steered: Steered, errors: int) -> None:
    executor, ledger = Halted(errors), None
    with steered.journal, steered.requests as requests:
        requests.wait()  # no request is there
        steered.folder.ask("pause", 1)
        with requests.halting(executor):
            executor.run(ledger)  # type: ignore[arg-type]
        assert executor.halts == errors + 1
        waiting = threading.Thread(target=requests.wait)
        waiting.start()
        until(lambda: steered.folder.read_state().phase == "paused")
        assert requests.paused_seconds > 0
        asked = steered.folder.ask("pause", 0)
        waiting.join(20)
        assert not waiting.is_alive()
        until(lambda: asked.id in steered.folder.read_state().answered)
        assert steered.folder.read_state().phase == "running"
    assert executor.halts == errors + 1  # once
    assert [line.split(":")[0].split(";")[0] for line in steered.lines] == [
        "asked to pause",
        "paused",
        "resumed",
    ]
    assert steered.lines[1].endswith("jobs.runs resume abababab")
    kinds = [event["event"] for event in steered.journal.events()]
    assert kinds == ["asked", "paused", "asked", "resumed"] or kinds == [
        "asked",
        "paused",
        "resumed",
        "asked",
    ]


def test_a_pause_before_anything_runs_halts_what_is_opened_then(steered: Steered) -> None:
    executor = Halted()
    with steered.journal, steered.requests as requests:
        steered.folder.ask("pause", 1)
        until(lambda: requests.state.phase == "pausing")
        with requests.halting(executor):
            executor.run(None)  # type: ignore[arg-type]
    assert executor.halts == 1


def test_an_executor_that_goes_on_in_spite_of_a_pause_is_halted_again(
    steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sweep.requests.HALT_AGAIN_SECONDS", 0.1)

    class Forgets(Halted):  # as a broker that died after it was halted
        def halt(self, seconds: float) -> None:
            self.halts += 1
            if self.halts > 1:
                self.ended.set()

    executor = Forgets()
    with steered.journal, steered.requests as requests, requests.halting(executor):
        steered.folder.ask("pause", 1)
        executor.run(None)  # type: ignore[arg-type]
        assert executor.halts == 2


def test_who_asks_too_late_is_told_that_the_sweep_ends(steered: Steered) -> None:
    with steered.journal, steered.requests as requests:
        steered.size.groups = 2
        until(lambda: steered.folder.read_state().groups == 2)
        requests.end()
        assert (steered.folder.read_state().phase, steered.folder.read_state().groups) == ("ending", 0)


def test_what_is_built_is_kept_in_the_store_less_often_than_changes_of_groups(steered: Steered) -> None:
    with steered.journal, steered.requests:
        steered.size.building = ("target (epoch 1 of 9)",)
        time.sleep(0.2)
        assert steered.folder.read_state().building == ()
        steered.size.groups = 1
        until(lambda: steered.folder.read_state().building == ("target (epoch 1 of 9)",))
        steered.size.building = ("target (epoch 2 of 9)",)
        steered.requests._written_at -= BUILDING_SECONDS
        until(lambda: steered.folder.read_state().building == ("target (epoch 2 of 9)",))
    assert steered.folder.read_state().building == ()


def test_a_resize_changes_the_size_and_says_where_there_is_no_room(steered: Steered) -> None:
    with steered.journal, steered.requests:
        steered.size.groups, steered.size.room = 2, 3
        steered.folder.ask("groups", 8)
        until(lambda: steered.folder.read_state().asked == 8)
        until(lambda: len(steered.lines) == 2)
        steered.size.groups = 3
        until(lambda: steered.folder.read_state().groups == 3)
    assert steered.lines == [
        "asked to run 8 groups at most; 2 run now",
        "the cluster has room for 3 of 8 groups; others start when nodes join",
    ]
    assert steered.size.asked == 8

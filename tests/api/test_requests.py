"""Requests to a sweep that runs: it is paused in mid-training, resumed, and ends as an undisturbed one."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestrator as inv
from orchestrator.api.requests import Answer, request
from orchestrator.api.runs import StoredSweep, find_sweep, stored_sweeps
from orchestrator.config.base import Refused
from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.requests import RequestFolder, start_fields
from orchestrator.sweep.requests import Requests, Size
from orchestrator.training.world import World
from tests import tiny
from tests.sweeps import events


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def sweep_of(store: Artifacts) -> StoredSweep:
    return find_sweep(stored_sweeps([store]), "tiny")


def test_a_paused_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sweep.requests.POLL_SECONDS", 0.05)
    file = tiny.write(tmp_path / "tiny.yaml", {"auxiliary.kind": ["same-heldout"]})
    study, store = inv.Study.load(file), Artifacts(DirectoryBlobs(tmp_path / "store"))
    ended: list[Any] = []
    lines: list[str] = []
    asked: list[Answer] = []
    run_stage, is_answered = runner.run, threading.Event()

    def pause_in_the_attack(stage: Stage, world: World, store: Artifacts, location: Location) -> None:
        if stage.name == "inversion" and not asked:
            asked.append(request(sweep_of(store), "pause", 1, seconds=0))
            until(world.is_preempted)  # its first look at that is in the training
        elif asked:
            is_answered.wait(600)  # resumed, the sweep is not over before somebody looks
        run_stage(stage, world, store, location)

    def run() -> None:
        ended.append(
            study.run(store=tmp_path / "store", out=tmp_path / "out", ship_later=True, say=lines.append)
        )

    monkeypatch.setattr(runner, "run", pause_in_the_attack)
    running = threading.Thread(target=run, daemon=True)
    running.start()
    until(lambda: bool(asked) and sweep_of(store).about.status == "paused")
    assert len(store.blobs.names("checkpoints/")) == 1, "the training was not left midway"
    paused = store.keys()
    with pytest.raises(
        Refused, match=r"runs in one process \(--local\), which has no worker groups; pause it"
    ):
        request(sweep_of(store), "groups", 2, seconds=1)
    time.sleep(0.5)
    assert store.keys() == paused
    assert running.is_alive()

    answer = request(sweep_of(store), "pause", 0, seconds=300)
    is_answered.set()
    assert (answer.is_taken, answer.is_done, answer.state.phase) == (True, True, "running")
    running.join(600)
    (results,) = ended
    assert "resumed" in lines
    undisturbed = study.run(store=tmp_path / "other", out=tmp_path / "out2", ship_later=True)
    assert results.files["results.csv"] == undisturbed.files["results.csv"]
    assert results.files["summary.csv"] == undisturbed.files["summary.csv"]
    built = [key for event in events(store, "ended") for key in event["built"]]
    assert sorted(built) == sorted(store.keys())  # each once, by the trial that ran it
    (finish,) = events(store, "finish")
    assert all(counts["reused"] == 0 for counts in finish["stages"].values())
    assert not store.blobs.names("checkpoints/")
    with pytest.raises(Refused, match=r"has ended \(finished\); run its command again"):
        request(sweep_of(store), "pause", 1, seconds=1)


@pytest.mark.parametrize("groups", [0, 4097])
def test_a_sweep_runs_a_number_of_groups(groups: int, tmp_path: Path) -> None:
    sweep = started(tmp_path, local=False)
    with pytest.raises(Refused, match=rf"groups={groups} must lie in 1..4096; .* pause .* stops all of them"):
        request(sweep, "groups", groups, seconds=1)


def test_a_process_that_does_not_answer_is_told_from_one_that_does(tmp_path: Path) -> None:
    answer = request(started(tmp_path, local=False), "groups", 2, seconds=0)
    assert (answer.is_taken, answer.is_done) == (False, False)


def test_a_sweep_that_ends_before_it_reads_a_request_is_not_waited_for(tmp_path: Path) -> None:
    sweep = started(tmp_path, local=False)
    assert sweep.about.start is not None
    folder = RequestFolder(DirectoryBlobs(tmp_path), sweep.key, sweep.about.start.name)
    with Journal(DirectoryBlobs(tmp_path), sweep.key) as journal:
        Requests(folder, journal, Size(), print).end()
    with pytest.raises(Refused, match="has built everything and ends now; run its command again"):
        request(sweep, "pause", 1, seconds=300)


def test_a_sweep_that_is_resumed_and_ends_before_anybody_looks_has_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sweep.requests.POLL_SECONDS", 0.05)
    monkeypatch.setattr("orchestrator.api.requests.LOOK_SECONDS", 3.0)  # it ends between two looks
    sweep = started(tmp_path, local=False)
    assert sweep.about.start is not None
    folder = RequestFolder(DirectoryBlobs(tmp_path), sweep.key, sweep.about.start.name)

    def resume_and_end() -> None:
        journal = Journal(DirectoryBlobs(tmp_path), sweep.key)
        with journal, Requests(folder, journal, Size(), print):
            until(lambda: bool(folder.read_state().answered))

    running = threading.Thread(target=resume_and_end, daemon=True)
    running.start()
    answer = request(sweep, "pause", 0, seconds=300)
    running.join()
    assert (answer.is_taken, answer.is_done, answer.state.phase) == (True, True, "ending")


def test_a_start_of_an_earlier_version_takes_no_requests(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="was started by a version that takes no requests"):
        request(started(tmp_path), "pause", 1, seconds=1)


def started(folder: Path, **fields: Any) -> StoredSweep:
    """Return a sweep that this process seems to have started."""
    store = Artifacts(DirectoryBlobs(folder))
    with Journal(store.blobs, "ab" * 32) as journal:
        about = start_fields(journal, is_local=fields["local"]) if fields else {}
        journal.append("start", study="tiny", points=2, **about)
    return sweep_of(store)

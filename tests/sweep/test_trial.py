"""One trial: which stages are built, in which order, and how it ends."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.leases import LocalLeases
from orchestrator.sweep.trial import REBUILDS, Trial
from orchestrator.training.world import World
from tests import tiny
from tests.sweep.books import Sweep

TWO = tiny.study({"auxiliary.kind": ["same-train", "generic"]})


def walk(trial: Trial, build_stage: Callable[[Stage], None]) -> None:
    """Build what a trial misses, as executors do."""
    for stage in trial.missing():
        try:
            build_stage(stage)
            trial.note_built(stage)
        except StageFailed as failure:
            trial.note_failed(failure)


class Counting:
    """Publishes stages at once and counts them; it may fail in a planned way."""

    def __init__(self, store: Artifacts, failures: Sequence[StageFailed] = ()) -> None:
        self.store, self.failures = store, list(failures)
        self.built: list[str] = []

    def build(self, stage: Stage) -> None:
        """Publish an empty artifact after a moment."""
        if self.failures:
            raise self.failures.pop(0)
        time.sleep(0.02)
        self.built.append(stage.key)
        self.store.publish(Artifact(stage.key, stage.name, stage.version, {}), {})


def test_two_sweeps_on_one_store_build_each_stage_once(tmp_path: Path) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    leases = LocalLeases()
    counting = Counting(store)
    sweeps = [Sweep(study, tmp_path) for study in (TWO, tiny.study(TWO.sweep, search={"seed": 1}))]
    assert sweeps[0].study.key != sweeps[1].study.key

    def run(sweep: Sweep, owner: str) -> None:
        for task in sweep.ledger.next_tasks():
            trial = Trial(task.stages.values(), store, leases, owner)
            walk(trial, counting.build)
            sweep.ledger.end(task, trial.outcome)

    threads = [
        threading.Thread(target=run, args=(sweep, f"owner-{number}")) for number, sweep in enumerate(sweeps)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counting.built) == len(set(counting.built)) == 16
    assert sorted([*sweeps[0].ledger.built, *sweeps[1].ledger.built]) == sorted(counting.built)
    for sweep in sweeps:
        assert [record.status for record in sweep.ledger.records] == ["finished", "finished"]
        sweep.journal.close()


def test_a_pruned_trial_is_remembered(tmp_path: Path) -> None:
    study = tiny.study({"attack.seed": [0, 1]}, {"attack.recipe": {**tiny.RECIPE, "epochs": 3}})
    first = Sweep(study, tmp_path)
    one, other = first.ledger.next_tasks()
    for task, goes_on in ((one, True), (other, False)):
        first.ledger.start(task)
        world = World(report=lambda progress, goes_on=goes_on: goes_on)  # type: ignore[misc]
        trial = Trial(task.stages.values(), first.store, LocalLeases(), "this-test")
        walk(trial, lambda stage, world=world: runner.run(stage, world, first.store, Location()))  # type: ignore[misc]
        first.ledger.end(task, trial.outcome)
    first.journal.close()
    assert [record.status for record in first.ledger.records] == ["finished", "pruned"]
    assert first.ledger.records[1].failed_stage == "inversion"
    assert first.ledger.records[1].error == "stopped after epoch 1 of 3"
    again = Sweep(study, tmp_path)
    assert again.ledger.has_work() is False
    assert [record.status for record in again.ledger.records] == ["finished", "pruned"]
    again.journal.close()


@pytest.mark.parametrize(
    ("failures", "outcome"),
    [
        ([StageFailed("x", "bad byte", "corrupt")] * (REBUILDS - 1), ("finished", None)),
        ([StageFailed("x", "bad byte", "corrupt")] * REBUILDS, ("failed", "bad byte")),
        ([StageFailed("x", "no memory")], ("failed", "no memory")),
        ([StageFailed("x", "workers kept dying", "lost")], ("failed", "workers kept dying")),
        ([StageFailed("x", "told to stop", "cancelled")], ("pruned", "told to stop")),
        ([StageFailed("x", "the sweep was interrupted", "left")], ("left", "the sweep was interrupted")),
    ],
    ids=["heals", "damaged again and again", "error", "lost", "cancelled", "left"],
)
def test_how_a_trial_ends(
    tmp_path: Path, failures: list[StageFailed], outcome: tuple[str, str | None]
) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    stages = list(tiny.stages(tiny.spec()).values())
    counting = Counting(store, failures)
    trial = Trial(stages, store, LocalLeases(), "me")
    walk(trial, counting.build)
    ended = trial.outcome
    assert (ended.status, ended.error) == outcome
    if ended.status == "finished":
        assert list(ended.built) == [stage.key for stage in stages] == counting.built


def test_a_lease_is_held_while_the_caller_builds(tmp_path: Path) -> None:
    leases = LocalLeases()
    (stage, *_) = tiny.stages(tiny.spec()).values()
    trial = Trial([stage], Artifacts(DirectoryBlobs(tmp_path)), leases, "me")
    for missing in trial.missing():
        assert not leases.acquire(missing.key, "other", 1.0)
        trial.note_failed(StageFailed(missing.name, "no memory"))
    assert leases.acquire(stage.key, "other", 1.0)

"""Tune's side of a sweep: which stage a scheduler compares, and when it ends a trial."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from orchestrator.config.normalise import normalise
from orchestrator.config.search import Scheduler
from orchestrator.datasets import Location
from orchestrator.runtime.ray import tune as module
from orchestrator.runtime.ray.tune import (
    OUTCOME,
    RUNG_METRIC,
    BrokerClient,
    Rungs,
    TaskSearcher,
    scheduler_of,
)
from orchestrator.stages.graph import Stage, plan
from orchestrator.store.artifacts import Artifact
from orchestrator.store.leases import LocalLeases
from orchestrator.sweep.rungs import compared_stage
from orchestrator.sweep.search import fixed_points
from orchestrator.sweep.trial import Outcome, Task
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.sweep.books import Sweep

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def tasks(sweep: Any, changes: dict[str, Any] | None = None, **sections: Any) -> list[Task]:
    """Return the planned trials of a study over the tiny base."""
    preflight = Preflight(Location())
    points, _ = fixed_points(tiny.study(sweep, changes, **sections), preflight)
    return [
        Task(point, plan(normalise(point.spec), preflight.digests, tiny.PROFILE)) for point in points.ask()
    ]


@dataclass(frozen=True)
class Added:
    """A trial of Tune's: its name is enough."""

    trial_id: str


def trial(scheduler: TrialScheduler, name: str) -> Any:
    """Add a trial to the scheduler."""
    added: Any = Added(trial_id=name)
    scheduler.on_trial_add(None, added)
    return added


def decide(scheduler: TrialScheduler, one: Any, epoch: int, loss: float) -> str:
    """Return the scheduler's decision on an epoch of a trial."""
    result = {"epoch": epoch, RUNG_METRIC: loss}
    return scheduler.on_trial_result(None, one, result)


def test_a_sweep_of_epochs_ends_no_trial_for_its_length() -> None:
    # The base trains 25 epochs: a horizon taken from it would end the second trial after 26.
    planned = tasks({"attack.recipe.epochs": [25, 50]}, {"attack.recipe.epochs": 25})
    scheduler = scheduler_of(Scheduler(grace_epochs=10))
    for task in planned:
        epochs: int = task.point.spec.model_dump()["attack"]["recipe"]["epochs"]
        one = trial(scheduler, task.point.name)
        decisions = {decide(scheduler, one, epoch, 0.1) for epoch in range(1, epochs + 1)}
        assert decisions == {CONTINUE}, f"a trial of {epochs} epochs was stopped"


def test_a_trial_that_lags_is_stopped_at_a_rung_and_not_before_the_grace_epochs() -> None:
    scheduler = scheduler_of(Scheduler(grace_epochs=4, reduction_factor=2))
    good, bad = trial(scheduler, "good"), trial(scheduler, "bad")
    assert [decide(scheduler, good, epoch, 0.1) for epoch in range(1, 9)] == [CONTINUE] * 8
    assert [decide(scheduler, bad, epoch, 0.9) for epoch in range(1, 5)] == [CONTINUE] * 3 + [STOP]


def test_median_stops_what_is_worse_than_half_of_the_others() -> None:
    scheduler = scheduler_of(Scheduler(kind="median", grace_epochs=2, least_trials=3))
    for number in range(3):
        one = trial(scheduler, str(number))
        assert [decide(scheduler, one, epoch, 0.1 * number) for epoch in (1, 2, 3)] == [CONTINUE] * 3
    bad, fair = trial(scheduler, "bad"), trial(scheduler, "fair")
    assert [decide(scheduler, bad, epoch, 0.15) for epoch in (1, 2)] == [CONTINUE, STOP]
    assert [decide(scheduler, fair, epoch, 0.05) for epoch in (1, 2, 3)] == [CONTINUE] * 3


def test_median_never_pauses_a_trial_that_has_nothing_to_be_compared_with_yet() -> None:
    class Waiting:  # Tune's controller while another trial waits for its start
        def get_live_trials(self) -> list[Any]:
            return [SimpleNamespace(status=Trial.PENDING)]

    scheduler = scheduler_of(Scheduler(kind="median", grace_epochs=2, least_trials=3))
    controller: Any = Waiting()
    one = trial(scheduler, "one")
    results = [{"epoch": epoch, RUNG_METRIC: 0.5} for epoch in range(1, 9)]
    assert {scheduler.on_trial_result(controller, one, result) for result in results} == {CONTINUE}


def test_grace_may_be_longer_than_a_training() -> None:
    scheduler = scheduler_of(Scheduler(grace_epochs=10))
    for number in range(4):
        one = trial(scheduler, str(number))
        assert [decide(scheduler, one, epoch, float(number)) for epoch in (1, 2)] == [CONTINUE] * 2


@pytest.mark.parametrize(
    ("attack", "stage"),
    [
        ({}, "inversion"),
        ({"attack": {"name": "optimization", "steps": 1}}, None),
        ({"attack": {"name": "joint", "model": tiny.DIGIT}}, None),
    ],
    ids=["inverter", "optimization", "joint"],
)
def test_only_an_attack_that_reports_epochs_is_compared(attack: dict[str, Any], stage: str | None) -> None:
    (task,) = tasks({"seed": [0]} if not attack else {"target.seed": [0]}, attack)
    compared = compared_stage(task, Scheduler())
    assert (compared.name if compared else None) == stage


def test_the_end_repeats_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[dict[str, float]] = []
    monkeypatch.setattr("orchestrator.runtime.ray.tune.tune.report", reported.append)
    rungs = Rungs("inversion")
    assert rungs.last == {"epoch": 0, RUNG_METRIC: float("inf")}  # no rung is that low
    rungs.report({"epoch": 1, "train_loss": 0.5})
    rungs.report({"epoch": 2, "validation_loss": 0.4, "train_loss": 0.3})
    assert reported == [{"epoch": 2, RUNG_METRIC: 0.4}]
    assert rungs.last == reported[-1]


def test_a_drawn_task_is_driven_to_its_end_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as Tune does, run the trainable here with stages published at once, and complete the trial."""
    sweep = Sweep(tiny.study({"seed": [0, 1]}), tmp_path)
    searcher = TaskSearcher(sweep.ledger, lambda: 1, scheduler=Scheduler())
    assert searcher.prefetch()
    drawn = searcher.suggest("one")
    assert drawn["name"] == "s0"
    assert searcher.suggest("two") is None  # one at a time

    reported: list[dict[str, Any]] = []
    passed_on: list[str] = []

    def build(
        client: BrokerClient, stage: Stage, report: Callable[[Mapping[str, float]], None] | None
    ) -> bool:
        assert client.pools[stage.name] == "pool"
        assert client.priorities[stage.key] >= 1
        count = len(reported)
        if report is not None:
            report({"epoch": 1, "validation_loss": 0.5})
        passed_on.extend([stage.name] * (len(reported) - count))
        sweep.store.publish(Artifact(stage.key, stage.name, stage.version, {}), {})
        return True

    monkeypatch.setattr(module, "RayLeases", lambda uri: LocalLeases())
    monkeypatch.setattr(module.tune, "report", reported.append)
    monkeypatch.setattr(BrokerClient, "build", build)
    pools = {stage.name: "pool" for stage in tiny.stages(tiny.spec()).values()}
    shared = {"store": str(tmp_path), "owner": "me", "broker": None, "pools": pools}
    module._drive(drawn, shared)
    assert passed_on == ["inversion"]
    assert (reported[-1]["epoch"], reported[-1]["done"]) == (1, True)

    searcher.on_trial_complete("one", reported[-1])
    (record,) = sweep.ledger.records
    assert (record.status, len(sweep.ledger.built)) == ("finished", 10)
    assert searcher.suggest("two")["name"] == "s1"
    searcher.on_trial_complete("two", {"epoch": 1})  # stopped by the scheduler
    pruned = sweep.ledger.records[1]
    assert (pruned.status, pruned.failed_stage) == ("pruned", "inversion")
    assert pruned.error == "stopped after epoch 1 of 1"
    assert searcher.suggest("three") == Searcher.FINISHED
    sweep.journal.close()


def test_a_training_that_was_stopped_early_is_not_trained_for_the_next_trial(tmp_path: Path) -> None:
    """Three attacks on each of two targets: the scheduler stops the first target."""
    study = tiny.study({"seed": [0, 1], "attack.recipe.epochs": [1, 2, 3]})
    scheduler = Scheduler(stage="target")
    sweep = Sweep(study, tmp_path)
    searcher = TaskSearcher(sweep.ledger, lambda: 1, scheduler=scheduler)
    assert searcher.prefetch()
    searcher.suggest("0")
    searcher.on_trial_complete("0", {"epoch": 1})
    for number in range(1, 4):
        assert searcher.suggest(str(number)) is not None
        outcome = json.dumps(asdict(Outcome("failed", failed_stage="judge", error="no")))
        searcher.on_trial_complete(str(number), {OUTCOME: outcome})
    assert searcher.suggest("4") == Searcher.FINISHED
    records = sweep.ledger.records
    pruned = [one for one in records if one.status == "pruned"]
    assert {one.index for one in pruned} == {
        one.index for one in records if one.axes["seed"] == records[0].axes["seed"]
    }
    assert {(one.failed_stage, one.error) for one in pruned} == {("target", pruned[0].error)}
    assert (len(pruned), len(records)) == (3, 6)
    sweep.journal.close()


def test_nobody_waits_for_a_stage_that_is_stored(tmp_path: Path) -> None:
    """Trials of a sweep that is started again share their target, which is built already."""
    sweep = Sweep(tiny.study({"attack.recipe.epochs": list(range(1, 9))}), tmp_path)
    first, *others = sweep.ledger.next_tasks()
    shared = set.intersection(*({one.key for one in task.stages.values()} for task in (first, *others)))
    assert shared
    for stage in first.stages.values():
        if stage.key in shared:
            sweep.store.publish(Artifact(stage.key, stage.name, stage.version, {}), {})
    again = Sweep(sweep.study, tmp_path)
    searcher = TaskSearcher(again.ledger, lambda: 8)
    assert searcher.prefetch()
    assert [searcher.suggest(str(number)) is not None for number in range(8)] == [True] * 8
    for one in (sweep, again):
        one.journal.close()

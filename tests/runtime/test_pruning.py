"""Early stopping in this process: real trainings that lag are stopped, by either rule, and the same again."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config.search import Scheduler
from orchestrator.datasets import Location
from orchestrator.runtime.pruning import LocalRungs
from orchestrator.sweep.journal import read_pruned
from orchestrator.sweep.local import LocalExecutor
from tests import tiny
from tests.sweep.books import Sweep

NUMBERS = itertools.count()
STAGES = tiny.stages(tiny.spec())


def epochs(rungs: LocalRungs, *losses: float) -> int:
    """Return after how many epochs of these losses a target's training is stopped; 0 if it is not. Equal
    losses are another training all the same."""
    report = rungs.begin(replace(STAGES["target"], version=next(NUMBERS)))
    for epoch, loss in enumerate(losses, start=1):
        if not report({"epoch": epoch, "validation_accuracy": 1.0 - loss}):
            return epoch
    return 0


def test_asha_stops_at_a_rung_what_lags() -> None:
    rungs = LocalRungs(Scheduler(stage="target", grace_epochs=2, reduction_factor=2))
    assert epochs(rungs, 0.5, 0.1, 0.1, 0.1) == 0
    assert epochs(rungs, 0.9, 0.9, 0.9, 0.9) == 2
    assert epochs(rungs, 0.5, 0.05, 0.05, 0.05) == 0
    assert epochs(rungs, 0.5, 0.05, 0.3, 0.3) == 4  # the next rung


def test_median_waits_for_enough_others() -> None:
    rungs = LocalRungs(Scheduler(kind="median", stage="target", grace_epochs=2, least_trials=2))
    assert epochs(rungs, 0.3, 0.2, 0.1) == 0
    assert epochs(rungs, 0.9, 0.8, 0.7) == 0  # one other is not enough
    assert epochs(rungs, 0.9, 0.8, 0.7) == 2  # their median is 0.5
    assert epochs(rungs, 0.5, 0.4, 0.3) == 0


def test_a_training_that_goes_on_after_a_pause_is_one_training() -> None:
    rungs = LocalRungs(Scheduler(kind="median", stage="target", grace_epochs=2, least_trials=2))
    epochs(rungs, 0.3, 0.2, 0.1)
    paused = replace(STAGES["target"], version=-1)
    for losses in ((0.5,), (0.5, 0.4, 0.3)):  # it is left in its second epoch, and begins that one again
        report = rungs.begin(paused)
        for epoch, loss in enumerate(losses, start=1):
            assert report({"epoch": epoch, "validation_accuracy": 1.0 - loss})
    assert epochs(rungs, 0.9, 0.8, 0.7) == 2  # two others are enough: 0.5 is counted once


def test_a_target_that_lags_is_pruned_with_its_budget_and_stays_so(tmp_path: Path) -> None:
    """A real training at a rate at which it learns nothing, after one that learns."""
    rates: dict[str, Any] = {"target.recipe.learning_rate": [0.003, 1e-9]}
    study = tiny.study(
        rates,
        {"target.recipe": {"epochs": 4, "batch_size": 32}},
        search={"scheduler": {"stage": "target", "grace_epochs": 2, "reduction_factor": 2}},
    )
    sweep = Sweep(study, tmp_path)
    scheduler = study.search.scheduler
    assert scheduler is not None
    sweep.executor = LocalExecutor(
        sweep.store, Location(), 60.0, scheduler=scheduler, rungs=LocalRungs(scheduler)
    )
    sweep.run()
    good, lagging = sweep.ledger.records
    assert (good.status, lagging.status) == ("finished", "pruned")
    assert (lagging.failed_stage, lagging.error) == ("target", "stopped after epoch 2 of 4")
    assert "stopped after epoch 2 of 4" in sweep.table
    assert sweep.store.find(lagging.stage_keys["target"]) is None

    again = Sweep(study, tmp_path)
    assert read_pruned(again.journal)[lagging.key].error == lagging.error
    assert not again.ledger.has_work()
    assert again.table == sweep.table

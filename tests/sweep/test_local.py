"""The local executor: what fails fails alone and once, an interruption leaves the rest."""

from dataclasses import replace
from pathlib import Path
from threading import Event

from orchestrator.sweep.requests import Size
from tests import tiny
from tests.sweep.books import Sweep


def test_a_failing_stage_fails_its_trial_alone(tmp_path: Path) -> None:
    study = tiny.study(
        {"attack.recipe.weight_decay": [10.0, 0.0], "release.truncation": [1, 2]},
        {"attack.recipe": tiny.DIVERGING},
    )
    sweep = Sweep(study, tmp_path).run()
    assert [record.status for record in sweep.ledger.records] == ["failed", "failed", "finished", "finished"]
    for record in sweep.ledger.records[:2]:
        assert record.failed_stage == "inversion"
        assert str(record.error).startswith("the training loss is nan in epoch 1 of 1, batch ")
        assert record.metrics["target/accuracy"] > 0  # what was reached is known
        assert record.images == {}
    assert [(event["status"], event["stage"]) for event in sweep.events("ended")][:2] == [
        ("failed", "inversion")
    ] * 2
    again = Sweep(study, tmp_path).run()
    assert again.books.running == [
        record.name for record in sweep.ledger.records[:2]
    ]  # failures are tried again
    assert again.table == sweep.table


def test_an_error_that_would_repeat_is_not_paid_for_twice(tmp_path: Path) -> None:
    study = tiny.study({"auxiliary.kind": ["same-train", "generic"]}, {"target.recipe": tiny.DIVERGING})
    sweep = Sweep(study, tmp_path)
    sweep.run()
    assert [(record.failed_stage, record.status) for record in sweep.ledger.records] == [
        ("target", "failed")
    ] * 2
    assert len(sweep.executor.failures) == 1


def test_an_interrupted_sweep_builds_nothing_more_and_goes_on_later(tmp_path: Path) -> None:
    study = tiny.study({"auxiliary.kind": ["same-train", "generic"]})
    sweep = Sweep(study, tmp_path)
    sweep.executor.must_leave.set()
    sweep.run()
    assert sweep.executor.ended.is_set()
    assert sweep.books.running == []
    assert sweep.store.keys() == []
    assert [record.status for record in Sweep(study, tmp_path).run().ledger.records] == ["finished"] * 2


def test_what_is_built_is_told_epoch_by_epoch(tmp_path: Path) -> None:
    class Told(Size):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "building":
                told.append(value)

    told: list[object] = []
    sweep = Sweep(tiny.study({"seed": [0]}, {"target.recipe": {"epochs": 2}}), tmp_path)
    sweep.executor = replace(sweep.executor, size=Told())
    sweep.run()
    start = told.index(("target",))
    assert told[start : start + 4] == [
        ("target",),
        ("target (epoch 1 of 2)",),
        ("target (epoch 2 of 2)",),
        (),
    ]
    assert told[-1] == ()


class AfterAWhile(Event):
    """An interruption that comes while the long training runs, which looks for one after every epoch."""

    num_looks = 0

    def is_set(self) -> bool:
        """Return whether it has come."""
        self.num_looks += 1
        return self.num_looks > 500


def test_a_training_that_is_left_midway_is_no_failure(tmp_path: Path) -> None:
    study = tiny.study({"auxiliary.kind": ["same-train"]}, {"attack.recipe": {**tiny.RECIPE, "epochs": 1500}})
    sweep = Sweep(study, tmp_path)
    sweep.executor = replace(sweep.executor, must_leave=AfterAWhile())
    sweep.run()
    assert sweep.ledger.is_halted
    assert sweep.books.told == []
    assert sweep.executor.failures == {}
    assert [event["event"] for event in sweep.journal.events()] == ["planned", "started"]
    assert len(sweep.store.blobs.names("checkpoints/")) == 1
    again = Sweep(study, tmp_path).run()
    assert [record.status for record in again.ledger.records] == ["finished"]
    assert len(again.ledger.built) == 5  # inversion, and what comes after it

"""What a scheduler compares of inverters, targets and priors, and the budget of what it stopped."""

from typing import Any

import pytest

from orchestrator.config.search import Scheduler
from orchestrator.datasets import Location
from orchestrator.sweep.points import Point, make_point
from orchestrator.sweep.rungs import compared_stage, loss_of, stopped_words
from orchestrator.sweep.trial import Task
from orchestrator.sweep.validation import Preflight
from tests import tiny

GMI = {
    "attack": {"name": "gmi", "steps": 1},
    "prior": {"loss": "hinge", "model": {"name": "gmi", "width": 0.02}, "epochs": 4},
    "evaluation": {"task": "class-inference"},
}


def task(changes: dict[str, Any] | None = None) -> Task:
    """Return a planned trial over the tiny base."""
    made = make_point(tiny.study({"release.truncation": [1]}, changes), 0, {"release.truncation": 1})
    assert isinstance(made, Point)
    point = Preflight(Location()).resolve(made)
    return Task(point, tiny.stages(point.spec))


def test_a_stage_is_compared_where_the_trial_trains_it() -> None:
    plain, searching = task(), task(GMI)
    for stage, trial, name in (
        ("inversion", plain, "inversion"),
        ("inversion", searching, None),
        ("target", plain, "target"),
        ("prior", plain, None),
        ("prior", searching, "prior"),
    ):
        found = compared_stage(trial, Scheduler(stage=stage))
        assert (found.name if found else None) == name, (stage, name)
    assert compared_stage(plain, None) is None


@pytest.mark.parametrize(
    ("stage", "progress", "loss"),
    [
        ("inversion", {"validation_loss": 0.4}, 0.4),
        ("target", {"validation_loss": 0.4, "validation_accuracy": 0.9}, 0.1),
        ("prior", {"validation_real": 1.0, "validation_fake": -0.5}, 1.5),
        ("prior", {"validation_real": 1.0}, None),
        ("target", {"image": 3.0}, None),
    ],
)
def test_what_is_compared_is_lower_where_it_is_better(
    stage: str, progress: dict[str, float], loss: float | None
) -> None:
    assert loss_of(stage, progress) == (None if loss is None else pytest.approx(loss))


def test_a_stopped_training_says_how_many_of_its_epochs_it_had() -> None:
    trial = task(GMI)
    for stage, words in (("target", "2 of 1"), ("prior", "2 of 4")):
        assert stopped_words(trial.stages[stage], 2.0) == f"stopped after epoch {words}"

"""fANOVA of searches: the axis that decides has the share, grids have none."""

import numpy as np
import pytest

from orchestrator.config.base import Scalar
from orchestrator.runtime.importance import LEAST_TRIALS, axis_importance
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import MSE, record

AXES = {
    "attack.recipe.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "target.recipe.epochs": {"low": 1, "high": 9, "integer": True},
    "target.budget": ["full", None],
    "attack.seed": [0, 1],
}
RATE, EPOCHS = "attack.recipe.learning_rate", "target.recipe.epochs"


def drawn(num: int) -> list[TrialRecord]:
    """Return trials whose error is decided by the learning rate, a little by the budget."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(num):
        rate, budget = float(10 ** generator.uniform(-3, -1)), str(generator.choice(["full", "all"]))
        axes: dict[str, Scalar] = {
            RATE: rate,
            EPOCHS: int(generator.integers(1, 10)),
            "budget": budget,
            "attack.seed": index % 2,
        }
        found.append(record(index, axes, {MSE: -np.log10(rate) + 0.1 * (budget == "full")}))
    return found


def test_the_axis_that_decides_has_most_and_the_same_trials_give_the_same() -> None:
    study = tiny.study(AXES, search={"algorithm": "optuna"})
    found = axis_importance(study, drawn(40), MSE)
    assert found is not None
    assert set(found.shares) == {RATE, EPOCHS, "budget"}
    assert found.shares[RATE] > 0.8
    assert found.shares[EPOCHS] < 0.1
    assert (found.num_trials, found.explained > 0.5) == (40, True)
    assert axis_importance(study, drawn(40)[::-1], MSE) == found


def test_shares_of_noise_and_of_an_interaction_are_not_made_to_add_up() -> None:
    study, generator = tiny.study(AXES, search={"algorithm": "random"}), np.random.default_rng(1)
    noise = [record(one.index, one.axes, {MSE: float(generator.normal())}) for one in drawn(24)]
    found = axis_importance(study, noise, MSE)
    assert found is not None
    assert found.explained <= 0
    crossed = [
        record(one.index, one.axes, {MSE: (one.metrics[MSE] - 2) * (float(one.axes[EPOCHS]) - 5)})
        for one in drawn(60)
    ]
    found = axis_importance(study, crossed, MSE)
    assert found is not None
    assert sum(found.shares.values()) < 0.8


def test_grids_few_trials_and_what_does_not_vary_have_none() -> None:
    search = tiny.study(AXES, search={"algorithm": "random"})
    assert axis_importance(search, drawn(LEAST_TRIALS - 1), MSE) is None
    assert axis_importance(search, [record(i, {}, {MSE: 0.1}) for i in range(20)], MSE) is None
    assert axis_importance(search, drawn(20), "target/accuracy") is None
    grid = tiny.study({"release.truncation": [1, 2]})
    assert axis_importance(grid, drawn(40), MSE) is None


def test_a_trial_that_was_not_asked_a_range_counts_as_one_in_its_middle_whatever_the_base_has() -> None:
    """Nothing, a number outside of the range, or null, which tables write as a word."""
    study = tiny.study(AXES, search={"algorithm": "random"})
    found, others = [], list[Scalar]([ABSENT, 50.0, "all", 0.01])  # the last is the middle
    for there in others:
        trials = [
            record(one.index, {**one.axes, RATE: there} if one.index % 2 else one.axes, one.metrics)
            for one in drawn(40)
        ]
        found.append(axis_importance(study, trials, MSE))
    assert found[0] is not None
    assert found[0].shares[RATE] > 0
    assert found[0] == found[1] == found[2]
    assert found[3] is not None
    assert found[3].shares == pytest.approx(found[0].shares)

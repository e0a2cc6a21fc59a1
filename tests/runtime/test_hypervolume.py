"""Hypervolume by hand, its reference point, and when a search's front has stopped growing."""

import math

import pytest

from orchestrator.config.search import Search
from orchestrator.runtime.hypervolume import Growth, hypervolume

LEAK, ACCURACY = "class/judge_top1", "target/accuracy"
OBJECTIVES = {LEAK: "minimize", ACCURACY: "maximize"}
CORNER = {LEAK: 1.0, ACCURACY: 0.0}


def growth(patience: int, tolerance: float = 0.1) -> Growth:
    """Return the growth of a search for both."""
    stop = {"patience": patience, "tolerance": tolerance}
    return Growth(Search.model_validate({"algorithm": "optuna", "objectives": OBJECTIVES, "stop": stop}))


def test_a_volume_by_hand() -> None:
    front = [[0.5, 0.5], [0.75, 1.0]]  # two rectangles, 0.25 and 0.25, that share an eighth
    assert hypervolume(front, OBJECTIVES, CORNER) == pytest.approx(0.375)
    assert hypervolume([*front, [0.8, 0.4], [math.nan, 1.0]], OBJECTIVES, CORNER) == pytest.approx(0.375)
    assert hypervolume([], OBJECTIVES, CORNER) == hypervolume([[1.0, 1.0]], OBJECTIVES, CORNER) == 0.0
    assert hypervolume([[3.0], [2.0]], {"x": "minimize"}, {"x": 5.0}) == pytest.approx(3.0)
    cube = {"x": "minimize", "y": "minimize", "z": "maximize"}
    assert hypervolume([[0.0, 0.5, 3.0]], cube, {"x": 1.0, "y": 1.0, "z": 1.0}) == pytest.approx(1.0)


def test_a_search_ends_when_its_front_has_not_grown_for_as_long_as_its_patience() -> None:
    found = growth(patience=2)
    for values in ([0.5, 0.5], [0.75, 1.0]):
        found.add(values)
        assert not found.ended()
    found.add(None)  # a failed trial counts: it was asked
    assert not found.ended()  # from the first trial it grew by half
    found.add([0.75, 0.99])
    assert found.ended().startswith(
        "the hypervolume of the front, 0.375, grew by 0.00% over the last 2 of 4 "
    )
    found.add([0.1, 1.0])
    assert not found.ended()


def test_growth_within_the_tolerance_is_none_and_nothing_beyond_the_reference_ends_nothing() -> None:
    small = growth(patience=1, tolerance=0.1)
    small.add([0.5, 0.5])
    small.add([0.5, 0.54])
    assert small.ended()
    none = growth(patience=1)
    for _ in range(5):
        none.add([1.0, 0.3])
    assert not none.ended()


def test_stored_trials_are_no_growth() -> None:
    warm = growth(patience=1)
    warm.start([0.5, 0.5])
    warm.add([0.6, 0.4])
    assert warm.ended()

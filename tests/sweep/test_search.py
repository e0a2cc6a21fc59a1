"""Fixed searches: the same study gives the same points, all at once."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config import InverterAttack
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location
from orchestrator.sweep.points import Point, make_point
from orchestrator.sweep.search import FixedPoints, check_ranges, fixed_points, random_points
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.searches import AXES, searched


def test_random_points_repeat_and_depend_on_their_number_only() -> None:
    few, _ = random_points(searched("random", samples=5, seed=3))
    many, dropped = random_points(searched("random", samples=12, seed=3))
    assert [point.key for point in few] == [point.key for point in many[:5]]
    assert [point.index for point in many] == list(range(12))
    assert len({point.key for point in many}) == 12
    assert [point.key for point in random_points(searched("random", samples=5, seed=4))[0]] != [
        point.key for point in few
    ]
    assert dropped  # some draws had m > k
    assert all("must lie in 1..target.classes" in one.reason for one in dropped)


def test_random_points_stay_in_their_ranges() -> None:
    axes = {
        "target.recipe.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "attack.offset": {"low": 1, "high": 2},
        "target.recipe.epochs": {"low": 1, "high": 3, "integer": True},
        "target.recipe.batch_size": {"low": 1, "high": 100, "integer": True, "log": True},
        "release.truncation": [1, None],
    }
    points, _ = random_points(searched("random", axes, samples=60))
    recipes = [point.spec.target.recipe for point in points]
    assert {recipe.epochs for recipe in recipes} == {1, 2, 3}
    assert all(1e-4 <= recipe.learning_rate <= 1e-2 for recipe in recipes)
    assert sum(recipe.learning_rate < 1e-3 for recipe in recipes) in range(15, 46)  # half of a log range
    assert all(1 <= recipe.batch_size <= 100 for recipe in recipes)
    assert sum(recipe.batch_size <= 10 for recipe in recipes) in range(15, 46)
    attacks = [point.spec.attack for point in points]
    offsets = [one.offset for one in attacks if isinstance(one, InverterAttack)]
    assert all(offset != "log-k" and 1 <= offset <= 2 for offset in offsets)
    assert len(offsets) == len(points)
    assert {point.spec.release.truncation for point in points} == {1, None}


@pytest.mark.parametrize(
    ("algorithm", "axes", "search", "text"),
    [
        (
            "random",
            {"release.truncation": {"low": 0.5, "high": 2, "integer": True}},
            {},
            "low=0.5 must be a whole number where integer is true; round it or set integer to false.",
        ),
        (
            "optuna",
            {"release.truncation": {"low": 1, "high": 2.9, "integer": True}},
            {},
            "high=2.9 must be a whole number where integer is true; round it or set integer to false.",
        ),
        ("grid", {"seed": [0]}, {"samples": 3}, "samples=3 changes nothing where search.algorithm=grid;"),
        ("random", AXES, {"batch": 3}, "batch=3 changes nothing where search.algorithm=random;"),
        ("random", AXES, {"seed": -1}, "Input should be greater than or equal to 0"),
        ("random", AXES, {"samples": 20_001}, "Input should be less than or equal to 20000"),
    ],
    ids=str,
)
def test_searches_that_cannot_draw_what_they_say(
    algorithm: str, axes: Any, search: dict[str, int], text: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(text)):
        searched(algorithm, axes, **search)


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
@pytest.mark.parametrize(
    ("axes", "text"),
    [
        (
            {"seed": {"low": -5, "high": 5, "integer": True}},
            "sweep.seed is a range with -5, which is refused: Input should be greater than or equal to 0; "
            "correct low and high, or set integer.",
        ),
        (
            {"target.recipe.learning_rate": {"low": 1, "high": 11}},
            "sweep.target.recipe.learning_rate is a range with 11.0, which is refused: Input should be",
        ),
        (
            {"release.truncation": {"low": 1, "high": 3}},
            "which is refused: Input should be a valid integer, got a number with a fractional part; correct",
        ),
        (
            {"attack.selection": {"low": 0, "high": 1}},
            "sweep.attack.selection is a range with 0.0, which is refused: Input should be 'held-out',",
        ),
    ],
    ids=str,
)
def test_a_range_that_its_field_does_not_take(algorithm: str, axes: Any, text: str) -> None:
    with pytest.raises(StudyError) as refusal:
        check_ranges(searched(algorithm, axes))
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_ranges_that_their_fields_take() -> None:
    check_ranges(searched("random"))
    check_ranges(searched("random", {"release.truncation": {"low": 2, "high": 9, "integer": True}}))  # m > k
    check_ranges(tiny.study([{"seed": [0]}, {"attack.offset": [1]}]))


def test_a_small_space_gives_each_point_once() -> None:
    points, _ = random_points(searched("random", {"seed": [0, 1, 2]}, samples=10))
    assert sorted(point.spec.target.seed for point in points) == [0, 1, 2]


def test_a_search_without_a_possible_point_says_why() -> None:
    with pytest.raises(
        StudyError, match=r"^sweep: no draw can exist; release.truncation=\d must lie in 1\.\.target"
    ):
        random_points(searched("random", {"release.truncation": [4, 5]}))


def test_a_grid_comes_at_once_without_points_that_mean_the_same_cut() -> None:
    study = tiny.study({"target.budget": [0.0016, 0.00161, "block3"]})
    points, dropped = fixed_points(study, Preflight(Location()))
    batch = points.ask()
    assert len(points.points) == len(batch) == 2
    assert [(point.index, point.spec.target.budget) for point in batch] == [(0, "block1"), (1, "block3")]
    assert [(dict(one.axes), one.reason) for one in dropped] == [
        ({"budget": 0.00161}, "repeats a point of the sweep")
    ]
    assert points.ask() == []


def test_axes_of_a_search_are_its_points_names() -> None:
    study = searched("random", samples=1)
    point = make_point(study, 0, {"release.truncation": 1, "target.classes": 2, "attack.offset": 0.5})
    assert isinstance(point, Point)
    assert point.name == "m001-k002-offset0.5"


def test_fixed_points_are_asked_once() -> None:
    assert FixedPoints([]).ask() == []

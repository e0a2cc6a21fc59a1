"""Settings: which values are the same, which trials fit, what an absent axis excludes."""

import pytest

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.report.settings import (
    fits,
    held_fixed,
    in_words,
    is_same,
    merged_axes,
    narrowed,
    present_values,
    replicate_of,
    replicates_of,
    setting_of,
    varying_axes,
    why_none,
)
from tests.report.trials import record


def test_values_of_a_study_are_those_of_trials_as_text_numbers_or_booleans() -> None:
    same = [(True, "true"), ("True", "true"), (5, "5"), (1, 1.0), ("1e-3", 0.001), ("all", "all")]
    assert all(is_same(one, other) for one, other in same)
    assert not any(is_same(one, other) for one, other in [(True, 1), ("all", 5), ("-", False)])


MIXED = [
    record(0, {"attack": "mia", "m": 1, "align": "-", "seed": 0}),
    record(1, {"attack": "inverter", "m": 1, "align": True, "seed": 0}),
    record(2, {"attack": "inverter", "m": 1, "align": False, "seed": 1}),
    record(3, {"attack": "inverter", "m": 2, "align": True, "seed": 1}),
]


def test_an_absent_axis_fits_only_where_it_is_allowed() -> None:
    where: dict[str, Scalar] = {"align": "true", "m": "1"}
    assert [fits(one.axes, where) for one in MIXED] == [False, True, False, False]
    assert [fits(one.axes, where, absent_fits=True) for one in MIXED] == [True, True, False, False]
    assert not fits({}, {"k": 5})
    assert fits({}, {"k": 5}, absent_fits=True)
    assert fits({"k": 5}, {})


def test_axes_that_are_not_named_keep_their_first_value_or_its_absence() -> None:
    assert [one.index for one in narrowed(MIXED, {"attack"})] == [0, 1]
    assert [one.index for one in narrowed(MIXED, {"attack", "seed"})] == [0, 1]
    assert [one.index for one in narrowed(MIXED, {"attack", "m", "seed"})] == [0, 1, 3]
    assert [one.index for one in narrowed(MIXED[::-1], {"attack", "seed"})] == [3]
    assert narrowed(MIXED, {"attack", "m", "align", "seed"}) == MIXED
    assert narrowed([], ()) == []


def test_axes_vary_by_their_absence_too_but_not_by_seeds() -> None:
    assert varying_axes(MIXED) == ["attack", "m", "align"]
    assert varying_axes(MIXED[:2]) == ["attack", "align"]
    assert present_values("align", MIXED) == [True, False, True]


def test_replicates_are_seeds_unless_a_study_names_others() -> None:
    axes: dict[str, Scalar] = {"m": 1, "data.split": "a", "target.seed": 0, "attack.seed": "-"}
    assert replicate_of(axes) == {"target.seed": 0}  # an attack without a seed repeats nothing
    assert setting_of(axes) == (("m", 1), ("data.split", "a"))
    repeats = Report(replicates=("data.split",)).repeats
    assert replicate_of(axes, repeats) == {"data.split": "a"}
    assert setting_of(axes, repeats) == (("m", 1), ("target.seed", 0), ("attack.seed", "-"))
    assert replicates_of([record(0, axes)], repeats) == {"data.split"}
    assert varying_axes(MIXED, Report(replicates=("m",)).repeats) == ["attack", "align", "seed"]


def test_what_no_interval_resamples_is_held_fixed() -> None:
    rest = "class draw, split, auxiliary draw, attacked images, judge"
    assert held_fixed(("seed", "classes")) == rest
    assert held_fixed(("target.seed",)) == f"seed of the attack, classes, {rest}"
    assert held_fixed(("seed", "classes", "data.split", "judge.seed")) == (
        "class draw, auxiliary draw, attacked images"
    )


def test_two_trials_share_what_one_of_them_has() -> None:
    mia, aligned, _, other = (one.axes for one in MIXED)
    assert merged_axes(mia, aligned, {"attack"}) == {"m": 1, "align": True, "seed": 0}
    assert merged_axes(aligned, other, {"m"}) is None  # of different seeds
    assert merged_axes(aligned, other, {"m", "seed"}) == {"attack": "inverter", "align": True}


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"m": 2}, ""),
        ({"m": 7}, "no finished trial has m=7"),
        ({"attack": "mia", "m": 2}, "no finished trial has attack=mia, m=2"),
        ({"colour": "red", "m": 7}, "no finished trial has colour=red"),
    ],
)
def test_why_no_trial_fits(where: dict[str, Scalar], reason: str) -> None:
    assert why_none(where, MIXED) == reason
    assert why_none({}, []) == "no trial finished"
    assert in_words({"m": 1, "align": True}) == "m=1, align=True"

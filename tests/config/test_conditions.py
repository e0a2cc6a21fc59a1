"""Conditional axes: asked where the value that they depend on is, absent elsewhere; refusals are one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator.config.conditions import combinations, condition, in_which_asked, is_asked
from orchestrator.config.defenses import Bido
from orchestrator.config.load import faults, read_study
from orchestrator.config.search import Choices, Range
from orchestrator.config.study import Study
from orchestrator.sweep.points import ABSENT, expand
from orchestrator.sweep.search import check_ranges, draw
from tests import tiny

DEFENSES = [{"label": "none"}, {"label": "BiDO", "bido": {}}, {"label": "MID", "mid": {}}]
WEIGHT, NOISE = "target.defense.bido.weight_x", "target.defense.mid.weight"
IN_BIDO = {"target.defense": "BiDO"}
AXES: dict[str, Any] = {
    "target.defense": DEFENSES,
    WEIGHT: {"when": IN_BIDO, "values": [0.1, 0.2]},
    NOISE: {"when": {"target.defense": "MID"}, "values": [0.3]},
    "release.truncation": [1, None],
}


def study(axes: Any, **sections: Any) -> Study:
    """Return a study over the tiny base."""
    return tiny.study(axes, **sections)


def test_a_grid_asks_an_axis_only_where_it_is_there() -> None:
    points, dropped = expand(study(AXES))
    assert [(p.axes["defense"], p.axes[WEIGHT], p.axes[NOISE], p.axes["m"]) for p in points] == [
        ("none", ABSENT, ABSENT, 1),
        ("none", ABSENT, ABSENT, "all"),
        ("BiDO", 0.1, ABSENT, 1),
        ("BiDO", 0.1, ABSENT, "all"),
        ("BiDO", 0.2, ABSENT, 1),
        ("BiDO", 0.2, ABSENT, "all"),
        ("MID", ABSENT, 0.3, 1),
        ("MID", ABSENT, 0.3, "all"),
    ]
    assert not dropped
    assert [p.name for p in points][:3:2] == ["none-m001", "BiDO-weight_x0.1-m001"]


def test_what_is_not_asked_is_in_no_key() -> None:
    """The points without a defense are those of a study that has none."""
    bare, _ = expand(study({"release.truncation": [1, None]}))
    points, _ = expand(study(AXES))
    assert [point.key for point in points[:2]] == [point.key for point in bare]
    assert "bido" not in str(points[0].spec.model_dump(exclude_none=True))


def test_a_setting_that_is_there_although_not_asked_is_shown() -> None:
    axes = {
        "target.budget": ["full", "block1"],
        "attack.offset": {"when": {"target.budget": "full"}, "values": [9.0]},
    }
    points, _ = expand(tiny.study(axes, {"attack": {**tiny.BASE["attack"], "offset": 7.0}}))
    assert [point.axes["attack.offset"] for point in points] == [9.0, 7.0]


def test_a_chain_of_conditions_holds_as_a_whole() -> None:
    grid = {
        "a": [0, 1],
        "b": Choices(values=[5, 6], when={"a": [1, 2]}),
        "c": Choices(values=["x"], when={"b": 6}),
    }

    def shown(value: Any, axis: str) -> Any:
        return value

    assert list(combinations(grid, shown)) == [{"a": 0}, {"a": 1, "b": 5}, {"a": 1, "b": 6, "c": "x"}]
    assert in_which_asked(grid, "c", shown) == {"a": 1, "b": 6}
    assert not is_asked(grid["c"], {"a": 0}, shown)


def test_conditions_that_share_an_axis_hold_together_in_either_order() -> None:
    """Of two values that the last axis takes of the first one, one alone asks the axis between."""
    between = Choices(values=[5], when={"a": 1})
    for when in ({"a": [0, 1], "b": 5}, {"b": 5, "a": [0, 1]}):
        grid = {"a": [0, 1], "b": between, "c": Choices(values=["x"], when=when)}
        assert in_which_asked(grid, "c", lambda value, _: value) == {"a": 1, "b": 5}


def test_values_by_override_and_scale_keep_an_axis_under_its_condition(tmp_path: Path) -> None:
    file = tiny.write(tmp_path / "tiny.yaml", AXES, scales={"small": {f"sweep.{WEIGHT}": [0.5]}})
    overrides = [f"sweep.{NOISE}=[0.4]", f"sweep.{WEIGHT}={{when: {{target.defense: MID}}, values: [1]}}"]
    (grid,) = read_study(file, scale="small", overrides=overrides[:1]).sweep
    assert grid[WEIGHT] == Choices(values=[0.5], when=IN_BIDO)
    assert grid[NOISE] == Choices(values=[0.4], when={"target.defense": "MID"})
    points, _ = expand(read_study(file, scale="small"))
    weights = {(point.axes["defense"], point.axes[WEIGHT]) for point in points}
    assert weights == {("none", ABSENT), ("BiDO", 0.5), ("MID", ABSENT)}
    ranged = [f"sweep.{WEIGHT}={{low: 0.1, high: 0.2}}", "search.algorithm=random"]
    assert read_study(file, overrides=ranged).sweep[0][WEIGHT] == Range(low=0.1, high=0.2, when=IN_BIDO)
    (grid,) = read_study(file, overrides=overrides[1:]).sweep  # one of its own
    assert condition(grid[WEIGHT]) == {"target.defense": "MID"}


def test_values_without_label_are_named_as_tables_write_them() -> None:
    axes = {
        "target.defense": [{}, {"bido": {"kind": "hsic"}}],
        WEIGHT: {"when": {"target.defense": "bido(hsic)"}, "values": [0.1]},
        "release.truncation": {"when": {"target.defense": None}, "values": [1, 2]},
    }
    points, _ = expand(study(axes))
    assert [(p.axes["defense"], p.axes[WEIGHT], p.axes["m"]) for p in points] == [
        ("none", ABSENT, 1),
        ("none", ABSENT, 2),
        ("bido(hsic)", 0.1, 1),
    ]


def test_an_axis_goes_below_a_value_that_may_be_null_where_it_is_not() -> None:
    axes: dict[str, Any] = {
        "target.pretrain": [None, {"label": "pretrained", "recipe": tiny.RECIPE}],
        "target.pretrain.seed": {"when": {"target.pretrain": "pretrained"}, "values": [2, 9]},
    }
    points, _ = expand(tiny.study(axes, {"target.budget": "full"}))
    shown = [(p.axes["target.pretrain"], p.axes["target.pretrain.seed"]) for p in points]
    assert shown == [("none", ABSENT), ("pretrained", 2), ("pretrained", 9)]
    with pytest.raises(ValidationError, match=r"which sweep\.target\.pretrain sets too"):
        tiny.study(axes | {"target.pretrain.seed": [2, 9]})


def test_points_that_a_condition_makes_alike_are_dropped_by_name() -> None:
    """A weight that is the default of a defense gives the point without it again."""
    default = Bido().weight_x
    axes = {
        "target.defense": [{"label": "plain", "bido": {}}, {"label": "BiDO", "bido": {}}],
        WEIGHT: {"when": IN_BIDO, "values": [0.1, default]},
    }
    points, dropped = expand(study(axes))
    assert [point.axes[WEIGHT] for point in points] == [default, 0.1]
    assert [one.reason for one in dropped] == ["repeats a point of the sweep"]


def test_draws_have_what_is_asked_and_ranges_are_checked_where_they_are() -> None:
    axes = AXES | {WEIGHT: {"when": IN_BIDO, "low": 0.01, "high": 1.0, "log": True}}
    drawn = study(axes, search={"algorithm": "random", "samples": 5})
    generator = np.random.default_rng(0)
    for values in (draw(drawn, generator) for _ in range(40)):
        assert (WEIGHT in values) == (values["target.defense"]["label"] == "BiDO")
    check_ranges(drawn)
    wrong = study(axes | {WEIGHT: {"when": IN_BIDO, "low": -1, "high": 1}}, search={"algorithm": "random"})
    with pytest.raises(ValueError, match=rf"^sweep\.{WEIGHT} is a range with -1"):
        check_ranges(wrong)


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        (
            {WEIGHT: {"when": IN_BIDO, "values": [1]}, "target.defense": DEFENSES},
            f"sweep.{WEIGHT}.when=target.defense is no axis above {WEIGHT}; there is none above; put "
            f"{WEIGHT} below the axis it depends on.",
        ),
        (
            {"target.defense": DEFENSES, WEIGHT: {"when": {"target.defense": "bido"}, "values": [1]}},
            f"sweep.{WEIGHT}.when.target.defense=bido is no value of target.defense; it has none, BiDO, MID.",
        ),
        (
            {"attack.offset": {"low": 1, "high": 2}, WEIGHT: {"when": {"attack.offset": 1}, "values": [1]}},
            f"sweep.{WEIGHT}.when=attack.offset is a range, which has no listed values; depend on a list.",
        ),
        (
            {"target.defense": DEFENSES, WEIGHT: {"when": {"target.defense": []}, "values": [1]}},
            f"sweep.{WEIGHT}.when.target.defense names no value; name one or drop `when`.",
        ),
        (
            {"target.defense": DEFENSES, WEIGHT: {"when": IN_BIDO, "values": [1], "low": 1}},
            f"sweep.0.{WEIGHT}.low is not a field; known here: high, integer, log, low, values, when.",
        ),
        (
            {
                "target.defense": DEFENSES,
                WEIGHT: {"when": IN_BIDO, "values": [1]},
                NOISE: {"when": {"target.defense": "MID", WEIGHT: 1}, "values": [1]},
            },
            f"sweep.{NOISE}.when never holds: the conditions of the axes that it names exclude each other; "
            "correct one of them or drop the axis.",
        ),
        (
            {WEIGHT: {"when": {WEIGHT: 1}, "values": [1]}},
            f"sweep.{WEIGHT}.when={WEIGHT} is no axis above {WEIGHT}; there is none above; put {WEIGHT} "
            "below the axis it depends on.",
        ),
    ],
    ids=["below", "no value", "range", "empty", "both", "never", "itself"],
)
def test_a_wrong_condition_is_one_line(axes: Any, line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        study(axes, search={"algorithm": "random"})
    (refusal,) = faults(caught.value, "x.yaml")
    assert str(refusal) == line

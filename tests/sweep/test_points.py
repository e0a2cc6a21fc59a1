"""Points: the grid in the file's order, drops with reasons, joined grids, names, keys, laws of every grid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.load import read_study
from orchestrator.config.study import Study, StudyError
from orchestrator.sweep.points import LONGEST_NAME, Dropped, Point, Settings, expand, flatten, make_point
from tests import tiny

SHIPPED = sorted((Path(__file__).parents[2] / "jobs" / "studies").glob("*.yaml"))


def test_points_follow_the_file_with_the_last_axis_fastest() -> None:
    points, dropped = expand(tiny.study({"target.classes": [2, 3], "release.truncation": [1, 2]}))
    assert [dict(point.axes) for point in points] == [
        {"k": 2, "m": 1},
        {"k": 2, "m": 2},
        {"k": 3, "m": 1},
        {"k": 3, "m": 2},
    ]
    assert [point.name for point in points] == [
        "k002-m001",
        "k002-m002",
        "k003-m001",
        "k003-m002",
    ]
    assert dropped == []


def test_impossible_combinations_are_dropped_with_the_reason() -> None:
    points, dropped = expand(tiny.study({"release.truncation": [1, 3, 5], "target.classes": [2, 4]}))
    assert [(point.axes["m"], point.axes["k"]) for point in points] == [(1, 2), (1, 4), (3, 4)]
    way_out = "use null to release every score."
    assert dropped == [
        Dropped({"m": 3, "k": 2}, f"release.truncation=3 must lie in 1..target.classes=2; {way_out}"),
        Dropped({"m": 5, "k": 2}, f"release.truncation=5 must lie in 1..target.classes=2; {way_out}"),
        Dropped({"m": 5, "k": 4}, f"release.truncation=5 must lie in 1..target.classes=4; {way_out}"),
    ]


def test_more_classes_than_the_pool_are_dropped_too() -> None:
    points, dropped = expand(tiny.study({"target.classes": [5, 6]}))
    assert len(points) == 1
    assert [one.reason for one in dropped] == [
        "target.classes=6 must lie in 1..data.class_pool=5; enlarge the pool or lower target.classes."
    ]


def test_releasing_k_of_k_scores_is_releasing_all() -> None:
    points, dropped = expand(tiny.study({"release.truncation": [1, 3, None]}))
    assert [point.spec.release.truncation for point in points] == [1, None]
    assert [(one.axes, one.reason) for one in dropped] == [({"m": "all"}, "repeats a point of the sweep")]


def test_several_grids_are_joined_and_repeats_counted() -> None:
    study = tiny.study(
        [
            {"release.truncation": [1, 2], "seed": [0, 1]},
            {"release.truncation": [2], "attack.align": [True, False], "seed": [0]},
        ]
    )
    points, dropped = expand(study)
    assert [point.index for point in points] == list(range(5))
    assert dict(points[-1].axes) == {"m": 2, "seed": 0, "align": False}
    assert dict(points[0].axes) == {"m": 1, "seed": 0, "align": True}  # the base's value where not swept
    assert [dict(one.axes) for one in dropped] == [{"m": 2, "seed": 0, "align": True}]


def test_seed_sets_the_seeds_of_target_and_attack_and_nothing_else() -> None:
    (zero, seven), _ = expand(tiny.study({"seed": [0, 7]}))
    before, after = (flatten(point.spec.model_dump()) for point in (zero, seven))
    assert {name: after[name] for name in after if after[name] != before[name]} == {
        "target.seed": 7,
        "attack.seed": 7,
    }
    assert zero.key != seven.key


def test_an_axis_may_be_a_part_of_the_spec() -> None:
    points, _ = expand(
        tiny.study({"target.model": [{"name": "ami-digit", "width": w} for w in (0.02, 0.03)]})
    )
    assert [point.spec.target.model.width for point in points] == [0.02, 0.03]
    assert points[1].name == "modelami-digit-width=0.03"


def test_names_have_every_kind_of_axis() -> None:
    values = {
        "release.truncation": 3,
        "target.classes": 5,
        "auxiliary.kind": "generic",
        "target.budget": "block2",
        "attack.align": False,
        "attack.offset": 1.5,
        "seed": 2,
    }
    point = make_point(tiny.study({axis: [value] for axis, value in values.items()}), 12, values)
    assert isinstance(point, Point)
    assert point.name == "m003-k005-generic-block2-unaligned-offset1.5-s2"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", [None, "smoke"])
def test_shipped_studies_expand_at_full_and_smoke_scale(path: Path, scale: str | None) -> None:
    study = read_study(path, scale=scale)
    assert study.study == path.stem
    points, _ = expand(study)
    assert len({point.name for point in points}) == len({point.key for point in points}) == len(points)


truncations = st.lists(st.none() | st.integers(1, 6), min_size=1, max_size=4)


classes = st.lists(st.integers(2, 5), min_size=1, max_size=3)


seeds = st.lists(st.integers(0, 3), min_size=1, max_size=2)


@settings(max_examples=40, deadline=None)
@given(truncations, classes, seeds)
def test_laws_of_every_grid(ms: list[int | None], ks: list[int], numbers: list[int]) -> None:
    study = tiny.study({"release.truncation": ms, "target.classes": ks, "seed": numbers})
    if all(m is not None and m > k for m in ms for k in ks):
        with pytest.raises(StudyError, match=r"none of its .* points can exist"):
            expand(study)
        return
    points, dropped = expand(study)
    assert all((p.spec.release.truncation or 1) <= p.spec.target.classes for p in points)
    assert [point.index for point in points] == list(range(len(points)))
    assert len({point.key for point in points}) == len({point.name for point in points}) == len(points)
    assert len(points) + len(dropped) == len(ms) * len(ks) * len(numbers)
    again, _ = expand(Study.model_validate(yaml.safe_load(study.yaml())))
    assert [(point.name, point.key) for point in again] == [(point.name, point.key) for point in points]


def test_an_axis_that_an_attack_does_not_have_is_a_dash_in_tables_and_absent_from_names() -> None:
    grids = [{"attack": [{"name": "inverter"}], "attack.align": [False]}, {"attack": [{"name": "mia"}]}]
    points, _ = expand(tiny.study(grids, {"evaluation.task": "class-inference"}))
    assert [point.name for point in points] == ["inverter-unaligned", "mia"]
    assert [dict(point.axes) for point in points] == [
        {"attack": "inverter", "align": False},
        {"attack": "mia", "align": "-"},
    ]


def named(*grids: dict[str, Any]) -> list[Point]:
    """Return the points of a sweep as reports know them."""
    settings = Settings()
    return [settings.named(point) for point in expand(tiny.study(list(grids)))[0]]


@pytest.mark.parametrize(
    ("axis", "written", "shown"),
    [
        ("attack.recipe.learning_rate", ["1e-3", 0.001, 1e-4], [0.001, 0.0001]),
        ("attack.align", ["y", "no"], [True, False]),
        ("release.truncation", [2.0, "1", None], [2, 1, "all"]),
        ("target.recipe.milestones", [[1, 2], ["3"], []], ["[1,2]", "[3]", "[]"]),
        ("target.budget", ["block2", "full"], ["block2", "full"]),
        ("attack", [{"offset": "1e1"}, {"align": "n"}], ["offset=10.0", "align=False"]),
        ("release", [{"label": "few", "decimals": "2"}, {"labels_only": "on"}], ["few", "labels-only"]),
    ],
)
def test_tables_show_the_values_that_trials_have(axis: str, written: list[Any], shown: list[Any]) -> None:
    points = named({axis: written})
    values = [value for point in points for value in point.axes.values()]
    assert [(value, type(value)) for value in values] == [(value, type(value)) for value in shown]


def test_a_name_stays_when_an_axis_is_given_a_value() -> None:
    before = {point.key: point.name for point in named({"release.truncation": [2, 3], "seed": [0, 1]})}
    after = {point.key: point.name for point in named({"release.truncation": [1, 2, 3], "seed": [0, 1]})}
    assert before.items() < after.items()
    assert list(before.values()) == ["m002-s0", "m002-s1", "m003-s0", "m003-s1"]


def test_no_two_trials_have_one_name() -> None:
    values = [{"offset": 1.0, "label": label} for label in ("the same", "the-same")]
    values[1]["offset"] = 2.0
    first, second = named({"attack": values})
    assert first.name == "the-same"
    assert second.name == f"the-same-{second.key[:8]}"


def test_long_names_are_cut_and_stay_different() -> None:
    labels = [[{"name": "inverter", "offset": offset, "label": f"{'x' * 70}{offset}"} for offset in (40, 50)]]
    axes = {"target.model": "m", "judge.model": "j", "target.recipe": "r", "judge.recipe": "q"}
    values = {axis: [{"label": letter * 79}] for axis, letter in axes.items()}
    names = [point.name for point in named({**values, "attack": labels[0]})]
    assert [len(name) for name in names] == [LONGEST_NAME] * 2
    assert names[0] != names[1]


def test_names_are_printable_and_no_paths() -> None:
    label = "a/b\\c `d`\ne\x00\u202ef: g"
    (point,) = named({"attack": [{"name": "inverter", "label": label}]})
    assert point.name == "a-b-c--d--e--f:-g"


def test_an_unaligned_trial_is_named_so_however_it_is_written() -> None:
    points = named({"attack.align": ["n"], "seed": ["1"]}, {"attack.align": ["y"], "seed": [1.0]})
    assert [point.name for point in points] == ["unaligned-s1", "aligned-s1"]


NETWORKS = [{"model": {"name": "ami-digit", "width": width}, "seed": 1} for width in (0.02, 0.03)]


@pytest.mark.parametrize(
    ("axis", "values", "texts"),
    [
        (
            "attack",
            [{"name": "inverter", "losses": {"total_variation": weight}} for weight in (0, "5e1")],
            ["inverter losses(total_variation=0.0)", "inverter losses(total_variation=50.0)"],
        ),
        (
            "judge",
            NETWORKS,
            ["model(ami-digit width=0.02) seed=1", "model(ami-digit width=0.03) seed=1"],
        ),
        ("target.recipe", [{"epochs": 1, "milestones": []}, {"epochs": 1}], None),
        ("release", [{"labels_only": False}, {"labels_only": True}], ["labels_only=False", "labels-only"]),
        (
            "attack",
            [
                {"align": False, "offset": 2},
                {"align": True, "offset": 2},
                {"offset": 2, "align": False},
            ],
            ["offset=2.0", "align offset=2.0"],
        ),
    ],
)
def test_values_that_differ_have_other_texts(axis: str, values: list[Any], texts: list[str] | None) -> None:
    points = named({axis: values})
    shown = [str(value) for point in points for value in point.axes.values()]
    assert len(set(shown)) == len({point.setting for point in points}) == len(points)
    assert texts is None or shown == texts


def test_one_setting_has_one_text_in_every_grid() -> None:
    """Written with another default, another spelling of all scores, another order."""
    points = named(
        {
            "attack": [{"name": "inverter", "offset": 50, "align": True}],
            "release.truncation": [3],
            "seed": [0],
        },
        {"attack": [{"align": True, "offset": 50.0}], "release.truncation": [None], "seed": [1]},
        {"attack": [{"name": "inverter", "offset": 50}], "release.truncation": [3], "seed": [2]},
    )
    assert len({point.setting for point in points}) == 1
    assert [dict(point.axes) for point in points] == [
        {"attack": "inverter offset=50.0 align", "m": "all", "seed": seed} for seed in range(3)
    ]


def test_seeds_of_every_part_repeat_a_setting() -> None:
    seeds = ("target.seed", "attack.seed", "judge.seed", "evaluation.seed", "auxiliary.seed")
    points = named(*({axis: [1, 2]} for axis in seeds), {"target.pretrain.seed": [1, 2]})
    assert len({point.setting for point in points}) == 1
    assert len(named({"data.class_seed": [1, 2]})) == 2  # other private classes are another setting
    assert len({point.setting for point in named({"data.class_seed": [1, 2]})}) == 2


@pytest.mark.parametrize(
    ("grids", "text"),
    [
        (
            [{"judge": [{"label": "a"}, {"label": "a", "model": {"name": "ami-digit", "width": 0.5}}]}],
            "sweep writes judge=a for judge.model.width=0.01 and 0.5; "
            "give one of these values a label of its own.",
        ),
        (
            [
                {"attack": [{"losses": {"total_variation": 1}}]},
                {"attack": [{"losses": {"total_variation": 2}}]},
            ],
            None,
        ),
        (
            [{"seed": [0], "target": [{"label": 2}, {"label": "2", "budget": "full"}]}],
            "sweep writes seed=0, target=2 for target.budget=block1 and full; "
            "give one of these values a label of its own.",
        ),
        (
            [{"judge": [{"seed": 1}, {"seed": 2}]}],
            "sweep writes judge=seed=1 for judge.seed=1 and 2; sweep that seed as an axis of its own.",
        ),
    ],
)
def test_points_that_tables_cannot_tell_apart_are_refused(
    grids: list[dict[str, Any]], text: str | None
) -> None:
    if text is None:
        assert len(named(*grids)) == 2
        return
    with pytest.raises(StudyError, match=f"^{re.escape(text)}$"):
        named(*grids)


@pytest.mark.parametrize("ms", [[1, 3, None], [None, 3, 1]], ids=str)
def test_full_releases_of_a_grid_over_m_and_k_are_one_value_of_m(ms: list[int | None]) -> None:
    """So that k can be compared at full scores (AMI, Figures 8 and 9), whichever was written first."""
    points, dropped = expand(tiny.study({"target.classes": [3, 5], "release.truncation": ms}))
    assert {(point.axes["k"], point.axes["m"]) for point in points} == {
        (3, 1),
        (3, "all"),
        *((5, m) for m in (1, 3, "all")),
    }
    assert [one.axes for one in dropped] == [{"k": 3, "m": "all"}]
    counted, _ = expand(tiny.study({"target.classes": [3, 5], "release.truncation": [1, 3]}))
    assert [point.axes["m"] for point in counted] == [1, 3, 1, 3]  # without null as it is written

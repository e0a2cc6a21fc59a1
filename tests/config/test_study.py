"""Studies: what a file may say, which points it means, and what it is told when it is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.load import read_study
from orchestrator.config.search import Range
from orchestrator.config.study import Study, StudyError
from orchestrator.sweep.points import Dropped, Point, expand, flatten, make_point
from tests import tiny

SHIPPED = sorted((Path(__file__).parents[2] / "jobs" / "studies").glob("*.yaml"))


def written(folder: Path, **sections: Any) -> Path:
    """Write the tiny study with whole sections replaced."""
    return tiny.write(folder / "tiny.yaml", sections.pop("sweep", {"seed": [0]}), **sections)


def test_points_follow_the_file_with_the_last_axis_fastest() -> None:
    points, dropped = expand(tiny.study({"target.classes": [2, 3], "release.truncation": [1, 2]}))
    assert [dict(point.axes) for point in points] == [
        {"k": 2, "m": 1},
        {"k": 2, "m": 2},
        {"k": 3, "m": 1},
        {"k": 3, "m": 2},
    ]
    assert [point.name for point in points] == [
        "0000-k002-m001",
        "0001-k002-m002",
        "0002-k003-m001",
        "0003-k003-m002",
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


def test_seed_moves_victim_and_adversary_and_nothing_else() -> None:
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
    assert points[1].name == "0001-modelami-digit-width=0.03"


def test_names_say_every_kind_of_axis() -> None:
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
    assert point.name == "0012-m003-k005-generic-block2-unaligned-offset1.5-s2"


def test_axes_list_values_in_order_of_appearance_and_ranges_by_their_ends() -> None:
    grids = tiny.study([{"seed": [1, 0], "release.truncation": [None, 1]}, {"seed": [2, 1]}])
    assert grids.axes() == {"seed": [1, 0, 2], "m": ["all", 1]}
    ranged = tiny.study({"attack.offset": {"low": 1, "high": 9}}, search={"algorithm": "random"})
    assert ranged.axes() == {"attack.offset": [1.0, 9.0]}
    assert isinstance(ranged.sweep[0]["attack.offset"], Range)


def test_overrides_reach_base_sweep_resources_and_search(tmp_path: Path) -> None:
    study = read_study(
        written(tmp_path),
        overrides=[
            "attack.offset=3.5",
            "base.target.recipe.epochs=4",
            "sweep.seed=[4, 5]",
            "sweep.release.truncation=[1, null]",
            "resources.groups=2",
            "search.objectives={target/accuracy: maximize}",
            "about=changed",
        ],
    )
    assert (study.base["attack"]["offset"], study.base["target"]["recipe"]["epochs"]) == (3.5, 4)
    assert study.base["target"]["recipe"]["batch_size"] == tiny.RECIPE["batch_size"]
    assert study.sweep == [{"seed": [4, 5], "release.truncation": [1, None]}]
    assert (study.resources.groups, study.about) == (2, "changed")


def test_an_axis_is_overridden_in_every_grid_that_has_it(tmp_path: Path) -> None:
    grids = [{"seed": [0], "release.truncation": [1, 2]}, {"release.truncation": [3]}]
    study = read_study(written(tmp_path, sweep=grids), overrides=["sweep.seed=[7]"])
    assert study.sweep == [{"seed": [7], "release.truncation": [1, 2]}, {"release.truncation": [3]}]


def test_a_scale_comes_before_the_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, scales={"small": {"sweep.seed": [9], "base.attack.offset": 2.0}})
    assert read_study(path).sweep == [{"seed": [0]}]
    assert read_study(path, scale="small").sweep == [{"seed": [9]}]
    both = read_study(path, scale="small", overrides=["attack.offset=1.0"])
    assert (both.sweep, both.base["attack"]["offset"]) == ([{"seed": [9]}], 1.0)


def test_environment_variables_are_read_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, about="${oc.env:WHO_SWEEPS}")
    monkeypatch.setenv("WHO_SWEEPS", "a red team")
    assert read_study(path).about == "a red team"
    monkeypatch.delenv("WHO_SWEEPS")
    with pytest.raises(StudyError, match=r"not a readable YAML study: .*'WHO_SWEEPS' not found"):
        read_study(path)


def test_the_logged_study_reads_back_the_same(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, scales={"small": {}}), overrides=["attack.offset=3"])
    again = tmp_path / "again.yaml"
    again.write_text(study.yaml(), encoding="utf-8")
    assert read_study(again) == study
    assert read_study(again).key == study.key


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", [None, "smoke"])
def test_shipped_studies_expand_at_full_and_smoke_scale(path: Path, scale: str | None) -> None:
    study = read_study(path, scale=scale)
    assert study.study == path.stem
    points, _ = expand(study)
    assert len({point.name for point in points}) == len({point.key for point in points}) == len(points)


def test_words_and_resources_leave_the_sweep_what_it_is() -> None:
    plain = tiny.study({"seed": [0]})
    assert tiny.study({"seed": [0]}, about="x", report={"columns": 3}).key == plain.key
    assert tiny.study({"seed": [1]}).key != plain.key
    assert tiny.study({"seed": [0]}, {"attack.offset": 1.0}).key != plain.key
    assert tiny.study({"seed": [0]}, search={"seed": 1}).key != plain.key


def fails(folder: Path, sections: dict[str, Any], overrides: list[str]) -> str:
    """Return what the reader of a wrong study is told."""
    with pytest.raises(StudyError) as caught:
        expand(read_study(written(folder, **sections), overrides=overrides))
    return str(caught.value)


OFFSET = "attack.offset"
RANDOM = {"algorithm": "random"}


@pytest.mark.parametrize(
    ("sections", "overrides", "text"),
    [
        (
            {"sweeep": 1},
            [],
            "sweeep is not a field; known here: about, base, report, resources, search, study, sweep.",
        ),
        (
            {},
            ["attack.foo=1"],
            "attack.foo is not a field of attack.name=inverter; known here: align, losses, model, name, "
            "offset, offset_learnable, recipe, seed, selection, zero_policy.",
        ),
        (
            {},
            ["target.pretrain.recipe.epoch=1"],
            "target.pretrain.recipe.epoch is not a field; known here: augmentation, batch_size, epochs, "
            "learning_rate, milestones, momentum, optimizer, validation_fraction, weight_decay.",
        ),
        (
            {},
            ["resources.gpus=1"],
            "resources.gpus is not a field; known here: checkpoint_seconds, "
            "gpus_per_worker, groups, precision, stages, threads, workers.",
        ),
        (
            {"sweep": {"release.trunc": [1]}},
            [],
            "release.trunc is not a field; known here: decimals, labels_only, renormalised, truncation.",
        ),
        (
            {"sweep": {"relese.truncation": [1]}},
            [],
            "relese is not a field; known here: attack, auxiliary, data, evaluation, judge, release, target.",
        ),
        (
            {"sweep": {OFFSET: {"low": 1, "high": 2, "step": 1}}},
            [],
            f"sweep.0.{OFFSET}.step is not a field; known here: high, integer, log, low.",
        ),
        (
            {"sweep": {"release.truncation": [0]}},
            [],
            "release.truncation=0 is refused: Input should be greater than 0.",
        ),
        (
            {},
            ["release.truncation=9"],
            "sweep: none of its 1 points can exist; release.truncation=9 must lie "
            "in 1..target.classes=3; use null to release every score.",
        ),
        (
            {},
            ["target.budget=-1"],
            "target.budget=-1 is refused: Input should be a valid string; or Input should be greater than 0.",
        ),
        ({"sweep": []}, [], "sweep=[] is refused: List should have at least 1 item after validation, not 0."),
        ({"sweep": {"seed": []}}, [], "sweep.seed=[] has no value; give at least one or drop the axis."),
        ({}, ["sweep.seed=5"], "sweep.0.seed=5 is refused: Input should be a valid list."),
        (
            {"sweep": {OFFSET: {"low": 1, "high": 2}}},
            [],
            f"sweep.{OFFSET} is a range, but a grid takes lists; set search.algorithm to random or optuna.",
        ),
        (
            {"sweep": {OFFSET: {"low": 2, "high": 1}}, "search": RANDOM},
            [],
            f"sweep.0.{OFFSET}.low=2.0 must be below high=1.0 and, with log, above 0; correct one of them.",
        ),
        (
            {"sweep": {OFFSET: {"low": 0, "high": 1, "log": True}}, "search": RANDOM},
            [],
            f"sweep.0.{OFFSET}.low=0.0 must be below high=1.0 and, with log, above 0; correct one of them.",
        ),
        (
            {"sweep": {OFFSET: {"low": 2}}, "search": RANDOM},
            [],
            f"sweep.0.{OFFSET}.high is missing; add it to tiny.yaml.",
        ),
        (
            {"sweep": [{"seed": [0]}, {"seed": [1]}], "search": RANDOM},
            [],
            "search.algorithm=random takes one sweep mapping, not 2; join them or set it to grid.",
        ),
        (
            {"search": {"objectives": {}}},
            [],
            "search.objectives={} names no metric; name at least one, for example {inversion/mse_test: "
            "minimize}.",
        ),
        ({}, ["resources.workers=0"], "resources.workers=0 is refused: Input should be greater than 0."),
        ({}, ["target.seed"], "--set target.seed must read path=value, for example target.seed=3."),
        (
            {},
            ["target.seed=[1,"],
            "--set target.seed=[1, must give a YAML value, for example 3, [1, 2] or {low: 1, high: 9}.",
        ),
        (
            {},
            ["study=No Name"],
            "study=No Name is refused: String should match pattern '^[a-z0-9][a-z0-9-]{0,60}$'.",
        ),
    ],
    ids=str,
)
def test_a_wrong_study_is_told_in_one_line(
    tmp_path: Path, sections: dict[str, Any], overrides: list[str], text: str
) -> None:
    assert fails(tmp_path, sections, overrides) == text


def test_every_faulty_field_has_a_line(tmp_path: Path) -> None:
    sections = {"resources": {"workers": 0, "gpus": 1}, "search": {"algorithm": "guess"}}
    assert fails(tmp_path, sections, []).splitlines() == [
        "search.algorithm=guess is refused: Input should be 'grid', 'random' or 'optuna'.",
        "resources.workers=0 is refused: Input should be greater than 0.",
        "resources.gpus is not a field; known here: checkpoint_seconds, gpus_per_worker, groups, precision, "
        "stages, threads, workers.",
    ]


def test_unknown_scales_are_told_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path, scales={"small": {"sweep.seed": [9]}, "broken": 3})
    with pytest.raises(StudyError, match=r"^--scale huge is not in tiny.yaml; it knows broken, small\.$"):
        read_study(path, scale="huge")
    with pytest.raises(
        StudyError, match=r"^scales in tiny.yaml must read scales: {broken: {path: value}}\.$"
    ):
        read_study(path, scale="broken")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a: [1", "is not a readable YAML study: while parsing a flow sequence"),
        (b"\xff\xfe\x00a: \x80", "is not a readable YAML study: 'utf-8' codec can't decode"),
        (b"- 1", "must be a mapping with study, base and sweep."),
        (b"", "study is missing; add it to tiny.yaml."),
    ],
)
def test_what_is_no_study_at_all(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read_study(path)
    assert text in str(caught.value)


def test_a_study_that_is_not_there_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"does not exist; the shipped ones are in jobs/studies\.$"):
        read_study(tmp_path / "absent.yaml")


def test_the_yaml_of_a_study_is_plain(tmp_path: Path) -> None:
    document = yaml.safe_load(read_study(written(tmp_path)).yaml())
    assert document["base"] == tiny.BASE
    assert document["sweep"] == [{"seed": [0]}]


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


def test_two_axes_of_one_column_are_refused(tmp_path: Path) -> None:
    sweep = [{"auxiliary": [{"kind": "generic"}]}, {"auxiliary.kind": ["distinct"]}]
    assert fails(tmp_path, {"sweep": sweep}, []) == (
        "sweep.auxiliary.kind and sweep.auxiliary share the column auxiliary; sweep one of them."
    )


def test_an_axis_that_an_attack_does_not_have_is_a_dash_in_tables_and_absent_from_names() -> None:
    grids = [{"attack": [{"name": "inverter"}], "attack.align": [False]}, {"attack": [{"name": "mia"}]}]
    points, _ = expand(tiny.study(grids, {"evaluation.task": "class-inference"}))
    assert [point.name for point in points] == ["0000-inverter-unaligned", "0001-mia"]
    assert [dict(point.axes) for point in points] == [
        {"attack": "inverter", "align": False},
        {"attack": "mia", "align": "-"},
    ]

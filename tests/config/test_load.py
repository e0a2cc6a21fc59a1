"""Reading studies: overrides, scales, the environment, and one line for each fault."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.load import read_study
from orchestrator.config.study import StudyError
from orchestrator.sweep.points import expand
from tests import tiny


def written(folder: Path, **sections: Any) -> Path:
    """Write the tiny study with whole sections replaced."""
    return tiny.write(folder / "tiny.yaml", sections.pop("sweep", {"seed": [0]}), **sections)


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


SWEPT = {
    "seed": [0, 1],
    "attack.offset": [3.5],
    "release": [{"label": "few", "truncation": 1}, {"decimals": 2}],
    "attack": [{"name": "inverter", "recipe": {"epochs": 1}}, {"name": "mia"}],
}


@pytest.mark.parametrize(
    ("override", "shown", "axis"),
    [
        ("seed=3", "seed=3", "seed"),
        ("target.seed=0", "target.seed=0", "seed"),
        ("base.attack.seed=3", "base.attack.seed=3", "seed"),
        ("attack.offset=nonsense", "attack.offset=nonsense", "attack.offset"),
        ("attack={offset: 2, align: false}", "attack={'offset': 2, 'align': False}", "attack.offset"),
        ("release.truncation=2", "release.truncation=2", "release"),
        ("attack.recipe.epochs=9", "attack.recipe.epochs=9", "attack"),
        ("attack.name=mia", "attack.name=mia", "attack"),
        ("attack=null", "attack=None", "attack"),
    ],
)
def test_an_override_of_a_swept_field_is_refused_and_names_the_axis(
    tmp_path: Path, override: str, shown: str, axis: str
) -> None:
    rule = f"does nothing where sweep.{axis} gives the field its values; --set sweep.{axis} instead."
    for sweep in (SWEPT, [{"evaluation.images": [8]}, SWEPT]):
        with pytest.raises(StudyError, match=f"^{re.escape(f'--set {shown} {rule}')}$"):
            read_study(written(tmp_path, sweep=sweep), overrides=[override])


def test_an_override_beside_the_swept_fields_is_taken(tmp_path: Path) -> None:
    kept = [
        "attack.zero_policy=floor",
        "release.labels_only=true",
        "target.recipe.epochs=7",
        "judge.seed=5",
    ]
    study = read_study(written(tmp_path, sweep=SWEPT), overrides=kept)
    assert study.base["attack"]["zero_policy"] == "floor"
    moved = read_study(written(tmp_path, sweep=SWEPT), overrides=["sweep=[{judge.seed: [1]}]", "seed=3"])
    assert (moved.base["target"]["seed"], moved.base["attack"]["seed"]) == (3, 3)
    with pytest.raises(StudyError, match=r"^--set seed=3 does nothing where sweep\.seed"):
        read_study(written(tmp_path), overrides=["seed=3", "sweep.seed=[1]"])


def test_a_scale_comes_before_the_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, scales={"small": {"sweep.seed": [9], "base.attack.offset": 2.0}})
    assert read_study(path).sweep == [{"seed": [0]}]
    assert read_study(path, scale="small").sweep == [{"seed": [9]}]
    both = read_study(path, scale="small", overrides=["attack.offset=1.0"])
    assert (both.sweep, both.base["attack"]["offset"]) == ([{"seed": [9]}], 1.0)


@pytest.mark.parametrize("text", ["${oc.env:WHO_SWEEPS}", "by ${oc.${e}:WHO_SWEEPS}", "${study}"])
def test_a_study_file_cannot_carry_the_environment_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WHO_SWEEPS", "a secret")
    rule = (
        "is not replaced: a study is data and reads no environment; write the value, or give it with --set."
    )
    for sections, field in (
        ({"about": text}, "about"),
        ({"base": {"data": {"dataset": text}}}, "base.data.dataset"),
        ({"sweep": {"target": [{"label": text}]}}, "sweep.target.0.label"),
    ):
        with pytest.raises(StudyError, match=f"^{re.escape(f'tiny.yaml.{field}={text} {rule}')}$"):
            read_study(written(tmp_path, **sections))
    with pytest.raises(StudyError, match=f"^{re.escape(f'--set about={text} {rule}')}$"):
        read_study(written(tmp_path), overrides=[f"about={text}"])


def test_the_logged_study_reads_back_the_same(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, scales={"small": {}}), overrides=["attack.offset=3"])
    again = tmp_path / "again.yaml"
    again.write_text(study.yaml(), encoding="utf-8")
    assert read_study(again) == study
    assert read_study(again).key == study.key


def fails(folder: Path, sections: dict[str, Any], overrides: list[str]) -> str:
    """Return the refusal of a wrong study."""
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
            "attack.foo is not a field of attack.name=inverter; known here: align, classes, encoding, "
            "losses, model, name, offset, offset_learnable, offset_learning_rate, recipe, seed, selection, "
            "zero_policy.",
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
            "release.trunc is not a field; known here: decimals, labels_only, renormalised, shield, "
            "truncation.",
        ),
        (
            {"sweep": {"relese.truncation": [1]}},
            [],
            "relese is not a field; known here: attack, auxiliary, data, evaluation, judge, judges, prior, "
            "release, target.",
        ),
        (
            {},
            ["judges.classifiers={wide: {model: {name: ami-digit}, sed: 3}}"],
            "judges.classifiers.wide.sed is not a field; known here: images, minimum_accuracy, model, "
            "recipe, seed, trained, weights.",
        ),
        (
            {"sweep": {OFFSET: {"low": 1, "high": 2, "step": 1}}},
            [],
            f"sweep.0.{OFFSET}.step is not a field; known here: high, integer, log, low, values, when.",
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
        ({}, ["target.seed"], "--set target.seed must read path=value, for example target.recipe.epochs=3."),
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
def test_a_wrong_study_is_refused_in_one_line(
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


def test_an_unknown_scale_is_refused_with_the_known_ones(tmp_path: Path) -> None:
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


def test_a_study_that_is_not_there_says_how_to_list_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"; python -m jobs.sweep --list prints the shipped ones\.$"):
        read_study(tmp_path / "absent.yaml")


def test_the_yaml_of_a_study_is_plain(tmp_path: Path) -> None:
    document = yaml.safe_load(read_study(written(tmp_path)).yaml())
    assert document["base"] == tiny.BASE
    assert document["sweep"] == [{"seed": [0]}]


def test_two_axes_of_one_column_are_refused(tmp_path: Path) -> None:
    sweep = [{"auxiliary": [{"kind": "generic"}]}, {"auxiliary.kind": ["distinct"]}]
    assert fails(tmp_path, {"sweep": sweep}, []) == (
        "sweep.auxiliary.kind and sweep.auxiliary share the column auxiliary; sweep one of them."
    )

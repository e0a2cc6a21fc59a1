"""Records in MLflow's terms, without MLflow: names, limits, fixed times, digests, files."""

import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from orchestrator.metrics.bounds import LABELS
from orchestrator.runtime.mlflow import encoding
from orchestrator.sweep.adversary import BEYOND
from orchestrator.sweep.records import Curve
from tests.runtime.samples import picture, sample_report, sample_sweep, sample_trials

TRIAL = sample_trials(1)[0]
BASE_MS = 1_000


def test_names_keep_only_the_characters_that_mlflow_takes() -> None:
    assert encoding.key("a/b-c.d e:f") == "a/b-c.d e:f"
    assert encoding.key("loss(\u00e9)*") == "loss____"
    assert len(encoding.key("x" * 999)) == encoding.MAX_KEY


@pytest.mark.parametrize(
    ("scale", "overrides", "number", "name"),
    [
        (None, [], 1, "sample (1 trial)"),
        ("smoke", [], 12, "sample (smoke, 12 trials)"),
        (
            None,
            ["attack.recipe.epochs=8", "sweep.seed=[0, 1]"],
            2,
            "sample (attack.epochs=8, seed=[0, 1], 2 trials)",
        ),
        ("x", [f"a.b{n}=1" for n in range(5)], 2, "sample (x, a.b0=1, a.b1=1, a.b2=1, 2 more, 2 trials)"),
        (None, ["about=" + "y" * 99], 2, f"sample (about={'y' * 31}..., 2 trials)"),
    ],
)
def test_a_sweep_is_named_by_scale_overrides_and_size(
    scale: str | None, overrides: list[str], number: int, name: str
) -> None:
    sweep = replace(sample_sweep(num_points=number), scale=scale, overrides=overrides)
    assert encoding.sweep_name(sweep) == name
    assert encoding.sweep_tags(sweep)["inversion.scale"] == (scale or "none")
    assert encoding.sweep_tags(sweep)["inversion.overrides"] == " ".join(overrides)


def test_a_sweep_has_its_axes_and_its_base_as_parameters() -> None:
    sweep = replace(sample_sweep(), study_yaml="base: {target: {classes: 5, none: null}}\nsweep: []\n")
    assert encoding.sweep_params(sweep) == {
        "base.target.classes": "5",
        "base.target.none": "none",
        "m": "1, 3, 10",
        "k": "5, 10",
        "auxiliary": "same-heldout, distinct",
        "budget": "full, 0.04",
    }


def test_a_run_lasts_as_long_as_its_stages_whenever_they_ran() -> None:
    trial = replace(TRIAL, costs={"cost/wall_seconds": 12.3456}, started_ms=5, ended_ms=99_999_999)
    assert encoding.ended_ms(trial, BASE_MS) == BASE_MS + 12_346
    assert encoding.ended_ms(replace(trial, costs={}), BASE_MS) == BASE_MS


def _fits(size: tuple[int, int], box: encoding.Box) -> bool:
    """Return whether a preview is as large as its box."""
    (width, height), (across, down) = size, box
    return (width == across and height <= down) or (height == down and width <= across)


def test_heat_maps_are_pictures_of_the_sweep_that_can_be_read() -> None:
    report = replace(
        sample_report([TRIAL]), files={"heatmap-m-k.png": TRIAL.images["inversion/test"].read(), "x.png": b""}
    )
    assert list(encoding.heat_maps(report)) == ["means/m-k"]
    files = encoding.map_files(report, "run", BASE_MS)
    assert {path.split("+")[0] for path in files} == {"images/means~m-k"}
    (small,) = [content for path, content in files.items() if path.endswith(".webp")]
    with Image.open(io.BytesIO(small)) as image:
        assert _fits(image.size, encoding.MAP_PREVIEW)


def test_a_metric_named_like_a_curve_is_kept_beside_it() -> None:
    trial = replace(TRIAL, metrics={"a/loss": 0.5}, costs={}, curves=[Curve("a/loss", [(0, 2.0), (1, 1.0)])])
    assert encoding.points(trial, BASE_MS) == [
        ("a/loss.final", 0.5, BASE_MS, 0),
        ("a/loss", 2.0, BASE_MS, 0),
        ("a/loss", 1.0, BASE_MS + 1, 1),
    ]
    assert encoding.latest(trial, BASE_MS) == {"a/loss.final": 0.5, "a/loss": 1.0}


def test_long_values_are_cut_where_mlflow_would_refuse_them() -> None:
    trial = replace(TRIAL, params={"about": "x" * 9999}, error="y" * 9999)
    assert len(encoding.params(trial)["about"]) == encoding.MAX_PARAM
    assert len(encoding.tags(trial)["error"]) == encoding.MAX_TAG


@pytest.mark.parametrize(
    "change", [{"metrics": {"a/b": 1.0}}, {"images": {"x": picture(b"png")}}, {"status": "failed"}]
)
def test_every_part_of_a_trial_is_in_its_digest(change: dict[str, object]) -> None:
    assert encoding.digest(TRIAL) == encoding.digest(replace(TRIAL))
    assert encoding.digest(replace(TRIAL, **change)) != encoding.digest(TRIAL)  # type: ignore[arg-type]


def test_the_end_of_a_sweep_is_not_in_the_reports_digest() -> None:
    report = sample_report([TRIAL])
    assert encoding.report_digest(report, [TRIAL]) == encoding.report_digest(
        replace(report, ended_ms=9), [TRIAL]
    )
    assert encoding.report_digest(report, [TRIAL]) != encoding.report_digest(
        replace(report, note="x"), [TRIAL]
    )


def test_pictures_have_the_same_names_every_time_and_a_small_copy() -> None:
    files = encoding.picture_files(TRIAL, "run", BASE_MS)
    assert files == encoding.picture_files(TRIAL, "run", BASE_MS)
    assert not files.keys() & encoding.picture_files(TRIAL, "other", BASE_MS).keys()
    assert len(files) == 2 * len(TRIAL.images)
    for path, content in files.items():
        if path.endswith(".webp"):
            with Image.open(io.BytesIO(content)) as image:
                assert _fits(image.size, encoding.PREVIEW)


def test_a_trial_says_what_its_adversary_had() -> None:
    plain, marked = (
        encoding.tags(TRIAL),
        encoding.tags(replace(TRIAL, held=("train", "test"), metrics={BEYOND: 64.0})),
    )
    assert {"inversion.held", "mlflow.note.content"}.isdisjoint(plain)
    assert marked["inversion.held"] == "train, test"
    assert marked["mlflow.note.content"].startswith("The adversary held the private images")
    assert "64 queries" in marked["mlflow.note.content"]
    table = json.loads(encoding.trials_table(sample_sweep(), [TRIAL, replace(TRIAL, held=("test",))]))
    place = table["columns"].index("held")
    assert [row[place] for row in table["data"]] == ["", "test"]
    assert all(len(row) == len(table["columns"]) for row in table["data"])
    assert "held" not in json.loads(encoding.trials_table(sample_sweep(), [TRIAL]))["columns"]


def test_the_table_has_null_where_json_has_no_number() -> None:
    trials = [replace(TRIAL, metrics={"a/b": value}) for value in (float("nan"), float("inf"), 0.5)]
    table = json.loads(encoding.trials_table(sample_sweep(), trials))
    assert table["columns"][-1] == "a/b"
    assert [row[-1] for row in table["data"]] == [None, None, 0.5]


def test_a_yardstick_that_is_not_beaten_is_a_tag() -> None:
    metrics = {"inversion/skill_test": -0.1, "yardstick/label_mse_test": 0.04}
    tags = encoding.tags(replace(TRIAL, metrics=metrics))
    assert tags[encoding.UNBEATEN_TAG] == "label (test)"
    assert tags["mlflow.note.content"].endswith("No better than a yardstick: label (test).")
    beaten = replace(TRIAL, metrics={**metrics, "inversion/skill_test": 0.1})
    assert encoding.UNBEATEN_TAG not in encoding.tags(beaten)


def test_images_of_classes_are_tagged_by_their_recognition_and_lose_a_tag_of_their_error() -> None:
    metrics = {"class/skill": -0.8, "class/yardstick_grey_mse": 0.05, "yardstick/chance": 1 / 62}
    metrics |= {"yardstick/classes_inferred": 62.0, "class/judge_top1": 0.6}
    recognised = replace(TRIAL, metrics=metrics)
    assert encoding.UNBEATEN_TAG not in encoding.tags(recognised)
    at_chance = encoding.tags(replace(TRIAL, metrics={**metrics, "class/judge_top1": 1 / 62}))
    assert at_chance[encoding.UNBEATEN_TAG] == "chance (class)"
    older = {**at_chance, encoding.UNBEATEN_TAG: "grey (class)", "error": "gone", "mine": "kept"}
    stale = {encoding.UNBEATEN_TAG, encoding.NOTE_TAG, "error"}
    assert encoding.stale_tags(recognised, older) == stale
    assert encoding.stale_tags(recognised, {**older, encoding.NOTE_TAG: "of a user"}) == stale - {
        encoding.NOTE_TAG
    }


def test_the_table_of_trials_has_ceiling_and_floor_of_classes() -> None:
    metrics = {"class/judge_top1": 0.4, "class/ceiling_accepted": 0.8, "class/floor_accepted": 0.1}
    records = [replace(TRIAL, axes={"attack": "gmi", "m": m}, metrics=metrics, held=()) for m in (1, 3)]
    sweep = replace(sample_sweep(), axes={"attack": ("gmi",), "m": (1, 3)})
    table = json.loads(encoding.trials_table(sweep, records))
    rows, columns = table["data"][2:], table["columns"]
    ceiling, floor = LABELS.values()
    assert [row[:4] for row in rows] == [[ceiling, "", "gmi", "any"], [floor, "", "gmi", "any"]]
    assert [row[columns.index("class/judge_top1")] for row in rows] == [0.8, 0.1]
    assert rows[0][columns.index("class/floor_accepted")] is None
    assert all(len(row) == len(columns) for row in rows)

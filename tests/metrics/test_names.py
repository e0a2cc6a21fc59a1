"""Metric names: the table, full names that are parsed and written, and a metric that is added by one row."""

import io
from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import Refused
from orchestrator.config.study import StudyError
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.metrics.names import METRICS, ImageFile, Metric, MetricName, evaluation_version, measured
from orchestrator.report.per_image import PerImage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from orchestrator.sweep.study_checks import check_report
from tests import tiny

BOUNDED = ("accepted", "class_rank", "class_nearest")


def test_every_metric_names_its_unit_and_direction() -> None:
    assert {name: metric.leaks for name, metric in METRICS.items() if metric.unit} == {
        "mse": "down",
        "mse_mean": "down",
        "mse_nearest": "down",
        "psnr": "up",
        "ssim": "up",
        "accuracy_top1": "up",
        "accuracy_top5": "up",
        "judge_top1": "up",
        "judge_top5": "up",
        "target_top1": "up",
        "target_confidence": "up",
        "accuracy": None,
        "epsilon": None,
        **dict.fromkeys(("skill", "over_chance", "over_floor", "yardstick_grey_top1"), "up"),
        **dict.fromkeys(("yardstick_label_top1", "yardstick_random_top1"), "up"),
        **{f"{guess}_mse": "down" for guess in ("grey", "mean", "label", "bins", "nearest")},
        **{f"yardstick_{guess}_mse": "down" for guess in ("grey", "label", "random")},
        **dict.fromkeys(
            ("agreement", "kappa", "false_accepts", "false_rejects", "threshold", "false_positives")
        ),
        **dict.fromkeys(("recogniser_accepted", "recogniser_top1"), "up"),
        "recogniser_rank": "down",
        **dict.fromkeys(("chance", "target_chance", "judge_chance", "recogniser_chance")),
        **dict.fromkeys(("retrieval_over_chance", "retrieval_top1", "retrieval_feature_top1"), "up"),
        **{f"retrieval_{name}": "down" for name in ("rank", "nearer", "feature_rank", "feature_nearer")},
        **{"retrieval_chance": None, "class_rank": "down", "class_nearest": "up"},
        **{f"{bound}_{name}": None for bound in ("ceiling", "floor") for name in BOUNDED},
        **dict.fromkeys(("knn_distance", "centroid_distance", "delta_facenet"), "down"),
        **dict.fromkeys(("lpips_vgg", "lpips_alex", "fid"), "down"),
        **dict.fromkeys(("precision", "recall", "density", "coverage"), "up"),
        **{f"early_share_{name}": None for name in ("classification", "l2", "l1", "lpips-vgg", "lpips-alex")},
    }
    bare = [name for name, metric in METRICS.items() if not metric.unit]
    assert all(METRICS[name].leaks is None and METRICS[name].of == "stage" for name in bare)
    assert bare == [
        *("validation_accuracy", "validation_loss", "validation_real", "validation_fake", "spread"),
        *("generated_fid", "validation_agreement", "validation_mse"),
        *("validation_total", "best_epoch", "cost", "steps", "queries", "queries_beyond_release"),
        *("target_images", "judge_images", "classes_inferred", "images"),
        *(
            "classes_estimated",
            "classes_seen",
            "classes_chao1",
            "shared_identities",
            "theta_c_millions",
            "theta_t_millions",
        ),
    ]


def test_names_of_every_metric_read_back() -> None:
    names = measured()
    assert len(names) == len(set(names)) == 191
    assert [str(MetricName.parse(name)) for name in names] == names
    assert names[0] == "target/accuracy"


@pytest.mark.parametrize(
    ("text", "stage", "metric", "part"),
    [
        ("inversion/mse_test", "inversion", "mse", "test"),
        ("attack/knn_distance_train", "attack", "knn_distance", "train"),
        ("class/knn_distance", "class", "knn_distance", "class"),
        ("class/mse_mean", "class", "mse_mean", "class"),
        ("attack/queries", "attack", "queries", ""),
        ("pretrain/validation_loss", "pretrain", "validation_loss", ""),
        ("surrogate.b0/best_epoch", "surrogate.b0", "best_epoch", ""),
        ("judge.wide/accuracy", "judge.wide", "accuracy", ""),
        ("fisher/early_share_lpips-vgg", "fisher", "early_share_lpips-vgg", ""),
    ],
)
def test_a_full_name_has_stage_metric_and_part(text: str, stage: str, metric: str, part: str) -> None:
    assert MetricName.parse(text) == MetricName(stage, METRICS[metric], part)
    if METRICS[metric].of != "stage":
        assert METRICS[metric].on(part) == MetricName.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mse",
        "inversion/mse",  # of which part?
        "class/mse",
        "class/knn_distance_test",
        "attack/accuracy_test",
        "attack/queries_test",
        "attack/queries_",
        "judge/epsilon",
        "inversion/mse_test/",
    ],
)
def test_what_no_stage_measures_is_no_name(text: str) -> None:
    with pytest.raises(
        Refused, match=r"^report.x=.* is not measured; choose from target/accuracy, "
    ) as caught:
        MetricName.parse(text, "report.x")
    assert (caught.value.field, caught.value.value) == ("report.x", text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inversion/mse_test", "squared intensity, pixels in [0, 1]; lower leaks more"),
        ("class/judge_top5", "share of classes in [0, 1]; higher leaks more"),
        ("judge/accuracy", "share in [0, 1]; utility"),
        ("attack/queries", "no unit"),
    ],
)
def test_titles_have_unit_and_direction(name: str, text: str) -> None:
    assert MetricName.parse(name).describe() == text


def test_values_by_image_have_a_file() -> None:
    targets = ("snapshot", "target", "given", "joint")
    assert {name: MetricName.parse(name).file() for name in ("target/accuracy", "class/judge_top1")} == {
        "target/accuracy": ImageFile(targets, "accuracy_test.npy", "accuracy"),
        "class/judge_top1": ImageFile(("evaluation",), "per_image_class.npy", "judge_top1"),
    }
    place = MetricName.parse("attack/accuracy_top1_train").file()
    assert place == ImageFile(("evaluation",), "per_image_train.npy", "accuracy_top1")
    for name, file in (("attack.wide/agreement_test", "test"), ("class.wide/agreement", "class")):
        further = MetricName.parse(name)
        assert further.instance == "wide"
        assert further.file() == ImageFile(("judgement.wide",), f"per_image_{file}.npy", "agreement")
        assert str(further) == name
    for name in ("attack/queries", "judge/accuracy", "attack/fid_test", "class/recall"):
        assert MetricName.parse(name).file() is None


def test_a_new_metric_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is valid in a study, has a title, is found by image, and lets evaluations run again."""
    report: dict[str, Any] = {"metrics": ["attack/toy_test"], "histograms": [{"name": "a", "panels": "m"}]}
    report["histograms"][0] |= {"value": "class/toy", "success": "class/toy"}
    study = tiny.study({"release.truncation": [1]}, report=report)
    with pytest.raises(StudyError, match=r"^report.metrics.0=attack/toy_test is not measured; choose from "):
        check_report(study)
    before = evaluation_version()
    toy = Metric("toy", "share of toys", "down", "image", ("attack", "class"), version=before + 1)
    monkeypatch.setitem(METRICS, "toy", toy)
    check_report(study)
    assert MetricName.parse("attack/toy_test").describe() == "share of toys; lower leaks more"
    assert {"attack/toy_test", "attack/toy_train", "class/toy"} < set(measured())
    assert evaluation_version() == before + 1

    store, rows = Artifacts(MemoryBlobs("memory")), io.BytesIO()
    np.save(rows, np.array([(3, 0.5)], dtype=[("label", np.int32), ("toy", np.float32)]))
    store.publish(Artifact("ee", "evaluation", 1, {}), {"per_image_test.npy": rows.getvalue()})
    trial = TrialRecord("k", 0, "t", {}, {}, "finished", {"evaluation": "ee"})
    values = PerImage(store).of(trial, "attack/toy_test")
    assert values is not None
    assert values["toy"].tolist() == [0.5]

"""What is refused of a study before its points exist."""

from typing import Any

import pytest

from orchestrator.config.base import Refused
from orchestrator.config.study import StudyError
from orchestrator.sweep.study_checks import check_local, check_report, check_study
from tests import tiny

CURVE = {"name": "one", "line": "m"}
HISTOGRAM = {"name": "one", "panels": "m"}


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ({"delta": {"reference": {"colour": 1}}}, "report.delta.reference.colour is not an axis;"),
        (
            {"delta": {"reference": {"m": 1}, "utility": "target/taste"}},
            "report.delta.utility=target/taste is not measured;",
        ),
        (
            {"delta": {"reference": {"m": 1}, "leakage": "inversion/mse_test"}},
            "report.delta.leakage=inversion/mse_test must be a share of images; choose an accuracy, for "
            "example target/accuracy or attack/accuracy_top1_test.",
        ),
        ({"curves": [{**CURVE, "x": "target/taste"}]}, "report.curves.0.x=target/taste is not measured;"),
        ({"curves": [{**CURVE, "y": "taste"}]}, "report.curves.0.y=taste is not measured;"),
        ({"curves": [CURVE | {"line": "colour"}]}, "report.curves.0.line=colour is not an axis;"),
        ({"curves": [{**CURVE, "points": "hue"}]}, "report.curves.0.points=hue is not an axis;"),
        ({"curves": [{**CURVE, "where": {"hue": 1}}]}, "report.curves.0.where.hue is not an axis;"),
        ({"histograms": [{**HISTOGRAM, "panels": "hue"}]}, "report.histograms.0.panels=hue is not an axis;"),
        (
            {"histograms": [{**HISTOGRAM, "where": {"hue": 1}}]},
            "report.histograms.0.where.hue is not an axis;",
        ),
        (
            {"histograms": [{**HISTOGRAM, "value": "taste"}]},
            "report.histograms.0.value=taste is not measured;",
        ),
        (
            {"histograms": [{**HISTOGRAM, "success": "attack/accuracy_top1_test"}]},
            "report.histograms.0: value=class/target_confidence and success=attack/accuracy_top1_test must "
            "be kept for the same images;",
        ),
        (
            {"histograms": [{**HISTOGRAM, "value": "judge/accuracy", "success": "attack/queries"}]},
            "report.histograms.0: value=judge/accuracy and success=attack/queries must be kept for the same",
        ),
        (
            {"histograms": [{**HISTOGRAM, "success": "class/mse_mean"}]},
            "report.histograms.0.success=class/mse_mean must be a share of images;",
        ),
        ({"costs": {"reference": {"hue": 1}}}, "report.costs.reference.hue is not an axis;"),
        (
            {"costs": {"reference": {"m": 1}, "stage": "lunch"}},
            "report.costs.stage=lunch is no stage; choose from pretrain, target,",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_a_report_cannot_show_is_told_before_anything_runs(report: dict[str, Any], text: str) -> None:
    study = tiny.study({"release.truncation": [1]}, report=report)
    with pytest.raises(StudyError) as caught:
        check_report(study)
    assert text in str(caught.value)


def test_a_report_of_everything_is_accepted() -> None:
    alike = {"value": "attack/accuracy_top5_test", "success": "attack/accuracy_top1_test"}
    report = {
        "delta": {"reference": {"budget": "full"}},
        "curves": [CURVE, {**CURVE, "name": "two", "points": "k", "where": {"seed": 0}}],
        "histograms": [HISTOGRAM, {**HISTOGRAM, **alike, "name": "two"}],
        "costs": {"reference": {"budget": "full", "m": 1}, "stage": "inversion"},
    }
    check_report(tiny.study({"release.truncation": [1]}, report=report))


def test_an_unknown_stage_is_named_with_those_there_are() -> None:
    resources = {"stages": {"training": {"workers": 2}}}
    with pytest.raises(
        StudyError, match=r"resources\.stages\.training is no stage; stages are pretrain, target"
    ):
        check_study(tiny.study({"release.truncation": [1]}, resources=resources))


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"workers": 2}, "resources.workers=2 needs Ray; drop --local or set resources.workers=1."),
        (
            {"stages": {"judge": {"workers": 3}}},
            "resources.stages.judge.workers=3 needs Ray; drop --local or set "
            "resources.stages.judge.workers=1.",
        ),
    ],
)
def test_a_study_that_needs_ray_is_refused(resources: dict[str, object], message: str) -> None:
    with pytest.raises(Refused) as caught:
        check_local(tiny.study({"seed": [0]}, resources=resources))
    assert str(caught.value) == message

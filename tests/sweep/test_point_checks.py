"""What a study names and its points do not have is refused before anything starts."""

from typing import Any

import pytest

from orchestrator.config.study import Study, StudyError
from orchestrator.sweep.point_checks import check_points
from orchestrator.sweep.points import expand
from tests import tiny

M = {"release.truncation": [1, 2]}
CLASSES = {"evaluation.task": "class-inference"}
TO_CLASSES = {"objectives": {"class/judge_top1": "maximize"}}
PRINTED = {"source": "a", "label": "b", "metric": "target/accuracy", "value": 1}
ORDER = {"claim": "a", "source": "b", "metric": "inversion/mse_test", "axis": "m", "order": [1, 2]}
HISTOGRAM = {"name": "a", "panels": "m", "value": "attack/target_confidence_test"}


def lines(study: Study, written: Study | None = None) -> list[str]:
    """Return the refusals of a study, one for each fault."""
    with pytest.raises(StudyError) as caught:
        check_points(study, expand(study)[0], {"digits": 10}, written)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("changes", "sections", "start"),
    [
        (
            {},
            {"search": {"objectives": {"attack/fid_test": "minimize"}}},
            "search.objectives=attack/fid_test is not measured here: it needs evaluation.networks.inception; "
            "choose another metric or add that.",
        ),
        (CLASSES, {}, "search.objectives=inversion/mse_test is not measured here: it needs evaluation.task="),
        ({}, {"search": TO_CLASSES}, "search.objectives=class/judge_top1 is not measured here: it needs"),
        ({}, {"report": {"metrics": ["target/epsilon"]}}, "report.metrics.0=target/epsilon is not measured"),
        (
            {},
            {"report": {"printed": [{**PRINTED, "metric": "attack/lpips_vgg_test"}]}},
            "report.printed.0.metric=attack/lpips_vgg_test is not measured here: it needs evaluation.net",
        ),
        (
            {},
            {"report": {"printed": [{**PRINTED, "where": {"m": 7}}]}},
            "report.printed.0.where.m=7 is no value of the axis m; it has 1, 2.",
        ),
        (
            {},
            {"report": {"printed": [{**PRINTED, "where": {"k": 3}}]}},
            "report.printed.0.where.k is not swept here; swept are m.",
        ),
        ({}, {"report": {"where": {"m": True}}}, "report.where.m=True is no value of the axis m;"),
        ({}, {"report": {"rows": ["k"]}}, "report.rows.0=k is not swept here; swept are m."),
        ({}, {"report": {"delta": {"reference": {"m": 3}}}}, "report.delta.reference.m=3 is no value of"),
        ({}, {"report": {"costs": {"reference": {"m": 3}}}}, "report.costs.reference.m=3 is no value of"),
        (
            {},
            {"report": {"costs": {"reference": {"m": 1}, "stage": "joint"}}},
            "report.costs.stage=joint is a stage that no trial here has; choose another.",
        ),
        (
            {},
            {"report": {"orderings": [{**ORDER, "order": [1, 9]}]}},
            "report.orderings.0.order.1=9 is no value of the axis m;",
        ),
        (
            {},
            {"report": {"curves": [{"name": "a", "line": "seed"}]}},
            "report.curves.0.line=seed is not swept",
        ),
        (
            {},
            {
                "report": {
                    "histograms": [{**HISTOGRAM, "success": "attack/accuracy_top1_test", "where": {"k": 1}}]
                }
            },
            "report.histograms.0.where.k is not swept here;",
        ),
        (
            {},
            {"report": {"rows": ["m"], "parts": ["class"]}},
            "report.parts=class has no images here: it needs evaluation.task=class-inference;",
        ),
        (
            {"attack": {"name": "optimization"}},
            {"search": {"scheduler": {}}},
            "search.scheduler stops nothing here: it needs an attack that trains by epochs; leave it out.",
        ),
        (
            {"auxiliary": {"dataset": "cifar10"}},
            {},
            "auxiliary.dataset=cifar10 changes nothing here: it needs auxiliary.kind generic, distinct or",
        ),
    ],
    ids=lambda value: str(value)[:70],
)
def test_what_no_point_has_is_refused(changes: dict[str, Any], sections: dict[str, Any], start: str) -> None:
    (line,) = lines(tiny.study(M, changes, **sections))
    assert line.startswith(start)


def test_every_fault_has_a_line() -> None:
    report = {"rows": ["k"], "where": {"m": 7}, "metrics": ["target/epsilon"]}
    assert [line.split("=")[0] for line in lines(tiny.study(M, report=report))] == [
        "report.metrics.0",
        "report.rows.0",
        "report.where.m",
    ]


def test_what_one_point_of_several_has_is_enough() -> None:
    sweep = [{"attack": [{"name": "optimization"}]}, {"release.truncation": [2]}]
    report = {"metrics": ["optimization/cost", "predictions/images"], "where": {"attack": "optimization"}}
    study = tiny.study(sweep, report={**report, "costs": {"stage": "inversion", "reference": {"m": 2}}})
    check_points(study, expand(study)[0], {"digits": 10})


def test_a_scale_or_an_override_may_leave_out_what_the_file_sweeps() -> None:
    report = {"rows": ["m"], "where": {"k": 3}, "orderings": [{**ORDER, "order": [1, 2]}]}
    written = tiny.study([{**M, "target.classes": [2, 3]}, {"seed": [1]}], report=report)
    narrow = tiny.study({"release.truncation": [1]}, report=report)
    check_points(narrow, expand(narrow)[0], {"digits": 10}, written)
    assert len(lines(narrow)) == 2


def test_an_adaptive_search_measures_its_objectives_at_every_point() -> None:
    objectives = {"predictions/images": "minimize"}
    axes = {"attack": [{"name": "optimization"}, {"name": "inverter"}]}
    search = {"algorithm": "optuna", "objectives": objectives}
    expanded = expand(tiny.study(axes))[0]
    study = tiny.study(axes, search=search)
    with pytest.raises(StudyError, match=r"^search.objectives=predictions/images is not measured here"):
        check_points(study, expanded, {"digits": 10})
    check_points(study, expanded[1:], {"digits": 10})


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ({"orderings": [{**ORDER, "order": [1, 1]}]}, "order=1 is there twice; name each value once."),
        (
            {"orderings": [{**ORDER, "where": {"m": 1}}]},
            "where.m=1 leaves one value of axis=m; leave it out.",
        ),
        (
            {"curves": [{"name": "a", "line": "m", "points": "m"}]},
            "points=m is the axis of the lines too; use null or another axis.",
        ),
        (
            {"curves": [{"name": "a", "line": "m", "where": {"m": 1}}]},
            "where.m=1 leaves one value of line=m;",
        ),
        ({"histograms": [{"name": "a", "panels": "m", "where": {"m": 1}}]}, "leaves one value of panels=m;"),
        ({"rows": ["m"], "beside": ["m"]}, "beside.0=m is report.rows.0 too; name it once."),
        ({"rows": ["m"], "where": {"m": 1}}, "where.m is report.rows.0 too; name it once."),
        ({"parts": ["test", "test"]}, "parts.1=test is report.parts.0 too; name it once."),
    ],
    ids=str,
)
def test_a_report_that_contradicts_itself(report: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="Value error") as refusal:
        tiny.study(M, report=report)
    assert text in str(refusal.value)

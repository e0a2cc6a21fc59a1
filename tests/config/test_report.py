"""Sections of a report: the metrics and axes that each one names, and file names that are used once."""

import re

import pytest
from pydantic import ValidationError

from orchestrator.config.report import Named, Report, Section

WHOLE = Report.model_validate(
    {
        "metrics": ["attack/queries"],
        "rows": ["k"],
        "beside": ["align"],
        "where": {"seed": 0},
        "replicates": ["data.split", "judge.seed"],
        "printed": [{"source": "a", "label": "b", "metric": "class/fid", "value": 1, "where": {"m": 1}}],
        "orderings": [
            {"claim": "a", "source": "b", "metric": "class/recall", "axis": "m", "order": [1, 2]},
            {
                **{"claim": "a", "source": "b", "metric": "class/recall", "axis": "k", "order": [1, 2]},
                "where": {"m": 1},
            },
        ],
        "delta": {"reference": {"budget": "full"}},
        "curves": [{"name": "a", "line": "budget", "points": "epoch", "where": {"m": 1}}],
        "histograms": [{"name": "a", "panels": "defense", "where": {"k": 5}}],
        "costs": {"reference": {"size": 1}},
    }
)


def test_a_report_names_what_its_sections_name() -> None:
    named = WHOLE.named()
    assert named.metrics == {
        "metrics.0": "attack/queries",
        "printed.0.metric": "class/fid",
        "orderings.0.metric": "class/recall",
        "orderings.1.metric": "class/recall",
        "delta.leakage": "attack/accuracy_top1_test",
        "delta.utility": "target/accuracy",
        "curves.0.x": "target/accuracy",
        "curves.0.y": "attack/accuracy_top1_test",
        "histograms.0.value": "class/target_confidence",
        "histograms.0.success": "class/judge_top1",
    }
    assert named.shares == {
        "delta.leakage": "attack/accuracy_top1_test",
        "delta.utility": "target/accuracy",
        "histograms.0.success": "class/judge_top1",
    }
    assert named.axes == {
        "rows.0": "k",
        "beside.0": "align",
        "where.seed": "seed",
        "replicates.0": "data.split",
        "replicates.1": "judge.seed",
        "printed.0.where.m": "m",
        "orderings.0.axis": "m",
        "orderings.1.axis": "k",
        "orderings.1.where.m": "m",
        "delta.reference.budget": "budget",
        "curves.0.line": "budget",
        "curves.0.points": "epoch",
        "curves.0.where.m": "m",
        "histograms.0.panels": "defense",
        "histograms.0.where.k": "k",
        "costs.reference.size": "size",
    }


def test_every_section_is_found_by_its_type() -> None:
    paths = [path for path, _ in WHOLE.sections()]
    assert paths == [
        *("printed.0", "orderings.0", "orderings.1", "delta", "curves.0", "histograms.0", "costs")
    ]
    assert all(isinstance(section, Section) for _, section in WHOLE.sections())
    assert list(Report().sections()) == []


def test_names_move_below_a_section() -> None:
    assert Named({"x": "a/b"}, axes={"line": "m"}).under("curves.3") == Named(
        {"curves.3.x": "a/b"}, {}, {"curves.3.line": "m"}
    )


@pytest.mark.parametrize(
    ("field", "part"),
    [("curves", {"name": "one", "line": "m"}), ("histograms", {"name": "one", "panels": "m"})],
)
def test_files_have_one_owner(field: str, part: dict[str, str]) -> None:
    with pytest.raises(
        ValidationError, match=f"{field} has name=one twice; rename one: each has files of its own"
    ):
        Report.model_validate({field: [part, part]})


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"rows": ["m"]}, "rows.0=m is one of report.replicates, over which tables average;"),
        ({"delta": {"reference": {"m": 1}}}, "delta.reference.m is one of report.replicates"),
        ({"curves": [{"name": "a", "line": "k", "points": "m"}]}, "curves.0.points=m is one of"),
    ],
)
def test_replicates_are_averaged_and_so_not_compared(sections: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(text)):
        Report.model_validate({"replicates": ["m"], **sections})
    assert Report.model_validate(sections).replicates is None
    Report.model_validate({"replicates": ["m"], "where": {"m": 1}})


def test_seeds_repeat_a_setting_unless_the_report_names_what_does() -> None:
    assert [axis for axis in ("m", "seed", "judge.seed", "data.split") if Report().repeats(axis)] == [
        "seed",
        "judge.seed",
    ]
    assert [axis for axis in ("m", "seed", "judge.seed", "data.split") if WHOLE.repeats(axis)] == [
        "judge.seed",
        "data.split",
    ]
    assert not Report(replicates=()).repeats("seed")

"""Cautions: failures, few replicates, settings that a search chose by the judge that reports them."""

from typing import Any

import pytest

from orchestrator.config.report import Report
from orchestrator.report.cautions import caution_remarks, cautions, few_replicates
from orchestrator.report.page.page import PAGE
from orchestrator.report.tables import NOTE, report_files
from tests import tiny
from tests.report.page.trials import empty_store
from tests.report.trials import FAILED, MSE, grid, record

TOP1, OTHER = "class/judge_top1", "class.other/judge_top1"
STEPS = {"attack.steps": {"low": 1, "high": 9, "integer": True}}
WIDTH = {"prior.model.width": {"low": 0.1, "high": 1.0}}
BIDO = {"target.defense.bido.weight_x": {"low": 0.005, "high": 0.5}}


def test_failures_are_named_and_settings_with_few_replicates_counted() -> None:
    study = tiny.study({"seed": [0]})
    records = [*grid({(1, 5): [0.1, 0.2, 0.6], (3, 5): [0.5], (5, 5): [0.5, 0.6]}), FAILED]
    assert cautions(records, study) == ['- failed: `0002` in inversion: ValueError: a "b", c']
    assert few_replicates(records, Report()) == [
        "- few replicates: 1 of 3 settings have one replicate: no interval.",
        "- few replicates: 1 of 3 settings have 2 replicates: an interval says little.",
    ]
    assert cautions([record(0, {}, {MSE: 0.1})], study) == []


def lines(axes: dict[str, Any], objectives: dict[str, str], algorithm: str = "optuna") -> list[str]:
    """Return the cautions on two trials of a search."""
    search = {"algorithm": algorithm, "objectives": objectives}
    trials = [record(index, {}, dict.fromkeys(objectives, 0.5)) for index in range(2)]
    return cautions(trials, tiny.study(axes, search=search))


@pytest.mark.parametrize("algorithm", ["optuna", "random"])
@pytest.mark.parametrize(
    ("axes", "whose"),
    [
        (STEPS, "of the attack"),
        (WIDTH, "of the attack"),
        ({"attack": [{"name": "gmi"}, {"name": "ppa"}]}, "of the attack"),
        (BIDO, "of the target"),
        ({**BIDO, **STEPS}, "of the attack and of the target"),
    ],
    ids=["attack", "prior", "whole attack", "target", "both"],
)
def test_a_search_that_chose_settings_by_the_judge_that_reports_them_is_told(
    axes: dict[str, Any], whose: str, algorithm: str
) -> None:
    assert lines(axes, {TOP1: "maximize"}, algorithm) == [
        f"- settings {whose} were chosen by `{TOP1}`, which also reports them: the best one's value is "
        "optimistic; compare another judge's."
    ]


def test_all_judges_that_chose_are_named() -> None:
    (line,) = lines(STEPS, {TOP1: "maximize", "target/accuracy": "maximize", OTHER: "maximize"})
    assert f"by `{TOP1}` and `{OTHER}`, which also report them: the best one's values are" in line


@pytest.mark.parametrize(
    ("axes", "objective", "algorithm"),
    [
        ({"attack.steps": [1, 2]}, TOP1, "grid"),
        (STEPS, MSE, "optuna"),
        (STEPS, "target/accuracy", "optuna"),
        (STEPS, "judge/accuracy", "optuna"),
        ({"attack.steps": [1]}, TOP1, "optuna"),
        ({"attack.seed": [0, 1]}, TOP1, "random"),
        ({"seed": [0, 1]}, TOP1, "random"),
        ({"auxiliary.size": [10, 20]}, TOP1, "random"),
    ],
)
def test_nothing_is_told_where_no_judge_chose_or_nothing_was_chosen(
    axes: dict[str, Any], objective: str, algorithm: str
) -> None:
    assert lines(axes, {objective: "maximize"}, algorithm) == []


def test_one_trial_was_not_chosen() -> None:
    study = tiny.study(STEPS, search={"algorithm": "random", "objectives": {TOP1: "maximize"}})
    assert caution_remarks([record(0, {}, {TOP1: 0.5}), FAILED], study) == []


def test_the_note_and_the_page_have_it() -> None:
    study = tiny.study(STEPS, search={"algorithm": "optuna", "objectives": {TOP1: "maximize"}})
    trials = [record(index, {"attack.steps": index + 1}, {TOP1: 0.5}) for index in range(2)]
    files = report_files(study, trials, empty_store())
    sentence = "settings of the attack were chosen by"
    assert f"- {sentence} `{TOP1}`, which" in files[NOTE].decode()
    assert sentence in files[PAGE].decode()

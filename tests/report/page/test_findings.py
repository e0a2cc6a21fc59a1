"""Findings: one ranking, one importance and one answer for the page and the note."""

from orchestrator.report.page.findings import CPU, WALL, findings
from orchestrator.report.page.words import axis_line, leak_line, price_line
from orchestrator.report.per_image import PerImage
from orchestrator.report.sections import Sections
from orchestrator.store.artifacts import Artifact
from tests import tiny
from tests.report.page.trials import SKILL, empty_store, sweep
from tests.report.trials import FAILED, MSE

AXES = {"release.truncation": [1, 3], "target.budget": ["full", "block1"], "seed": [0, 1, 2]}


def test_all_lines_of_the_answer_are_about_one_metric() -> None:
    store, sections = empty_store(), Sections()
    found = findings(tiny.study(AXES), sweep(), store, PerImage(store), sections)
    assert found.ranked is not None
    assert found.ranked.leakage == SKILL
    assert [one.metric for one in found.importance] == [MSE, SKILL]
    assert list(found.axes) == ["m", "budget"]
    assert found.seconds == CPU
    assert list(found.answer) == [
        leak_line(found.ranked, found.axes),
        price_line(found.ranked, CPU),
        axis_line(found.importance[1]),
    ]
    assert sections.lines == []


def test_without_a_finished_trial_the_answer_says_so() -> None:
    store = empty_store()
    found = findings(tiny.study(AXES), [FAILED], store, PerImage(store), Sections())
    assert found.ranked is None
    assert found.answer[0] == "No trial finished that measured what leaks."


def test_costs_are_of_the_device_where_a_stage_has_one() -> None:
    store = empty_store()
    store.publish(Artifact("a" * 64, "target", 1, {}, created_ms=1), {})
    (first, *_) = sweep()
    trial = type(first)(**{**vars(first), "stage_keys": {"target": "a" * 64}})
    study = tiny.study(AXES, resources={"stages": {"target": {"gpus_per_worker": 1.0}}})
    found = findings(study, [trial], store, PerImage(store), Sections())
    assert found.seconds == WALL
    assert list(found.artifacts) == ["a" * 64]

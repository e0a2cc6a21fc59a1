"""Captions of a report: what they say, of which trials."""

import dataclasses

import pytest

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.report.captions import captions
from orchestrator.report.tables import note
from orchestrator.sweep.points import flatten
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import FAILED, record

TEST: dict[str, Scalar] = {"target.selection": "test", "target.snapshot": "none"}


def trial(index: int, params: dict[str, Scalar]) -> TrialRecord:
    """Return a finished trial with parts of its spec."""
    return dataclasses.replace(record(index, {"m": index}), params=params)


@pytest.mark.parametrize(
    ("others", "share"),
    [
        ([], "every trial"),
        ([{"target.selection": "held-out", "target.snapshot": "none"}], "1 of 2 trials"),
        ([{"target.selection": "last"}, {**TEST, "target.snapshot": 5}], "1 of 3 trials"),
        ([TEST], "every trial"),
    ],
)
def test_accuracies_of_epochs_chosen_on_test_images_are_told(
    others: list[dict[str, Scalar]], share: str
) -> None:
    trials = [trial(index, params) for index, params in enumerate([TEST, *others])]
    (line,) = captions([*trials, FAILED])
    assert line.startswith(
        f"target/accuracy of {share} is that of the epoch which is best on the test images"
    )
    assert line in note(tiny.study({"seed": [0]}), trials, [])


def test_nothing_is_told_where_nothing_was_chosen_on_test_images() -> None:
    assert captions([]) == []
    assert captions([trial(0, {"target.selection": "held-out"}), FAILED]) == []


def test_it_is_told_that_classes_are_held_fixed() -> None:
    trials = [trial(0, {})]
    (line,) = captions(trials, Report(population=True))
    assert "classes are held fixed" in line
    assert captions([FAILED], Report(population=True)) == []
    study = tiny.study({"seed": [0]}, report={"population": True})
    assert line in note(study, trials, [])
    assert line not in note(tiny.study({"seed": [0]}), trials, [])


def test_the_names_are_those_of_a_trials_spec() -> None:
    params = flatten(tiny.spec({"target.selection": "test"}).model_dump(mode="json"))
    assert len(captions([trial(0, params)])) == 1
    snapshot = {"target.snapshots": [1], "target.snapshot": 1, "target.selection": "test"}
    assert captions([trial(0, flatten(tiny.spec(snapshot).model_dump(mode="json")))]) == []

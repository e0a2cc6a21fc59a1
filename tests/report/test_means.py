"""Means over trials: their own numbers, and half an interval over seeds and classes."""

import io
import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.means import mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests.report.trials import MSE, record


def test_means_are_over_trials_and_intervals_over_seeds() -> None:
    records = [record(i, {"m": 1, "seed": i}, {MSE: value}) for i, value in enumerate([0.1, 0.2, 0.6])]
    mean, half = mean_and_half([*records, record(9, {"m": 1, "seed": 9})], MSE)
    assert mean == pytest.approx(0.3)
    assert half == pytest.approx(4.302652729911275 * stats.sem([0.1, 0.2, 0.6]))
    assert all(math.isnan(value) for value in mean_and_half([], MSE))
    alone, none = mean_and_half(records[:1], MSE)
    assert alone == pytest.approx(0.1)
    assert math.isnan(none)


def test_other_replicates_are_those_that_the_study_names() -> None:
    records = [record(i, {"data.split": s, "seed": 0}, {MSE: float(i)}) for i, s in enumerate("abc")]
    assert math.isnan(mean_and_half(records, MSE)[1])
    assert mean_and_half(records, MSE, report=Report(replicates=("data.split",)))[1] == pytest.approx(
        4.302652729911275 / math.sqrt(3)
    )


def with_errors(store: Artifacts, index: int, errors: list[float]) -> TrialRecord:
    """Return a trial of a seed with one image of each class."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(list(enumerate(errors)), dtype=[("label", "i4"), ("mse", "f8")]))
    store.publish(Artifact(f"e{index}", "evaluation", 1, {}), {"per_image_test.npy": buffer.getvalue()})
    return record(index, {"seed": index}, {MSE: 7.0 + index}, stage_keys={"evaluation": f"e{index}"})


def test_values_by_image_add_classes_unless_they_are_all_there_are() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    records = [with_errors(store, i, [1.0 + i, 2.0 + i, 3.0 + i]) for i in range(3)]
    images = PerImage(store)
    t = 4.302652729911275
    mean, half = mean_and_half(records, MSE, images)
    assert mean == 8.0  # the trials' own numbers, which are means of images
    assert half == pytest.approx(t * math.sqrt(1 / 3 + 1 / 3))
    assert mean_and_half(records, MSE, images, Report(population=True))[1] == pytest.approx(t / math.sqrt(3))
    assert math.isnan(mean_and_half(records[:1], MSE, images)[1])  # classes alone say nothing of seeds
    half = mean_and_half([*records[:2], record(2, {"seed": 2}, {MSE: 9.0})], MSE, images)[1]
    assert half == pytest.approx(t / math.sqrt(3))  # one trial kept nothing by image

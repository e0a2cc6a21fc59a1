"""Leakage at equal utility: heights of lines, their distance and its interval, by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report, RobustnessCurve
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.equal_utility import ALL, equal_table
from orchestrator.report.per_image import PerImage
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord
from tests.report.test_delta import with_classes
from tests.report.trials import record

X, Y = "target/accuracy", "attack/accuracy_top1_test"
CURVE = RobustnessCurve(name="budgets", line="budget", points="epoch", reference="full")


def trials(
    points: Sequence[tuple[str, int, float, float]], offsets: Sequence[float] = (0.0,)
) -> list[TrialRecord]:
    """Return a trial for each point (budget, epoch, x, y) and seed; a seed adds its offset to y."""
    records: list[TrialRecord] = []
    for budget, epoch, x, y in points:
        for seed, offset in enumerate(offsets):
            axes: dict[str, Scalar] = {"budget": budget, "epoch": epoch, "seed": seed}
            records.append(record(len(records), axes, {X: x, Y: y + offset}))
    return records


def rows(records: Sequence[TrialRecord], store: Artifacts | None = None) -> list[dict[Any, Any]]:
    """Return the table's rows."""
    images = PerImage(store or Artifacts(MemoryBlobs("memory")))
    return equal_table(CURVE, records, images, Report()).to_dict("records")


def test_each_shared_point_is_set_against_the_other_line() -> None:
    """full is y = 2 x - 0.6 from 0.4 to 0.8; the other has y = x - 0.3 from 0.3 to 0.6."""
    full = [("full", 1, 0.4, 0.2), ("full", 2, 0.5, 0.4), ("full", 4, 0.8, 1.0)]
    cut = [("cut", 1, 0.3, 0.0), ("cut", 2, 0.6, 0.3)]
    mean, *points = rows(trials([*full, *cut]))
    assert [(row["at"], row[f"{X} from"]) for row in points] == [
        ("epoch=1", pytest.approx(0.4)),
        ("epoch=2", pytest.approx(0.5)),
        ("epoch=2", pytest.approx(0.6)),
    ]
    assert [row["reference"] for row in points] == pytest.approx([0.2, 0.4, 0.6])
    assert [row["line"] for row in points] == pytest.approx([0.1, 0.2, 0.3])
    assert [row["difference"] for row in points] == pytest.approx([0.1, 0.2, 0.3])
    assert (mean["at"], mean["difference"], mean["budget"]) == (ALL, pytest.approx(0.2), "cut")
    assert (mean[f"{X} from"], mean[f"{X} to"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert mean["note"] == "one seed: no interval"


def test_the_interval_is_that_of_the_seeds_distances() -> None:
    """Seeds shift the line alone; at its one shared point the distances are 0.2 less their offsets."""
    full = trials([("full", 1, 0.4, 0.2), ("full", 2, 0.8, 1.0)], (0.0, 0.0, 0.0))
    cut = trials([("cut", 1, 0.2, 0.0), ("cut", 2, 0.3, 0.1), ("cut", 4, 0.5, 0.2)], (-0.03, 0.0, 0.03))
    records = [record(100 + one.index, one.axes, one.metrics) for one in cut]
    _, _, last = rows([*full, *records])
    assert last["difference"] == pytest.approx(0.2)
    half = stats.t.ppf(0.975, 2) * 0.03 / math.sqrt(3)
    assert (last["low"], last["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert (last["seeds_agreeing"], last["seeds"], last["verdict"]) == (3, 3, "holds")


def test_utility_that_moves_along_the_line_is_no_distance() -> None:
    """Both lines are y = x; a seed that is more accurate leaks as much more: the distance has no spread."""
    records: list[TrialRecord] = []
    for budget, xs in (("full", (0.4, 0.6)), ("cut", (0.3, 0.5))):
        for epoch, x in enumerate(xs):
            for seed, offset in enumerate((-0.05, 0.0, 0.05)):
                axes: dict[str, Scalar] = {"budget": budget, "epoch": epoch, "seed": seed}
                records.append(record(len(records), axes, {X: x + offset, Y: x + offset}))
    for row in rows(records):
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.0, 0.0, 0.0))


def test_classes_are_resampled_too() -> None:
    """The reference leaks 0.25 more of one class and 0.75 of the other in both seeds: only classes spread."""
    store = Artifacts(MemoryBlobs("memory"))
    records: list[TrialRecord] = []
    for budget, leaked in (("full", [0.25, 0.75]), ("cut", [0.0, 0.0])):
        for epoch, x in enumerate((0.5, 0.75)):
            for seed in (0, 1):
                axes: dict[str, Scalar] = {"budget": budget, "epoch": epoch, "seed": seed}
                records.append(with_classes(store, len(records), axes, leaked, [x, x]))
    found = rows(records, store)
    assert len(found) == 5  # the mean, and every point of both lines
    for row in found:
        half = stats.t.ppf(0.975, 1) * 0.25
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
        assert row["resampled"] == "2 seed x 2 classes"


def test_lines_without_a_shared_utility_say_so() -> None:
    records = trials(
        [("full", 1, 0.6, 0.2), ("full", 2, 0.8, 0.4), ("cut", 1, 0.3, 0.0), ("cut", 2, 0.5, 0.1)]
    )
    (row,) = rows(records)
    assert row["verdict"] == "no trials"
    assert row["note"] == f"no shared {X}: 0.6 to 0.8 and 0.3 to 0.5"
    assert np.isnan(float(str(row["difference"])))
    assert rows(records[2:]) == []  # no reference


def test_a_reference_needs_points() -> None:
    with pytest.raises(ValueError, match="reference=full needs points"):
        RobustnessCurve(name="budgets", line="budget", reference="full")
    named = CURVE.named().values
    assert named["reference"] == ("budget", "full")

"""The table of bounds: photographs, the attack and its start side by side, with intervals over classes."""

import io

import numpy as np
import pytest

from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.bounds import COLUMNS, bounds_table
from orchestrator.report.per_image import PerImage
from orchestrator.report.statistics import half_column
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import record

NAMES = ("accepted", "class_rank", "class_nearest")
METRICS = {
    **{f"attack/ceiling_{name}_test": value for name, value in zip(NAMES, (0.9, 1.2, 0.8), strict=True)},
    **{f"attack/floor_{name}_test": value for name, value in zip(NAMES, (0.1, 6.0, 0.2), strict=True)},
    "attack/accuracy_top1_test": 0.7,
    "attack/class_rank_test": 2.0,
    "attack/class_nearest_test": 0.5,
    "attack/retrieval_top1_test": 0.25,
    "attack/retrieval_chance_test": 0.05,
    "attack/retrieval_nearer_test": 0.4,
}
RANKS = [2.0, 1.0, np.nan, 3.0]  # of one image of each class, of which one has none


def trial(store: Artifacts, index: int, held: tuple[str, ...] = ()) -> TrialRecord:
    """Return a trial of one seed; ranks of every image are stored."""
    rows = np.array(list(enumerate(RANKS)), dtype=[("label", np.int32), ("class_rank", np.float32)])
    buffer = io.BytesIO()
    np.save(buffer, rows)
    store.publish(Artifact(f"r{index}", "retrieval", 1, {}), {"per_image_test.npy": buffer.getvalue()})
    axes = {"m": 1, "seed": index}
    return record(index, axes, METRICS, stage_keys={"retrieval": f"r{index}"}, held=held)


def test_photographs_attack_and_start_stand_below_each_other() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    records = [trial(store, index) for index in range(2)]
    table = bounds_table(records, PerImage(store), Report())
    assert table["images"].tolist() == ["held-out photographs", "attack", "start, not optimised"]
    assert table["part"].tolist() == ["test"] * 3
    assert table["seeds"].tolist() == [2] * 3
    assert "held" not in table
    shown = table[list(COLUMNS)].to_numpy()
    assert shown[0, :3].tolist() == pytest.approx([0.9, 1.2, 0.8])
    assert shown[1].tolist() == pytest.approx([0.7, 2.0, 0.5, 0.25, 0.05, 0.4])
    assert shown[2, :3].tolist() == pytest.approx([0.1, 6.0, 0.2])
    assert np.isnan(shown[[0, 2], 3:]).all()  # a photograph is no reconstruction of another image
    assert (
        table[half_column("class rank")][1] > 0
    )  # over the three classes that have a value; the seeds agree
    assert {"bounds.csv", "bounds.tex"} <= report_files(
        tiny.study({"release.truncation": [1]}), records, store
    ).keys()


def test_a_row_says_that_the_adversary_held_the_images() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    table = bounds_table([trial(store, 0, ("test",))], PerImage(store), Report())
    assert table["held"].tolist() == ["test"] * 3


def test_trials_from_before_have_no_such_table() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    old = record(0, {"m": 1}, {"attack/accuracy_top1_test": 0.7})
    assert bounds_table([old], PerImage(store), Report()).empty
    assert "bounds.csv" not in report_files(tiny.study({"release.truncation": [1]}), [old], store)

"""The table of bounds: photographs, the attack and its start side by side, with intervals over classes."""

import io

import numpy as np
import pytest

from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.metrics.bounds import ATTACK, LABELS
from orchestrator.report.bounds import COLUMNS, bounds_table
from orchestrator.report.judges import judges_table
from orchestrator.report.per_image import PerImage
from orchestrator.report.statistics import half_column
from orchestrator.report.tables import report_files, summary_table
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import record

EMPTY = Artifacts(MemoryBlobs("empty"))
CEILING, FLOOR = LABELS.values()
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
    assert table["images"].tolist() == [CEILING, ATTACK, FLOOR]
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


OF_CLASSES = {
    "class/judge_top1": 0.4,
    "class/class_rank": 3.0,
    "class/ceiling_accepted": 0.8,
    "class/ceiling_class_rank": 1.5,
    "class/floor_accepted": 0.1,
    "class/floor_class_rank": 9.0,
}
TOP1, RANK = "class/judge_top1", "class/class_rank"


def attacked(index: int, attack: str, budget: str, seed: int, floor: float) -> TrialRecord:
    """Return a trial of class inference; the ceiling differs by seed, the floor by attack."""
    metrics = {**OF_CLASSES, "class/ceiling_accepted": 0.8 + 0.1 * seed, "class/floor_accepted": floor}
    return record(index, {"attack": attack, "budget": budget, "seed": seed}, metrics)


def test_the_summary_of_classes_has_its_ceiling_and_floor_as_rows() -> None:
    settings = [("gmi", "full", 0.1), ("gmi", "early", 0.1), ("mia", "full", 0.0), ("mia", "early", 0.0)]
    records = [
        attacked(2 * place + seed, attack, budget, seed, floor)
        for place, (attack, budget, floor) in enumerate(settings)
        for seed in range(2)
    ]
    table = summary_table(records, [TOP1, RANK, "class/mse_mean"])
    shown = table[["attack", "budget", "images", "seeds", TOP1, RANK]].to_numpy().tolist()
    assert shown[:4] == [[attack, budget, ATTACK, 2, 0.4, 3.0] for attack, budget, _ in settings]
    assert shown[4] == ["any", "any", CEILING, 2, pytest.approx(0.85), 1.5]
    assert shown[5:] == [["gmi", "any", FLOOR, 2, 0.1, 9.0], ["mia", "any", FLOOR, 2, 0.0, 9.0]]
    half = 12.7062 * 0.05  # Student's t of two seeds, whose mean is 0.85 +- 0.05
    assert table[half_column(TOP1)][4] == pytest.approx(half, rel=1e-4)
    assert table["class/mse_mean"][4:].isna().all()
    files = report_files(tiny.study({"release.truncation": [1]}, report={"metrics": [TOP1]}), records, EMPTY)
    for name in ("summary.csv", "summary.tex"):
        assert CEILING in files[name].decode()
        assert FLOOR in files[name].decode()


def test_a_summary_without_images_of_classes_has_no_such_rows() -> None:
    assert "images" not in summary_table([record(0, {"m": 1}, METRICS)], ["attack/accuracy_top1_test"])
    older = record(0, {"m": 1}, {TOP1: 0.4})
    assert "images" not in summary_table([older], [TOP1])


def test_the_table_of_judges_has_the_rows_for_each_part() -> None:
    shares = {"attack.wide/accuracy_top1_test": 0.6, "attack/recogniser_accepted_test": 0.3}
    shares |= {"attack/recogniser_top1_test": 0.2, "recogniser/accuracy": 0.95}
    trials = [record(0, {"m": 1}, {**METRICS, **shares}, stage_keys={"judgement.wide": "ww"})]
    table = judges_table(trials, PerImage(EMPTY), Report())
    assert table["images"].tolist() == [ATTACK, CEILING, FLOOR]
    assert table["part"].tolist() == ["test"] * 3
    assert table["judge"].tolist() == [0.7, 0.9, 0.1]
    assert table["wide"].isna().tolist() == [False, True, True]  # its photographs were not judged
    assert table["recogniser top-1"].tolist()[:2] == [0.2, 0.95]

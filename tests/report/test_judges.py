"""The table of judges: who accepts what, intervals that resample judges, by hand."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.judges import EVERY, judge_lines, judges_table, narrow
from orchestrator.report.per_image import PerImage
from orchestrator.report.statistics import half_column
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import record

TOP1 = "attack/accuracy_top1_test"
EMPTY = PerImage(Artifacts(MemoryBlobs("empty")))
REPORT = Report()


def judged(index: int, own: float, wide: float, more: Mapping[str, float] | None = None) -> TrialRecord:
    """Return a trial of seed `index` whose judges accept these shares of its test images."""
    shares = {TOP1: own, "attack.wide/accuracy_top1_test": wide, "attack.wide/agreement_test": 0.75}
    keys = {"evaluation": f"ee{index}", "judgement.wide": f"cc{index}"}
    return record(index, {"m": 1, "seed": index}, {**shares, **(more or {})}, stage_keys=keys)


def test_a_row_has_every_judge() -> None:
    table = judges_table([judged(0, 0.9, 0.7), judged(1, 0.7, 0.5)], EMPTY, REPORT)
    (row,) = table.to_dict("records")
    assert (row["m"], row["seeds"], row["part"]) == (1, 2, "test")
    assert row["judge"] == pytest.approx(0.8)
    assert row["wide"] == pytest.approx(0.6)
    assert row[EVERY] == pytest.approx(0.7)
    assert row["agreement wide"] == 0.75
    half = stats.t.ppf(0.975, 1) * np.std([0.9, 0.7], ddof=1) / np.sqrt(2)
    assert row[half_column("judge")] == pytest.approx(half)


def test_the_mean_of_judges_has_their_spread() -> None:
    """Seeds agree, judges are 0.2 apart: two of them leave one degree of freedom."""
    trials = [judged(seed, 0.8, 0.6) for seed in range(3)]
    (row,) = judges_table(trials, EMPTY, REPORT).to_dict("records")
    for column in ("judge", "wide"):
        assert row[half_column(column)] == pytest.approx(0, abs=1e-12)
    expected = stats.t.ppf(0.975, 1) * np.std([0.8, 0.6], ddof=1) / np.sqrt(2)
    assert row[half_column(EVERY)] == pytest.approx(expected)
    (row,) = judges_table(trials[:1], EMPTY, REPORT).to_dict("records")
    assert np.isnan(row[half_column(EVERY)])  # one seed says nothing of another training


def test_classes_are_resampled_where_values_were_kept() -> None:
    trials = [judged(seed, 0.5, 0.5) for seed in range(2)]
    store = Artifacts(MemoryBlobs("memory"))
    for trial in trials:
        for stage in ("evaluation", "judgement.wide"):
            fields = [("label", np.int32), ("accuracy_top1", np.float32)]
            buffer = io.BytesIO()
            np.save(buffer, np.array([(0, 1.0), (1, 0.0), (2, 1.0), (3, 0.0)], dtype=fields))
            artifact = Artifact(trial.stage_keys[stage], stage.partition(".")[0], 1, {})
            store.publish(artifact, {"per_image_test.npy": buffer.getvalue()})
    (row,) = judges_table(trials, PerImage(store), REPORT).to_dict("records")
    half = stats.t.ppf(0.975, 3) * np.std([1, 0, 1, 0], ddof=1) / np.sqrt(4)
    assert row[half_column("wide")] == pytest.approx(half)
    assert row[half_column(EVERY)] == pytest.approx(half)
    population = Report(population=True)
    (row,) = judges_table(trials, PerImage(store), population).to_dict("records")
    assert row[half_column("wide")] == 0


RECOGNISED = {
    "attack/recogniser_accepted_test": 0.1,
    "attack/recogniser_top1_test": 0.2,
    "attack/recogniser_rank_test": 9.0,
    "attack/false_positives_test": 0.9,
    "recogniser/false_accepts": 0.01,
}


def test_a_recogniser_stands_beside_the_judge() -> None:
    alone = record(0, {"m": 1, "seed": 0}, {TOP1: 0.95, **RECOGNISED})
    (row,) = judges_table([alone], EMPTY, REPORT).to_dict("records")
    shown = {"judge": 0.95, "recogniser": 0.1, "recogniser top-1": 0.2, "rank": 9.0, "false positives": 0.9}
    assert {name: row[name] for name in shown} == shown
    assert row["false accepts"] == 0.01
    assert EVERY not in row
    columns = narrow([str(name) for name in row])
    assert "false accepts" not in columns
    assert set(shown) <= set(columns)
    words = "the recogniser refuses 90 % of the images that the judge accepts (mean over trials)."
    assert judge_lines([alone]) == [f"- false positives: {words}"]


def test_class_inference_has_a_part_of_its_own() -> None:
    metrics = {"class/judge_top1": 0.5, "class.wide/judge_top1": 0.25, "class.wide/kappa": 0.1}
    trial = record(0, {"m": 1}, metrics, stage_keys={"judgement.wide": "aa"})
    (row,) = judges_table([trial], EMPTY, REPORT).to_dict("records")
    assert (row["part"], row["judge"], row["wide"], row["kappa wide"]) == ("class", 0.5, 0.25, 0.1)


def test_the_report_has_the_table_where_somebody_else_judged() -> None:
    study = tiny.study({"release.truncation": [1], "seed": [0, 1]}, report={"metrics": [TOP1]})

    def files(*trials: TrialRecord) -> dict[str, Any]:
        return report_files(study, trials, Artifacts(MemoryBlobs("memory")))

    assert "judges.csv" not in files(record(0, {"m": 1, "seed": 0}, {TOP1: 0.5}))
    found = files(judged(0, 0.9, 0.7, RECOGNISED), judged(1, 0.7, 0.5, RECOGNISED))
    (row,) = csv.DictReader(found["judges.csv"].decode().splitlines())
    assert (row["judge"], row["wide"], row["false positives"]) == ("0.8", "0.6", "0.9")
    tex = found["judges.tex"].decode()
    assert "false positives" in tex
    assert "false accepts" not in tex
    lines = found["note.md"].decode().splitlines()
    words = "`wide` and the judge say the same of 75 % of the images (mean over trials)."
    assert f"- judges: {words}" in lines

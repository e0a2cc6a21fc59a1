"""What people read: the same bytes for the same records, intervals and fronts by hand."""

import io
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
from scipy import stats

from orchestrator.artifacts import Artifacts
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.figures import heat_maps
from orchestrator.records import Scalar, Status, TrialRecord
from orchestrator.report import csv, note, pareto_front, parquet, report_files, results_table, summary_table
from tests import tiny

MSE = "inversion/mse_test"


def record(
    index: int,
    axes: Mapping[str, Scalar],
    metrics: Mapping[str, float] | None = None,
    status: Status = "finished",
    **more: Any,
) -> TrialRecord:
    """Return one ended trial."""
    name = f"{index:04d}"
    return TrialRecord(
        key=name, index=index, name=name, params={}, axes=axes, status=status, metrics=metrics or {}, **more
    )


def grid(values: Mapping[tuple[Scalar, Scalar], list[float]]) -> list[TrialRecord]:
    """Return trials over m, k and seeds."""
    rows = [((m, k), seed, value) for (m, k), seeds in values.items() for seed, value in enumerate(seeds)]
    return [
        record(index, {"m": m, "k": k, "seed": seed}, {MSE: value})
        for index, ((m, k), seed, value) in enumerate(rows)
    ]


FAILED = record(2, {"m": 5}, status="failed", failed_stage="inversion", error='ValueError: a "b", c')
THREE = [record(0, {"m": 1}, {MSE: 1 / 3}), record(1, {"m": "all"}, {MSE: 2e-9}), FAILED]


def test_the_results_are_these_bytes_in_whatever_order_trials_ended() -> None:
    expected = (
        "trial,m,status,inversion/mse_test,failed_stage,error\n"
        "0000,1,finished,0.333333,,\n"
        "0001,all,finished,2e-09,,\n"
        '0002,5,failed,,inversion,"ValueError: a ""b"", c"\n'
    )
    assert csv(results_table(THREE)).decode() == expected
    assert csv(results_table(THREE[::-1])).decode() == expected


def test_a_failed_trial_shows_no_metrics_and_comes_first_without_harm() -> None:
    first = record(0, {"m": 1}, {"target/accuracy": 0.5}, status="failed", failed_stage="judge", error="x")
    table = results_table([first, record(1, {"m": 2}, {MSE: 0.25})])
    assert list(table.columns) == ["trial", "m", "status", MSE, "failed_stage", "error"]
    assert csv(table).decode().splitlines()[1:] == ["0000,1,failed,,judge,x", "0001,2,finished,0.25,,"]


def test_parquet_holds_the_same_table_with_mixed_axes_as_text() -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(parquet(results_table(THREE)))).to_pandas()
    assert list(table["m"]) == ["1", "all", "5"]
    assert list(table["status"]) == ["finished", "finished", "failed"]
    assert table[MSE][0] == 1 / 3


def test_summary_over_seeds_by_hand() -> None:
    records = [
        *grid({(1, 5): [0.1, 0.2, 0.6], (3, 5): [0.5]}),
        record(9, {"m": 3, "k": 5, "seed": 1}, {}, "failed"),
    ]
    table = summary_table(records, [MSE])
    assert table[["m", "k", "seeds"]].to_numpy().tolist() == [[1, 5, 3], [3, 5, 1]]
    assert table[MSE].tolist() == pytest.approx([0.3, 0.5])
    deviation = math.sqrt(((0.2) ** 2 + 0.1**2 + 0.3**2) / 2)
    assert table[f"{MSE} +-"][0] == pytest.approx(4.302652729911275 * deviation / math.sqrt(3))
    assert stats.t.ppf(0.975, 2) == pytest.approx(4.302652729911275)  # printed in every table of Student's t
    assert math.isnan(table[f"{MSE} +-"][1])


def test_a_metric_that_is_missing_is_empty_not_zero() -> None:
    table = summary_table([record(0, {"m": 1}, {MSE: 0.1})], ["attack/accuracy_top5_test"])
    assert math.isnan(table["attack/accuracy_top5_test"][0])


def test_one_heat_map_for_each_pair_of_swept_axes() -> None:
    records = [
        record(i, {"m": m, "k": k, "auxiliary.size": size, "seed": seed, "align": True}, {MSE: i / 10})
        for i, (m, k, size, seed) in enumerate(
            (m, k, size, seed) for m in (1, "all") for k in (3, 5) for size in (10, 20) for seed in (0, 1)
        )
    ]
    maps = heat_maps(records, MSE)
    assert set(maps) == {
        "heatmap-m-k.png",
        "heatmap-m-auxiliary-size.png",
        "heatmap-k-auxiliary-size.png",
    }  # not seed, not an axis of one value
    assert all(image.startswith(b"\x89PNG") for image in maps.values())
    assert heat_maps(records[::-1], MSE).keys() == maps.keys()
    assert heat_maps(records, MSE) == maps
    assert heat_maps([FAILED], MSE) == {}
    assert heat_maps(records, "no/such") == {}


def test_pareto_front_by_hand() -> None:
    values = {0: (1.0, 0.9), 1: (2.0, 0.95), 2: (2.0, 0.9), 3: (0.5, 0.1), 4: (1.0, 0.9), 5: (3.0, 0.5)}
    records = [record(i, {"m": i}, {"a": a, "b": b}) for i, (a, b) in values.items()]
    records += [record(6, {"m": 6}, {"a": 0.0}), record(7, {"m": 7}, {"a": 0.0, "b": 1.0}, "failed")]
    front = pareto_front(records, {"a": "minimize", "b": "maximize"})
    assert [one.index for one in front] == [0, 1, 3, 4]  # equals do not beat each other
    assert [one.index for one in pareto_front(records[:6], {"a": "minimize"})] == [3]


def test_a_report_has_its_files_and_repeats_byte_for_byte() -> None:
    objectives = {MSE: "minimize", "target/accuracy": "maximize"}
    axes = {"release.truncation": [1, 2], "target.classes": [2, 3]}
    study = tiny.study(axes, search={"objectives": objectives})
    records = [
        record(i, {"m": m, "k": k}, {MSE: i / 10, "target/accuracy": 0.5})
        for i, (m, k) in enumerate([(1, 2), (1, 3), (2, 3)])
    ]
    files = report_files(study, records, Artifacts(MemoryBlobs("memory")))
    assert {name for name in files if not name.startswith("heatmap")} == {
        "results.csv",
        "results.parquet",
        "summary.csv",
        "study.yaml",
        "pareto.csv",
    }
    assert files == report_files(study, records[::-1], Artifacts(MemoryBlobs("memory")))
    assert pd.read_csv(io.BytesIO(files["pareto.csv"]))["trial"].tolist() == [0]


def test_a_sweep_in_which_everything_failed_still_has_tables() -> None:
    study = tiny.study({"release.truncation": [5]}, report={"rows": ["m"]})
    files = report_files(study, [FAILED], Artifacts(MemoryBlobs("memory")))
    assert set(files) == {"results.csv", "results.parquet", "summary.csv", "study.yaml"}
    assert b"inversion" in files["results.csv"]


def test_the_note_names_axes_the_best_point_and_failures() -> None:
    study = tiny.study({"release.truncation": [1, None, 5]}, about="How much a score says.")
    text = note(study, THREE)
    assert "**tiny**: How much a score says." in text
    assert "| m | 1, all, 5 |" in text
    assert "Best `inversion/mse_test`: 2e-09 in `0001`." in text
    assert '- failed: `0002` in inversion: ValueError: a "b", c' in text

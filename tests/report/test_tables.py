"""Report files: the same bytes for the same records, intervals and fronts by hand."""

import io
import math

import pandas as pd
import pyarrow.parquet
import pytest
from scipy import stats

from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.pareto import pareto_front
from orchestrator.report.tables import (
    csv,
    latex,
    note,
    parquet,
    report_files,
    results_table,
    summary_table,
    with_reasons,
)
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import FAILED, MSE, grid, record

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
    records: list[TrialRecord] = [
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


def test_every_seed_repeats_a_setting_in_every_table() -> None:
    seeds = ("target.seed", "attack.seed", "judge.seed", "evaluation.seed", "auxiliary.seed")
    for axis in seeds:
        records = [record(i, {"m": 1, axis: i}, {MSE: float(i)}) for i in range(3)]
        table = summary_table(records, [MSE])
        assert table[["m", "seeds", MSE]].to_numpy().tolist() == [[1, 3, 1.0]]


def test_the_summary_averages_over_the_replicates_that_the_study_names() -> None:
    records = [record(i, {"m": 1, "data.split": s, "seed": 0}, {MSE: float(i)}) for i, s in enumerate("abc")]
    assert len(summary_table(records, [MSE])) == 3
    table = summary_table(records, [MSE], Report(replicates=("data.split", "seed")))
    assert table[["m", "seeds", MSE]].to_numpy().tolist() == [[1, 3, 1.0]]
    assert table[f"{MSE} +-"].tolist() == pytest.approx([4.302652729911275 / math.sqrt(3)])


def test_a_metric_that_is_missing_is_empty_not_zero() -> None:
    table = summary_table([record(0, {"m": 1}, {MSE: 0.1})], ["attack/accuracy_top5_test"])
    assert math.isnan(table["attack/accuracy_top5_test"][0])


def test_a_metric_that_no_trial_has_says_why_in_its_column() -> None:
    metrics = [
        MSE,
        "attack/accuracy_top5_test",
        "attack/fid_test",
        "attack/queries",
        "attack/lpips_alex_test",
    ]
    half = [record(0, {"m": 1}, {MSE: 0.1}), record(1, {"m": 2}, {"attack/queries": 7.0})]
    table = with_reasons(summary_table(half, metrics), metrics)
    assert table["attack/accuracy_top5_test"].tolist() == ["not measured"] * 2
    assert table["attack/fid_test"].tolist() == ["needs evaluation.networks.inception"] * 2
    assert table["attack/lpips_alex_test"].tolist() == ["needs evaluation.networks.alex"] * 2
    assert table[MSE].isna().tolist() == [False, True]  # some trial has it
    assert csv(table[["m", "attack/queries", "attack/fid_test"]]).decode().splitlines()[1:] == [
        "1,,needs evaluation.networks.inception",
        "2,7,needs evaluation.networks.inception",
    ]
    assert rb"1 & not measured \\" in latex(table[["m", "attack/accuracy_top5_test"]])
    study = tiny.study({"release.truncation": [1]}, report={"metrics": metrics[:3]})
    files = report_files(study, half[:1], Artifacts(MemoryBlobs("memory")))
    assert b"needs evaluation.networks.inception" in files["summary.csv"]
    assert b"evaluation.networks" not in files["results.csv"]


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
    records: list[TrialRecord] = [
        record(i, {"m": m, "k": k}, {MSE: i / 10, "target/accuracy": 0.5})
        for i, (m, k) in enumerate([(1, 2), (1, 3), (2, 3)])
    ]
    files = report_files(study, records, Artifacts(MemoryBlobs("memory")))
    assert {name for name in files if not name.startswith("heatmap")} == {
        "results.csv",
        "results.parquet",
        "summary.csv",
        "summary.tex",
        "study.yaml",
        "note.md",
        "pareto.csv",
        "importance.csv",
        "report.html",
    }
    assert files == report_files(study, records[::-1], Artifacts(MemoryBlobs("memory")))
    assert pd.read_csv(io.BytesIO(files["pareto.csv"]))["trial"].tolist() == [0]


def test_a_sweep_in_which_everything_failed_still_has_tables() -> None:
    study = tiny.study({"release.truncation": [5]}, report={"rows": ["m"]})
    files = report_files(study, [FAILED], Artifacts(MemoryBlobs("memory")))
    assert set(files) == {
        "results.csv",
        "results.parquet",
        "summary.csv",
        "study.yaml",
        "note.md",
        "report.html",
    }
    assert b"inversion" in files["results.csv"]


def test_the_note_names_axes_the_best_point_and_failures() -> None:
    study = tiny.study({"release.truncation": [1, None, 5]}, about="How much a score says.")
    text = note(study, THREE, ["**m=5** leaks most."], ["the costs could not be made"])
    assert "**tiny**: How much a score says." in text
    assert "| m | 1, all, 5 |" in text
    assert text.startswith("1. **m=5** leaks most.\n")  # MLflow's pages hide all but the first lines
    assert "- **not in this report**: the costs could not be made" in text
    assert '- failed: `0002` in inversion: ValueError: a "b", c' in text


def test_latex_is_escaped_and_merges_means_with_their_intervals() -> None:
    table = pd.DataFrame(
        [
            {"auxiliary": "a_b & 5%", "k": 3, "mse": 0.25, "mse +-": 0.0123456, "note": "x < y \\ {z} #$~^"},
            {"auxiliary": "[c]", "k": 5, "mse": 1.5e-7, "mse +-": math.nan, "note": ""},
            {"auxiliary": "none", "k": 5, "mse": math.nan, "mse +-": math.nan, "note": ""},
        ]
    )
    assert latex(table).decode().splitlines() == [
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"auxiliary & k & mse & note \\",
        r"\midrule",
        r"a\_b \& 5\% & 3 & $0.25 \pm 0.01235$ & x \textless{} y \textbackslash{} \{z\} \#\$\textasciitilde{}"
        r"\textasciicircum{} \\",
        r"{[}c] & 5 & $1.5 \cdot 10^{-7}$ &  \\",
        r"none & 5 &  &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert rb"$-\infty$" in latex(pd.DataFrame([{"x": -math.inf}]))

"""What people read: the same bytes for the same records, intervals and fronts by hand."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from scipy import stats

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.comparison import comparison_table, orderings_table
from orchestrator.report.heatmaps import heat_maps
from orchestrator.report.settings import is_same
from orchestrator.report.tables import (
    csv,
    latex,
    note,
    pareto_front,
    parquet,
    report_files,
    results_table,
    summary_table,
    with_reasons,
)
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import Status, TrialRecord
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


def grid(values: Mapping[Any, list[float]]) -> list[TrialRecord]:
    """Return trials over seeds, of (m, k) -> a value for each seed."""
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


def test_one_heat_map_for_each_pair_of_swept_axes() -> None:
    records: list[TrialRecord] = [
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


def test_values_of_a_study_are_those_of_trials_as_text_numbers_or_booleans() -> None:
    same = [(True, "true"), ("True", "true"), (5, "5"), (1, 1.0), ("1e-3", 0.001), ("all", "all")]
    assert all(is_same(one, other) for one, other in same)
    assert not any(is_same(one, other) for one, other in [(True, 1), ("all", 5), ("-", False)])


def printed(where: Mapping[str, Scalar], **more: Any) -> dict[str, Any]:
    """Return a printed number as a study writes it."""
    return {"source": "AMI, Table II", "label": "row", "metric": MSE, "value": 0.5, "where": where, **more}


def compared(records: Sequence[TrialRecord], *entries: dict[str, Any]) -> list[dict[Any, Any]]:
    """Return the rows of the table of printed numbers."""
    study = tiny.study({"seed": [0]}, report={"printed": entries})
    return comparison_table(study, records).to_dict("records")


def test_ours_stands_beside_what_a_paper_prints() -> None:
    records = [*grid({(1, 5): [0.1, 0.2, 0.6], ("all", 5): [0.5]}), record(9, {"m": 1, "k": 5}, {}, "failed")]
    first, second = compared(records, printed({"m": 1}, note="per pixel?"), printed({"m": "all", "k": "5"}))
    assert (first["source"], first["label"], first["metric"]) == ("AMI, Table II", "row", MSE)
    assert (first["printed"], first["seeds"], first["note"]) == (0.5, 3, "per pixel?")
    assert first["ours"] == pytest.approx(0.3)
    assert first["difference"] == pytest.approx(-0.2)
    assert first["ours +-"] == pytest.approx(4.302652729911275 * stats.sem([0.1, 0.2, 0.6]))
    assert (second["ours"], second["seeds"]) == (0.5, 1)
    assert math.isnan(second["ours +-"])


@pytest.mark.parametrize(
    ("where", "more", "note"),
    [
        ({"m": 7}, {"note": "theirs"}, "theirs; no finished trial has m=7"),
        ({"m": 3, "k": 5}, {}, "no finished trial has m=3, k=5"),
        ({"m": 3}, {"metric": "target/accuracy"}, "target/accuracy was not measured"),
    ],
)
def test_a_printed_number_that_no_trial_answers_says_so(
    where: dict[str, Scalar], more: dict[str, Any], note: str
) -> None:
    (row,) = compared(grid({(1, 5): [0.1], (3, 3): [0.2]}), printed(where, **more))
    assert (row["seeds"], row["note"]) == (0, note)
    assert math.isnan(row["ours"])


def test_a_printed_number_over_several_settings_says_so_and_absent_axes_do_not_fit() -> None:
    records = grid({(1, 5): [0.1, 0.2], (3, 5): [0.3]})
    (row,) = compared(records, printed({"k": 5}))
    assert (row["seeds"], row["note"]) == (3, "mean of 2 settings; narrow where")
    other = record(9, {"m": "-", "k": 5, "seed": 0}, {MSE: 0.9})
    (row,) = compared([*records, other], printed({"m": 1}))
    assert row["ours"] == pytest.approx(0.15)


def ordering(axis: str, order: Sequence[Scalar], **more: Any) -> dict[str, Any]:
    """Return a claimed order as a study writes it."""
    claim = {"claim": f"more {axis} leaks more", "source": "AMI, Figure 7", "metric": MSE}
    return {**claim, "axis": axis, "order": order, **more}


def ordered(
    records: Sequence[TrialRecord], *entries: dict[str, Any], store: Artifacts | None = None
) -> list[dict[Any, Any]]:
    """Return the rows of the table of orders."""
    study = tiny.study({"seed": [0]}, report={"orderings": entries})
    return orderings_table(study, records, store or Artifacts(MemoryBlobs("memory"))).to_dict("records")


def test_neighbours_are_paired_by_seed_and_setting_and_signed_as_claimed() -> None:
    cells = {
        (1, 3): [0.4, 0.5],
        (3, 3): [0.3, 0.4],
        (5, 3): [0.3, 0.4],
        (1, 5): [0.1, 0.2],
        (3, 5): [0.2, 0.4],
    }
    rows = ordered(grid(cells)[::-1], ordering("m", [1, "3", 5]))
    found = [
        (r["lower"], r["upper"], r["setting"], r["seeds"], r["seeds_agreeing"], r["verdict"]) for r in rows
    ]
    assert found == [
        ("1", "3", "k=3", 2, 2, "holds"),  # errors fall by 0.1 in both seeds: less error leaks more
        ("1", "3", "k=5", 2, 0, "not shown"),
        ("3", "5", "", 2, 0, "equal"),  # no difference
    ]
    assert [r["difference"] for r in rows] == pytest.approx([0.1, -0.15, 0.0])
    assert rows[0]["low"] == pytest.approx(rows[0]["high"])
    assert [r["resampled"] for r in rows] == ["seeds"] * 3
    assert rows[0]["survives_holm"] == "yes"
    assert rows[1]["p_holm"] == pytest.approx(2 * 2 * stats.t.sf(3.0, 1))  # the second smallest of three
    ((row),) = ordered(grid(cells), ordering("m", [1, 3], where={"k": 5}, metric=MSE))
    assert row["setting"] == "k=5"


def test_a_metric_that_leaks_upwards_or_is_utility_keeps_its_sign() -> None:
    for metric in ("inversion/ssim_test", "target/accuracy", "class/judge_top1"):
        records = [
            record(i, {"m": m, "seed": s}, {metric: m / 10}) for i, (m, s) in enumerate([(1, 0), (3, 0)])
        ]
        (row,) = ordered(records, ordering("m", [1, 3], metric=metric))
        assert row["difference"] == pytest.approx(0.2)
        assert (row["verdict"], row["note"]) == (
            "not shown",
            "one seed: no interval",
        )


def with_images(
    store: Artifacts, index: int, axes: Mapping[str, Scalar], by_class: Sequence[float], part: str = "test"
) -> TrialRecord:
    """Publish an error for two images of each class and return the trial."""
    rows = [(label, value + extra) for label, value in enumerate(by_class) for extra in (-0.01, 0.01)]
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows, dtype=[("label", np.int32), ("mse", np.float32)]))
    key = f"evaluation{index}"
    store.publish(Artifact(key, "evaluation", 1, {}), {f"per_image_{part}.npy": buffer.getvalue()})
    return record(index, axes, {MSE: float(np.mean(by_class))}, stage_keys={"evaluation": key})


def test_values_by_image_are_compared_class_by_class() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    records: list[TrialRecord] = [
        with_images(store, 0, {"k": 2, "seed": 0}, [0.5, 0.4]),
        with_images(store, 1, {"k": 3, "seed": 0}, [0.3, 0.3, 9.0]),  # the third class has no partner
        with_images(store, 2, {"k": 2, "seed": 1}, [0.6, 0.5]),
        with_images(store, 3, {"k": 3, "seed": 1}, [0.3, 0.3, 9.0]),
    ]
    (row,) = ordered(records, ordering("k", [2, 3]), store=store)
    assert row["difference"] == pytest.approx((0.2 + 0.1 + 0.3 + 0.2) / 4, abs=1e-6)
    # 0.1 and 0.3 are drawn with 1/64 each, less often than a fortieth; the next means are 0.025 further in.
    assert (row["low"], row["high"]) == (pytest.approx(0.125, abs=1e-6), pytest.approx(0.275, abs=1e-6))
    assert (row["verdict"], row["resampled"], row["survives_holm"]) == ("holds", "classes and seeds", "yes")
    (row,) = ordered(records[:2], ordering("k", [2, 3]), store=store)
    assert (row["seeds"], row["note"]) == (1, "one seed: only classes are resampled")
    (row,) = ordered(records, ordering("k", [3, 2]), store=store)
    assert row["verdict"] == "reversed"
    half = [*records[:3], record(3, {"k": 3, "seed": 1}, {MSE: 0.2})]  # one trial kept nothing by image
    (row,) = ordered(half, ordering("k", [2, 3]), store=store)
    assert row["resampled"] == "seeds"


def test_an_axis_that_one_attack_does_not_have_pairs_with_each_of_its_values() -> None:
    axes: list[tuple[str, Scalar]] = [("mia", "-"), ("inverter", False), ("inverter", True)]
    records: list[TrialRecord] = [
        record(i, {"attack.name": name, "align": align, "seed": 0}, {MSE: 0.9 - i / 10})
        for i, (name, align) in enumerate(axes)
    ]
    rows = ordered(records, ordering("attack.name", ["mia", "inverter"]))
    assert [(row["setting"], row["difference"]) for row in rows] == [
        ("align=False", pytest.approx(0.1)),
        ("align=True", pytest.approx(0.2)),
    ]
    (row,) = ordered(records, ordering("attack.name", ["mia", "inverter"], where={"align": "true"}))
    assert row["setting"] == "align=True"
    (row,) = ordered(records, ordering("align", [False, True]))
    assert row["difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        (ordering("m", [1, 7]), "no finished trial has m=7"),
        (ordering("m", [1, 3], where={"k": 9}), "no finished trial has k=9"),
        (ordering("m", [1, 3], metric="target/accuracy"), "target/accuracy was not measured"),
        (ordering("m", [1, 3], where={"k": 5}), "no two finished trials differ in this axis only"),
    ],
)
def test_an_order_that_no_trial_answers_says_so(entry: dict[str, Any], note: str) -> None:
    (row,) = ordered(grid({(1, 5): [0.1], (3, 3): [0.2]}), entry)
    assert (row["verdict"], row["seeds"], row["note"], row["survives_holm"]) == ("no trials", 0, note, "")
    (row,) = ordered([], ordering("m", [1, 3]))
    assert row["note"] == "no finished trial has m=1"


def test_tables_that_compare_are_made_where_the_study_asks() -> None:
    axes = {"release.truncation": [1, 3], "seed": [0, 1]}
    asked = {"printed": [printed({"m": 1})], "orderings": [ordering("m", [1, 3])]}
    study = tiny.study(axes, report=asked)
    records = grid({(1, 5): [0.4, 0.5], (3, 5): [0.2, 0.2]})
    store = Artifacts(MemoryBlobs("memory"))
    files = report_files(study, records, store)
    assert {"comparison.csv", "comparison.tex", "orderings.csv", "orderings.tex"} <= files.keys()
    assert files == report_files(study, records[::-1], store)
    assert files["comparison.csv"].decode().splitlines()[0] == (
        "source,label,metric,printed,ours,ours +-,difference,seeds,note"
    )
    assert files["orderings.csv"].decode().splitlines()[0] == (
        "claim,source,metric,axis,lower,upper,setting,difference,low,high,seeds_agreeing,seeds,p_holm,"
        "survives_holm,verdict,resampled,note"
    )
    assert not [name for name in report_files(tiny.study(axes), records, store) if "orderings" in name]


def test_only_pairs_of_axes_whose_cells_share_a_setting_have_a_map() -> None:
    axes: list[dict[str, Scalar]] = [
        {"m": 1, "attack": "inverter", "align": True},
        {"m": 1, "attack": "inverter", "align": False},
        {"m": 1, "attack": "mia", "align": "-"},
        {"m": 2, "attack": "inverter", "align": True},
    ]
    records = [record(index, one, {MSE: 0.1 * index}) for index, one in enumerate(axes)]
    assert list(heat_maps(records, MSE)) == ["heatmap-attack-align.png"]  # both have m = 1

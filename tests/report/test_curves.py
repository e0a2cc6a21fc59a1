"""Curves, histograms and costs: tables by hand, pictures that repeat, and what is left out."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from orchestrator.config.base import Scalar
from orchestrator.config.report import Costs, Histogram, RobustnessCurve
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.curves import costs_table, curve_table, draw_curve, draw_histogram, histogram_table
from orchestrator.report.per_image import PerImage
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.test_delta import with_classes
from tests.report.trials import record

X, Y = "target/accuracy", "attack/accuracy_top1_test"
VALUE, SUCCESS = "class/target_confidence", "class/judge_top1"
CURVE = RobustnessCurve(name="budgets", line="budget", points="epoch")
HISTOGRAM = Histogram(name="confidence", panels="budget")


@pytest.fixture
def store() -> Artifacts:
    """Return an empty store."""
    return Artifacts(MemoryBlobs("memory"))


def training(num_seeds: int = 3, **more: Scalar) -> list[TrialRecord]:
    """Return targets of two budgets at three epochs: both accuracies grow, frozen layers leak less."""
    records: list[TrialRecord] = []
    for budget, lost in (("full", 0.0), ("block1", 0.1)):
        for epoch in (1, 2, 4):
            for seed in range(num_seeds):
                axes: dict[str, Scalar] = {"budget": budget, "epoch": epoch, "seed": seed, **more}
                metrics = {X: 0.5 + 0.1 * epoch - lost - 0.01 * seed, Y: 0.2 * epoch - 2 * lost + 0.02 * seed}
                records.append(record(len(records), axes, metrics))
    return records


def test_a_point_is_the_mean_over_seeds_with_its_interval() -> None:
    table = curve_table(CURVE, training()[::-1])
    assert table[["budget", "epoch", "seeds"]].to_numpy().tolist() == [
        ["full", 1, 3],
        ["full", 2, 3],
        ["full", 4, 3],
        ["block1", 1, 3],
        ["block1", 2, 3],
        ["block1", 4, 3],
    ]
    assert table[X].tolist() == pytest.approx([0.59, 0.69, 0.89, 0.49, 0.59, 0.79])
    assert table[Y].tolist() == pytest.approx([0.22, 0.42, 0.82, 0.02, 0.22, 0.62])
    t = stats.t.ppf(0.975, 2)
    assert table[f"{X} +-"].tolist() == pytest.approx([t * 0.01 / math.sqrt(3)] * 6)
    assert table[f"{Y} +-"].tolist() == pytest.approx([t * 0.02 / math.sqrt(3)] * 6)


def test_bars_span_classes_where_values_by_image_are_kept(store: Artifacts) -> None:
    records = []
    for seed in (0, 1, 2):
        one = with_classes(
            store, seed, {"budget": "full", "epoch": 1, "seed": seed}, [0, 0.5, 1], [0.25, 0.5]
        )
        records.append(one)
    table = curve_table(CURVE, records, PerImage(store))
    assert table[f"{Y} +-"].tolist() == pytest.approx([stats.t.ppf(0.975, 2) * 0.5 / math.sqrt(3)])
    assert table[f"{X} +-"].tolist() == pytest.approx([stats.t.ppf(0.975, 1) * 0.125])
    assert curve_table(CURVE, records)[f"{Y} +-"].tolist() == [0.0]  # seeds agree


def test_other_axes_take_the_first_value_unless_they_are_asked_for() -> None:
    records = training(2, m=1) + [record(100 + r.index, r.axes, {X: 0.0, Y: 0.0}) for r in training(2, m=3)]
    assert curve_table(CURVE, records)["m"].unique().tolist() == [1]
    asked = CURVE.model_copy(update={"where": {"m": 3}})
    assert curve_table(asked, records)[X].tolist() == [0.0] * 6
    every = RobustnessCurve(name="all", line="budget")
    table = curve_table(every, records)
    assert list(table.columns[:3]) == ["budget", "epoch", "m"]
    assert len(table) == 12
    drawn = draw_curve(every, table)
    assert drawn != draw_curve(CURVE, curve_table(CURVE, records))


def test_trials_without_both_metrics_are_no_points() -> None:
    half = [record(0, {"budget": "full", "epoch": 1}, {X: 0.5}), *training(1)[3:]]
    assert curve_table(CURVE, half)["budget"].unique().tolist() == ["block1"]
    assert curve_table(CURVE, half[:1]).empty
    assert curve_table(CURVE.model_copy(update={"line": "no"}), training()).empty


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_curve_is_drawn_and_repeats_byte_for_byte(num_seeds: int) -> None:
    records = training(num_seeds)
    first, again = (draw_curve(CURVE, curve_table(CURVE, rs)) for rs in (records, records[::-1]))
    assert first == again
    pixels = plt.imread(io.BytesIO(first))
    assert pixels.shape[:2] == (576, 768)
    assert pixels.std() > 0.05


def judged(
    store: Artifacts, index: int, axes: Mapping[str, Scalar], values: Sequence[float], won: Sequence[float]
) -> TrialRecord:
    """Publish scores of the classes' images and whether the judge accepts them; return the trial."""
    rows = [
        (label, value, float(is_won)) for label, (value, is_won) in enumerate(zip(values, won, strict=True))
    ]
    fields = [("label", np.int32), ("target_confidence", np.float32), ("judge_top1", np.float32)]
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows, dtype=fields))
    key = f"evaluation{index}"
    store.publish(Artifact(key, "evaluation", 1, {}), {"per_image_class.npy": buffer.getvalue()})
    return record(index, axes, {VALUE: float(np.mean(values))}, stage_keys={"evaluation": key})


def attacks(store: Artifacts) -> list[TrialRecord]:
    """Return two budgets of two seeds."""
    return [
        judged(store, 0, {"budget": "full", "m": 1, "seed": 0}, [1.0, 0.99, 0.52], [1, 1, 0]),
        judged(store, 1, {"budget": "full", "m": 1, "seed": 1}, [0.97, 0.01, 0.98], [1, 1, 0]),
        judged(store, 2, {"budget": "block1", "m": 1, "seed": 0}, [0.0, 0.96], [0, 0]),
        judged(store, 3, {"budget": "full", "m": 3, "seed": 0}, [0.3], [1]),
    ]


def test_images_of_all_seeds_are_counted_by_bin(store: Artifacts) -> None:
    table = histogram_table(HISTOGRAM, attacks(store)[::-1], PerImage(store))
    assert list(table.columns) == ["budget", "m", "low", "high", "successful", "failed"]
    assert len(table) == 2 * 20
    counted = table[(table["successful"] > 0) | (table["failed"] > 0)]
    rows = counted[["budget", "low", "successful", "failed"]].round(2).to_numpy().tolist()
    assert rows == [
        ["full", 0.0, 1, 0],
        ["full", 0.5, 0, 1],
        ["full", 0.95, 3, 1],  # 1.0 is in the last bin
        ["block1", 0.0, 0, 1],
        ["block1", 0.95, 0, 1],
    ]
    assert table["m"].unique().tolist() == [1]
    asked = HISTOGRAM.model_copy(update={"where": {"m": 3}})
    assert histogram_table(asked, attacks(store), PerImage(store))["successful"].sum() == 1


def test_images_without_a_value_or_without_a_judgement_are_not_counted(store: Artifacts) -> None:
    values, won = [0.2, 0.3, math.nan, 0.4], [1, math.nan, 1, 0]
    table = histogram_table(HISTOGRAM, [judged(store, 0, {"budget": "full"}, values, won)], PerImage(store))
    assert table[["successful", "failed"]].sum().tolist() == [1, 1]


def test_values_that_are_no_shares_have_bins_where_they_are(store: Artifacts) -> None:
    rows = np.array([(0, 0.01, 1), (1, 0.03, 0)], [("label", "i4"), ("mse_mean", "f4"), ("judge_top1", "f4")])
    buffer = io.BytesIO()
    np.save(buffer, rows)
    store.publish(Artifact("evaluation", "evaluation", 1, {}), {"per_image_class.npy": buffer.getvalue()})
    one = record(0, {"budget": "full"}, stage_keys={"evaluation": "evaluation"})
    table = histogram_table(HISTOGRAM.model_copy(update={"value": "class/mse_mean"}), [one], PerImage(store))
    assert (table["low"].min(), table["high"].max()) == (pytest.approx(0.01), pytest.approx(0.03))
    assert table[["successful", "failed"]].sum().tolist() == [1, 1]


def test_a_histogram_is_drawn_and_repeats_byte_for_byte(store: Artifacts) -> None:
    records = attacks(store)
    first, again = (
        draw_histogram(HISTOGRAM, histogram_table(HISTOGRAM, rs, PerImage(store)))
        for rs in (records, records[::-1])
    )
    assert first == again
    assert plt.imread(io.BytesIO(first)).std() > 0.05


def test_a_histogram_marks_panels_of_held_images(store: Artifacts) -> None:
    records = attacks(store)
    first = records[0].axes[HISTOGRAM.panels]
    marked = [replace(one, held=["class"]) if one.axes[HISTOGRAM.panels] == first else one for one in records]
    table = histogram_table(HISTOGRAM, marked, PerImage(store))
    assert set(table["held"][table[HISTOGRAM.panels] == first]) == {"class"}
    assert set(table["held"][table[HISTOGRAM.panels] != first]) <= {""}
    plain = histogram_table(HISTOGRAM, records, PerImage(store))
    assert "held" not in plain
    pd.testing.assert_frame_equal(table.drop(columns="held"), plain)
    assert draw_histogram(HISTOGRAM, table) != draw_histogram(HISTOGRAM, plain)


def test_trials_that_kept_nothing_by_image_have_no_histogram(store: Artifacts) -> None:
    assert histogram_table(HISTOGRAM, training(), PerImage(store)).empty
    trials = attacks(store)
    assert histogram_table(
        HISTOGRAM.model_copy(update={"success": "class/judge_top5"}), trials, PerImage(store)
    ).empty


def timed(
    store: Artifacts, records: Sequence[TrialRecord], seconds: Mapping[str, float]
) -> list[TrialRecord]:
    """Publish a target stage for each key and return the trials that share them: (budget, seed) has one."""
    found = []
    for one in records:
        key = f"target-{one.axes['model']}-{one.axes['budget']}-{one.axes['seed']}"
        wall = seconds[f"{one.axes['model']} {one.axes['budget']}"] + float(one.axes["seed"])
        cost = {"wall_seconds": wall, "cpu_seconds": 2 * wall}
        store.publish(Artifact(key, "target", 1, {}, cost=cost), {})
        found.append(record(one.index, one.axes, stage_keys={"target": key}))
    return found


def test_costs_are_means_over_runs_of_the_stage_and_ratios_at_the_same_other_axes(store: Artifacts) -> None:
    cells = [("vgg", "full"), ("vgg", "block1"), ("ir", "full"), ("ir", "block1"), ("ir", "block2")]
    axes: list[dict[str, Scalar]] = [
        {"model": model, "budget": budget, "m": m, "seed": seed}
        for model, budget in cells
        for m in (1, 3)  # the attack's: both trials share the target, which counts once
        for seed in (0, 1)
    ]
    seconds = {"vgg full": 9.5, "vgg block1": 6.5, "ir full": 99.5, "ir block1": 49.5, "ir block2": 9.5}
    records = timed(store, [record(i, one) for i, one in enumerate(axes)], seconds)
    table = costs_table(Costs(reference={"budget": "full"}), records, store)
    kinds = [f"{kind}_{name}" for kind in ("wall", "cpu") for name in ("seconds", "seconds +-", "ratio")]
    assert list(table.columns) == ["model", "budget", "runs", *kinds, "note"]
    assert table[["model", "budget", "runs"]].to_numpy().tolist() == [[*cell, 2] for cell in cells]
    assert table["wall_seconds"].tolist() == [10, 7, 100, 50, 10]
    assert table["cpu_seconds"].tolist() == [20, 14, 200, 100, 20]
    assert table["wall_ratio"].tolist() == table["cpu_ratio"].tolist() == [1, 0.7, 1, 0.5, 0.1]
    assert table["wall_seconds +-"].tolist() == pytest.approx([stats.t.ppf(0.975, 1) * 0.5] * 5)
    lone = [one for one in records if one.axes["budget"] != "full" or one.axes["model"] == "ir"]
    table = costs_table(Costs(reference={"budget": "full"}), lone, store)
    assert math.isnan(table["wall_ratio"][0])
    assert table["note"].tolist() == ["no such reference with the same other axes", "", "", ""]


def test_an_axis_that_matters_to_some_settings_only_still_tells_them_apart(store: Artifacts) -> None:
    keys = {("full", "weights"): "a1", ("full", "statistics"): "a1"}  # nothing is frozen: one stage for both
    keys |= {("block1", "weights"): "b1", ("block1", "statistics"): "b2"}
    records = []
    for index, ((budget, freeze), key) in enumerate(keys.items()):
        store.publish(Artifact(key, "target", 1, {}, cost={"wall_seconds": 4.0 / (index + 1)}), {})
        axes = {"budget": budget, "freeze": freeze}
        records.append(record(index, axes, stage_keys={"target": key}))
    table = costs_table(Costs(reference={"budget": "full"}), records, store)
    assert table[["budget", "freeze"]].to_numpy().tolist() == [list(cell) for cell in keys]
    assert table["wall_ratio"].tolist() == pytest.approx([1, 1, 1 / 3, 1 / 4])
    assert table["cpu_seconds"].isna().all()


def study_of(**report: Any) -> Any:
    """Return the tiny study with a report."""
    return tiny.study({"target.budget": ["full", "block1"], "seed": [0]}, report=report)


def test_the_report_has_the_files_and_repeats_them(store: Artifacts) -> None:
    records = attacks(store)[:3] + [
        record(10 + one.index, {**one.axes, "m": 1}, one.metrics, stage_keys={"target": "t1"})
        for one in training(1)
    ]
    store.publish(Artifact("t1", "target", 1, {}, cost={"wall_seconds": 1.5}), {})
    study = study_of(
        curves=[CURVE.model_dump()],
        histograms=[HISTOGRAM.model_dump()],
        costs={"reference": {"budget": "full"}},
    )
    files = report_files(study, records, store)
    assert {
        "curve-budgets.png",
        "curve-budgets.csv",
        "histogram-confidence.png",
        "histogram-confidence.csv",
        "costs.csv",
        "costs.tex",
    } <= files.keys()
    assert files == report_files(study, records[::-1], store)
    assert b"seconds" not in files["results.csv"]
    assert b"note" not in files["costs.tex"]
    curve = pd.read_csv(io.BytesIO(files["curve-budgets.csv"]))
    assert curve[X].tolist() == pytest.approx([0.6, 0.7, 0.9, 0.5, 0.6, 0.8])


def test_a_figure_of_nothing_is_left_out_with_a_warning(
    store: Artifacts, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(curves=[CURVE.model_dump()], histograms=[HISTOGRAM.model_dump()])
    with caplog.at_level(logging.WARNING):
        files = report_files(study, [record(0, {"budget": "full"}, {X: 0.5})], store)
    assert not [name for name in files if name.startswith(("curve", "histogram"))]
    assert "event=figure_left_out name=curve-budgets" in caplog.text
    assert "event=figure_left_out name=histogram-confidence" in caplog.text


def test_two_figures_may_not_share_their_files() -> None:
    with pytest.raises(ValueError, match=r"report\n.*curves has name=budgets twice"):
        study_of(curves=[CURVE.model_dump()] * 2)


def test_pictures_of_many_values_are_cut_and_their_tables_are_not(caplog: pytest.LogCaptureFixture) -> None:
    records = [record(i, {"budget": f"b{i}", "epoch": 1}, {X: 0.5, Y: i / 100}) for i in range(60)]
    table = curve_table(CURVE, records)
    assert len(table) == 60
    with Image.open(io.BytesIO(draw_curve(CURVE, table))) as image:
        assert image.size == (768, 576)
    assert "event=picture_cut name=curve-budgets parts=60 drawn=24" in caplog.text
    bins = [{"budget": f"b{i}", "low": 0.0, "high": 1.0, "successful": 1, "failed": 2} for i in range(60)]
    with Image.open(io.BytesIO(draw_histogram(HISTOGRAM, pd.DataFrame(bins)))) as image:
        assert image.size[0] < 6000
    assert "event=picture_cut name=histogram-confidence parts=60 drawn=12" in caplog.text

"""Comparison with papers: printed numbers beside ours, orders paired and signed by hand."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.classes import class_order
from orchestrator.report.comparison import _Partners, comparison_table, orderings_table
from orchestrator.report.means import crossed_values
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import merged_axes
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import DatasetInput, TrialRecord
from tests import tiny
from tests.report.trials import MSE, grid, record


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
    records: Sequence[TrialRecord], *entries: dict[str, Any], store: Artifacts | None = None, **more: Any
) -> list[dict[Any, Any]]:
    """Return the rows of the table of orders."""
    study = tiny.study({"seed": [0]}, report={"orderings": entries, **more})
    return orderings_table(study, records, PerImage(store or Artifacts(MemoryBlobs("memory")))).to_dict(
        "records"
    )


def test_an_axis_may_change_along_with_the_ordered_one() -> None:
    """An attack that has a prior of its own is compared with one that has the general one."""
    general: dict[str, Scalar] = {"attack": "gmi", "loss": "hinge", "k": 3}
    own: dict[str, Scalar] = {"attack": "kedmi", "loss": "kedmi", "k": 3}
    records = [record(0, {**general, "seed": 0}, {MSE: 0.3}), record(1, {**own, "seed": 0}, {MSE: 0.1})]
    (alone,) = ordered(records, ordering("attack", ["gmi", "kedmi"]))
    assert alone["verdict"] == "no trials"
    (row,) = ordered(records, ordering("attack", ["gmi", "kedmi"], along=["loss"]))
    assert (row["difference"], row["seeds"], row["setting"]) == (pytest.approx(0.2), 1, "")
    (none,) = ordered(
        [*records[:1], record(2, {**own, "k": 5, "seed": 0}, {MSE: 0.1})],
        ordering("attack", ["gmi", "kedmi"], along=["loss"]),
    )
    assert none["verdict"] == "no trials"


def test_a_side_of_several_values_of_an_axis_that_changes_along_says_so() -> None:
    hinge, other = ({"attack": "gmi", "loss": loss, "k": 3, "seed": 0} for loss in ("hinge", "wgan-gp"))
    records = [
        record(0, hinge, {MSE: 0.3}),
        record(1, other, {MSE: 0.5}),
        record(2, {"attack": "kedmi", "loss": "kedmi", "k": 3, "seed": 0}, {MSE: 0.1}),
    ]
    (row,) = ordered(records, ordering("attack", ["gmi", "kedmi"], along=["loss"]))
    assert row["difference"] == pytest.approx(0.3)
    assert row["note"] == "one seed: no interval; gmi: mean over loss=hinge, wgan-gp"
    (alone,) = ordered(records[::2], ordering("attack", ["gmi", "kedmi"], along=["loss"]))
    assert "mean over" not in alone["note"]


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
    assert [r["resampled"] for r in rows] == ["2 seed"] * 3
    assert rows[0]["survives_holm"] == "yes"
    assert rows[1]["p_holm"] == pytest.approx(2 * stats.t.sf(3.0, 1))  # the larger of two: 3 and 5 are equal
    assert math.isnan(rows[2]["p_holm"])
    assert [r["p_flip"] for r in rows[:2]] == [0.5, 0.5]  # two seeds agree in half of all choices of signs
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
    # Means of seeds are 0.15 and 0.25, of classes 0.25 and 0.15; nothing is left beside these effects.
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 * (0.05**2 + 0.05**2) / 2)
    assert (row["low"], row["high"]) == (
        pytest.approx(0.2 - half, abs=1e-6),
        pytest.approx(0.2 + half, abs=1e-6),
    )
    half = stats.t.ppf(0.975, 1) * math.sqrt((0.05**2 + 0.05**2) / 2)
    assert row["seeds_high"] == pytest.approx(0.2 + half, abs=1e-6)
    # Each factor's mean is 0.05 up or down with a quarter each: both are with 1/16, more than a fortieth.
    assert (row["bootstrap_low"], row["bootstrap_high"]) == (
        pytest.approx(0.1, abs=1e-6),
        pytest.approx(0.3, abs=1e-6),
    )
    assert (row["verdict"], row["resampled"], row["survives_holm"]) == (
        "not shown",
        "2 seed x 2 classes",
        "no",
    )
    assert row["fixed"] == "class draw, split, auxiliary draw, attacked images, judge"
    (row,) = ordered(records[:2], ordering("k", [2, 3]), store=store)
    assert (row["seeds"], row["note"]) == (1, "one seed: only classes are resampled")
    (row,) = ordered(records, ordering("k", [3, 2]), store=store)
    assert row["difference"] == pytest.approx(-0.2, abs=1e-6)
    (row,) = ordered(records, ordering("k", [2, 3]), store=store, population=True)
    assert (row["resampled"], row["difference"]) == ("2 seed", pytest.approx(0.2, abs=1e-6))
    assert row["fixed"].startswith("classes, ")
    half = [*records[:3], record(3, {"k": 3, "seed": 1}, {MSE: 0.2})]  # one trial kept nothing by image
    (row,) = ordered(half, ordering("k", [2, 3]), store=store)
    assert row["resampled"] == "2 seed"


def of_classes(
    store: Artifacts, index: int, axes: Mapping[str, Scalar], class_seed: int, errors: Mapping[int, float]
) -> TrialRecord:
    """Return a trial on five classes in the order of a seed, with an error for each original class."""
    order = class_order(5, class_seed)
    one = with_images(store, index, axes, [errors[int(original)] for original in order])
    private = DatasetInput("faces", "digest", "here", "private", 50, 5)
    return replace(one, params={"data.class_seed": class_seed}, datasets=[private])


def test_classes_are_paired_by_who_they_are_and_not_by_their_label() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    errors = {0: 0.1, 1: 0.5, 2: 0.9, 3: 0.2, 4: 0.4}
    records = [
        of_classes(
            store,
            10 * seed + m,
            {"m": m, "data.class_seed": seed},
            seed,
            {c: e - m / 100 for c, e in errors.items()},
        )
        for seed in (0, 1, 3)
        for m in (1, 3)
    ]
    assert len({tuple(class_order(5, seed)) for seed in (0, 1, 3)}) == 3
    (row,) = ordered(records, ordering("m", [1, 3]), store=store, replicates=["data.class_seed"])
    assert (row["resampled"], row["seeds"]) == ("3 data.class_seed x 5 classes", 3)
    crossed = crossed_values(records[::2], MSE, PerImage(store), Report(replicates=("data.class_seed",)))
    assert crossed.values.tolist() == [pytest.approx([errors[c] - 0.01 for c in range(5)], abs=1e-6)] * 3
    other = replace(records[1], datasets=[replace(records[1].datasets[0], digest="another")])
    (row,) = ordered([records[0], other], ordering("m", [1, 3]), store=store)
    assert row["resampled"] == "nothing"  # people of two data sets are no pairs


def test_seeds_of_f_and_g_swept_apart_are_no_nine_seeds() -> None:
    values = {
        (m, f, g): 0.5 - m / 100 + (0.2 if m == 3 and f == 0 else 0.0)
        for m in (1, 3)
        for f in range(3)
        for g in range(3)
    }
    records = [
        record(i, {"m": m, "target.seed": f, "attack.seed": g}, {MSE: value})
        for i, ((m, f, g), value) in enumerate(values.items())
    ]
    (row,) = ordered(records, ordering("m", [1, 3]))
    assert (row["resampled"], row["seeds"]) == ("3 target.seed x 3 attack.seed", 9)
    own = [0.02 - 0.2, 0.02, 0.02]  # of each seed of F; those of G change nothing
    assert row["high"] - row["difference"] == pytest.approx(4.302652729911275 * stats.sem(own))
    together = [
        replace(
            one,
            axes={
                "m": one.axes["m"],
                "seed": 3 * int(one.axes["target.seed"]) + int(one.axes["attack.seed"]),
            },
        )
        for one in records
    ]
    (naive,) = ordered(together, ordering("m", [1, 3]))
    assert naive["high"] - naive["low"] < 0.5 * (row["high"] - row["low"])


def test_one_computation_leaves_holms_family_and_one_test_counts_once() -> None:
    cells = {(1, 3): [0.4, 0.52], (3, 3): [0.3, 0.4], (5, 3): [0.3, 0.4]}
    records = grid(cells)
    first = ordering("m", [1, 3])
    alone = ordered(records, first)[0]["p_holm"]
    again = ordered(records, first, {**first, "claim": "the same in another figure"}, ordering("m", [3, 5]))
    assert [row["p_holm"] for row in again[:2]] == [alone, alone]
    assert (again[2]["verdict"], again[2]["survives_holm"]) == ("equal", "")
    opposite = ordered(records, first, {**first, "metric": MSE, "order": [3, 1]})
    assert [row["p_holm"] for row in opposite] == [alone] * 2  # two-sided


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
        "claim,source,metric,axis,lower,upper,setting,difference,low,high,bootstrap_low,bootstrap_high,"
        "seeds_low,seeds_high,seeds_agreeing,seeds,p_flip,p,p_holm,survives_holm,verdict,resampled,fixed,note"
    )
    assert not [name for name in report_files(tiny.study(axes), records, store) if "orderings" in name]


def test_partners_are_those_that_comparing_all_with_all_finds() -> None:
    """Over trials that lack some axes by a dash, or by not having them at all."""
    generator = np.random.default_rng(3)
    values: dict[str, list[Scalar]] = {
        "m": [1, 3],
        "k": [3, 5, ABSENT],
        "align": [True, ABSENT],
        "seed": [0, 1],
    }
    records = []
    for index in range(80):
        axes = {axis: some[int(generator.integers(len(some)))] for axis, some in values.items()}
        if generator.random() < 0.2:
            del axes["k"]
        records.append(record(index, axes))
    partners = _Partners(records, {"m"})
    for one in records:
        expected = [other for other in records if merged_axes(one.axes, other.axes, {"m"}) is not None]
        found = [other for other in partners.of(one) if merged_axes(one.axes, other.axes, {"m"}) is not None]
        assert [other.index for other in found] == [other.index for other in expected]

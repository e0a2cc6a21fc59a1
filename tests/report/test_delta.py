"""Delta: by hand, its coverage on made-up data, where it means nothing, and what is printed of it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.crossed import CLASSES, Crossed
from orchestrator.report.delta import Drop, Ratio, _verdict, delta_of, delta_table
from orchestrator.report.per_image import PerImage
from orchestrator.report.statistics import Interval, Uncertainty
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import record

LEAKAGE, UTILITY = "attack/accuracy_top1_test", "target/accuracy"


def drops(*classes: tuple[float, float]) -> np.ndarray:
    """Return drops of leakage and of utility by class."""
    return np.array(classes)


def of_seeds(seeds: Sequence[np.ndarray], **more: Any) -> Ratio:
    """Return Delta of each seed's drops by class, (classes, 2): of leakage and of utility."""
    leakage, utility = (Crossed(np.stack(seeds)[..., part], ("seed", CLASSES)) for part in (0, 1))
    return delta_of(leakage, utility, **more)


def test_delta_by_hand() -> None:
    # Drops of leakage are four times those of accuracy: every draw of classes and seeds has the ratio 4.
    seeds = ([0.1, 0.09], [0.11, 0.1], [0.1, 0.1])
    found = of_seeds([drops(*((4 * utility, utility) for utility in seed)) for seed in seeds])
    assert (found.leakage.mean, found.utility.mean) == (pytest.approx(0.4), pytest.approx(0.1))
    assert found.delta == pytest.approx(4)
    assert (found.interval.low, found.interval.high) == (pytest.approx(4), pytest.approx(4))
    assert found.verdict == "defined"
    assert found.leakage.interval.low == pytest.approx(4 * found.utility.interval.low)


def test_the_ratio_is_that_of_the_means_and_not_the_mean_of_ratios() -> None:
    found = of_seeds([drops((0.1, 0.1), (0.3, 0.1)), drops((0.1, 0.05), (0.1, 0.05))])
    assert found.delta == pytest.approx(0.15 / 0.075)  # ratios of the seeds: 2 and 2
    assert of_seeds([drops((0.1, 0.1)), drops((0.6, 0.2))]).delta == pytest.approx(0.35 / 0.15)


def test_one_seed_of_one_class_has_no_interval() -> None:
    found = of_seeds([drops((0.3, 0.1))])
    assert (found.delta, found.verdict) == (pytest.approx(3), "no interval")
    ends = (found.interval.low, found.interval.high, found.utility.interval.low, found.leakage.interval.high)
    assert all(math.isnan(value) for value in ends)


def test_a_defended_model_that_is_not_less_accurate_has_no_delta() -> None:
    for utility in (-0.02, 0.0):
        found = of_seeds([drops((0.3, utility), (0.1, utility))] * 3)
        assert found.verdict == "undefined"
        assert all(math.isnan(value) for value in (found.delta, found.interval.low, found.interval.high))
        assert (found.leakage.mean, found.utility.interval.low) == (
            pytest.approx(0.2),
            pytest.approx(utility),
        )


def test_a_denominator_that_may_be_zero_gives_no_bounds() -> None:
    found = of_seeds([drops((0.3, 0.04), (0.2, -0.01)), drops((0.2, -0.02), (0.3, 0.03))])
    assert found.verdict == "unstable"
    assert found.utility.interval.low <= 0 < found.utility.mean < found.utility.interval.high
    assert found.delta == pytest.approx(0.25 / 0.01)
    assert math.isnan(found.interval.low)
    assert math.isnan(found.interval.high)
    assert found.leakage.interval.low == pytest.approx(0.25)  # what can be said is said


def test_few_replicates_beyond_zero_do_not_turn_the_interval_over() -> None:
    generator = np.random.default_rng(3)
    near = [
        np.stack([0.4 + 0.05 * generator.standard_normal(9), utility], axis=1)
        for utility in 0.06 + 0.06 * generator.standard_normal((4, 9))
    ]
    found = of_seeds(near)
    assert found.verdict == "defined"
    assert 0 < found.interval.low < found.delta < found.interval.high
    assert found.interval.high > 1.5 * found.delta


def made_up(generator: np.random.Generator, num_seeds: int, num_classes: int) -> list[np.ndarray]:
    """Return drops whose expectations are 0.3 and 0.05: classes differ alike under all seeds, and both parts
    share some of what seeds and classes do."""
    seeds = generator.normal((0.3, 0.05), (0.04, 0.008), (num_seeds, 1, 2))
    shared = generator.normal(0, 0.1, (1, num_classes, 1)) * (1, 0.3)
    classes = shared + generator.normal(0, (0.05, 0.02), (1, num_classes, 2))
    return list(seeds + classes + generator.normal(0, (0.1, 0.03), (num_seeds, num_classes, 2)))


@pytest.mark.parametrize(("num_seeds", "num_classes"), [(3, 60), (5, 20), (8, 60)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(num_seeds: int, num_classes: int) -> None:
    generator = np.random.default_rng(7)
    found = [of_seeds(made_up(generator, num_seeds, num_classes), replicates=400) for _ in range(300)]
    defined = [one.interval for one in found if one.verdict == "defined"]
    covered = float(np.mean([one.low <= 0.3 / 0.05 <= one.high for one in defined]))
    print(f"Delta, {num_seeds} seeds x {num_classes} classes: {covered:.3f} of {len(defined)} with bounds")
    assert len(defined) > 290
    assert 0.93 <= covered <= 0.985


def test_the_interval_is_that_of_many_replicates_and_repeats() -> None:
    seeds = made_up(np.random.default_rng(1), 5, 30)
    few, many = of_seeds(seeds, replicates=500), of_seeds(seeds)
    assert few.interval.low == pytest.approx(many.interval.low, rel=0.1)
    assert few.interval.high == pytest.approx(many.interval.high, rel=0.1)
    assert of_seeds(seeds) == many


def test_replicates_are_stretched_to_the_interval_of_the_numerator_less_its_share() -> None:
    """Where only the numerator varies the ratio's interval is the numerator's, over the denominator."""
    leakage = np.random.default_rng(2).normal(0.4, 0.05, (3, 20, 1))
    found = of_seeds(list(np.concatenate([leakage, np.full((3, 20, 1), 0.1)], axis=2)))
    own = Uncertainty.of(Crossed(leakage[..., 0], ("seed", CLASSES)))
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(own.half() / 0.1, rel=1e-3)


def recomputed_delta(acc_none: float, acc_def: float, att_none: float, att_def: float) -> float:
    """Return Delta from four printed percentages, as the report's table does from one class and seed."""
    return of_seeds([drops(((att_none - att_def) / 100, (acc_none - acc_def) / 100))]).delta


def test_published_numbers_by_hand() -> None:
    assert recomputed_delta(94.86, 90.85, 82.83, 52.09) == pytest.approx(30.74 / 4.01)
    assert math.isnan(recomputed_delta(75.07, 79.64, 80.0, 10.0))


def test_exactly_these_printed_deltas_do_not_follow_from_their_parts(shared_data: Path) -> None:
    rows = published(shared_data)
    found = [row for row in rows if row["metric"] == "delta"]
    assert len(found) == 35
    wrong = []
    for row in found:
        none = {one["metric"]: float(one["value"]) for one in rows if is_beside(one, row, "none")}
        defended = {one["metric"]: float(one["value"]) for one in rows if is_beside(one, row, row["defense"])}
        acc_none, acc_def = none["natural_acc"], defended["natural_acc"]
        ours = recomputed_delta(acc_none, acc_def, none["attack_acc_top1"], defended["attack_acc_top1"])
        rounding = 0.005 + 0.01 * (1 + ours) / (acc_none - acc_def)  # each printed number is half a digit off
        if abs(float(row["value"]) - ours) > 0.05 + rounding:
            wrong.append((row["item"], row["attack"], row["defense"], row["setting"], round(ours, 2)))
    assert wrong == [
        ("Table 3", "PPA", "MID", "lambda=0.02", 6.37),
        ("Table 3", "PPA", "MID", "lambda=0.01", 3.24),
        ("Table 3", "LOMMA-K", "MID", "lambda=0.003", 1.14),
    ]


def published(shared_data: Path) -> list[dict[str, str]]:
    """Return what the papers print, or skip where the list is absent."""
    path = shared_data.parent / "reference" / "published_results.csv"
    if not path.is_file():
        pytest.skip("the list of published numbers is not on this machine")
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def is_beside(one: Mapping[str, str], row: Mapping[str, str], defense: str) -> bool:
    """Return whether a row is of the same experiment, with that defense in the same setting or with none."""
    shared = ["source", "item", "attack", "architecture", "private_data", "public_data", "pretrain_data"]
    shared += ["theta_c_m", "setting"] if defense != "none" else []
    return one["defense"] == defense and all(one[name] == row[name] for name in shared)


def with_classes(
    store: Artifacts,
    index: int,
    axes: Mapping[str, Scalar],
    leakage: Sequence[float],
    utility: Sequence[float],
    stage: str = "target",
) -> TrialRecord:
    """Publish both shares by class, four images each, and return the trial."""
    keys = {}
    for name, file, field, shares in (
        ("evaluation", "per_image_test.npy", "accuracy_top1", leakage),
        (stage, "accuracy_test.npy", "accuracy", utility),
    ):
        rows = [(label, float(i < 4 * share)) for label, share in enumerate(shares) for i in range(4)]
        buffer = io.BytesIO()
        np.save(buffer, np.array(rows, dtype=[("label", np.int32), (field, np.float32)]))
        keys[name] = f"{name}{index}"
        store.publish(Artifact(keys[name], name, 1, {}), {file: buffer.getvalue()})
    metrics = {LEAKAGE: float(np.mean(leakage)), UTILITY: float(np.mean(utility))}
    return record(index, axes, metrics, stage_keys=keys)


def table(
    records: Sequence[TrialRecord], store: Artifacts | None = None, **more: Any
) -> list[dict[Any, Any]]:
    """Return the rows of Delta's table."""
    asked = {"reference": {"budget": "full", "defense": "none"}, **more}
    study = tiny.study({"seed": [0]}, report={"delta": asked})
    return delta_table(study, records, PerImage(store or Artifacts(MemoryBlobs("memory")))).to_dict("records")


def trial(index: int, budget: str, defense: str, seed: int, *shares: float, m: Scalar = 1) -> TrialRecord:
    """Return a trial that kept nothing by image."""
    axes: dict[str, Scalar] = {"m": m, "budget": budget, "defense": defense, "seed": seed}
    return record(index, axes, dict(zip((LEAKAGE, UTILITY), shares, strict=False)))


def test_every_defended_setting_is_beside_its_undefended_one() -> None:
    records = [
        trial(0, "full", "none", 0, 0.9, 0.8),
        trial(1, "full", "none", 1, 0.8, 0.9),
        trial(2, "block1", "none", 0, 0.5, 0.7),
        trial(3, "block1", "none", 1, 0.4, 0.8),
        trial(4, "full", "bido", 0, 0.1, 0.9),
        trial(5, "full", "bido", 1, 0.1, 0.95),
        trial(6, "block1", "none", 0, 0.5, 0.7, m=3),  # nothing undefended has m=3
    ]
    frozen, bido, alone = table(records)
    assert {name: frozen[name] for name in ("budget", "defense", "m")} == {
        "budget": "block1",
        "defense": "none",
        "m": 1,
    }
    assert (frozen["numerator"], frozen["denominator"]) == (pytest.approx(40), pytest.approx(10))
    assert (frozen["delta"], frozen["seeds"], frozen["resampled"]) == (pytest.approx(4), 2, "2 seed")
    assert (frozen["verdict"], frozen["note"]) == ("defined", "")
    assert frozen["fixed"] == "classes, class draw, split, auxiliary draw, attacked images, judge"
    assert (bido["denominator"], bido["verdict"]) == (pytest.approx(-7.5), "undefined")
    assert bido["note"] == "undefined: the defended model is not less accurate"
    assert math.isnan(bido["delta"])
    assert (alone["m"], alone["verdict"], alone["seeds"]) == (3, "no trials", 0)
    assert alone["note"] == (
        "no finished trial has budget=full, defense=none and the same other axes and seeds"
    )


def test_seeds_are_paired_and_a_seed_without_a_partner_is_left_out() -> None:
    records = [
        trial(0, "full", "none", 0, 0.9, 0.8),
        trial(1, "block1", "none", 0, 0.5, 0.7),
        trial(2, "block1", "none", 1, 0.0, 0.0),
    ]
    ((row),) = table(records)
    assert (row["seeds"], row["delta"], row["verdict"]) == (1, pytest.approx(4), "no interval")
    assert row["note"] == "one seed: no interval"


def test_an_axis_that_only_the_defense_has_is_no_difference() -> None:
    base: dict[str, Scalar] = {"budget": "full", "defense": "none", "target.defense.weight": "-", "seed": 0}
    records = [record(0, base, {LEAKAGE: 0.9, UTILITY: 0.8})]
    for index, weight in enumerate((0.1, 1.0), start=1):
        axes = {**base, "defense": "mid", "target.defense.weight": weight}
        records.append(record(index, axes, {LEAKAGE: 0.5, UTILITY: 0.8 - weight / 10}))
    assert [(row["target.defense.weight"], row["delta"]) for row in table(records)] == [
        (0.1, pytest.approx(40)),
        (1.0, pytest.approx(4)),
    ]


def test_classes_are_those_that_all_four_have() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    axes: dict[str, Scalar] = {"budget": "full", "defense": "none", "seed": 0}
    records = [
        with_classes(store, 0, axes, [1, 0.75, 1], [1, 1, 0.5]),
        with_classes(store, 1, {**axes, "budget": "block1"}, [0.5, 0.25], [0.75, 0.75, 1], "snapshot"),
    ]
    ((row),) = table(records, store)
    assert (row["numerator"], row["denominator"]) == (pytest.approx(50), pytest.approx(25))
    assert (row["delta"], row["low"], row["high"]) == (2, 2, 2)
    assert (row["resampled"], row["note"]) == ("2 classes", "one seed: only classes are resampled")
    gone = [records[0], record(1, records[1].axes, records[1].metrics)]  # that trial kept nothing by image
    ((row),) = table(gone, store)
    assert (row["resampled"], row["verdict"]) == ("nothing", "undefined")  # means: equally accurate


def test_the_unstable_case_says_so_in_the_table() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    axes: dict[str, Scalar] = {"budget": "full", "defense": "none", "seed": 0}
    records = [
        with_classes(store, 0, axes, [1, 1, 1], [0.75, 0.5, 1]),
        with_classes(store, 1, {**axes, "budget": "block1"}, [0.5, 0.25, 0], [0.25, 0.75, 0.75]),
    ]
    ((row),) = table(records, store)
    assert row["verdict"] == "unstable"
    assert row["note"] == "denominator's interval includes 0; one seed: only classes are resampled"
    assert row["denominator_low"] <= 0 < row["denominator_high"]
    half = 4.302652729911275 * 25 / math.sqrt(3)  # the drops are 50, 75 and 100 points
    assert row["numerator_low"] == pytest.approx(75 - half)
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])


@pytest.mark.parametrize(
    ("records", "note"),
    [
        ([], "no trial finished"),
        ([trial(0, "full", "none", 0, 0.9, 0.8)], "every finished trial is undefended"),
        (
            [trial(0, "full", "none", 0, 0.9), trial(1, "block1", "none", 0, 0.5, 0.8)],
            f"{UTILITY} was not measured in every trial",
        ),
    ],
)
def test_a_table_without_an_answer_says_why(records: list[TrialRecord], note: str) -> None:
    ((row),) = table(records)
    assert (row["verdict"], row["note"]) == ("no trials", note)


def test_the_report_has_the_table_and_repeats_it() -> None:
    records = [
        trial(0, "full", "none", 0, 0.9, 0.8),
        trial(1, "full", "none", 1, 0.8, 0.9),
        trial(2, "block1", "none", 0, 0.5, 0.7),
        trial(3, "block1", "none", 1, 0.4, 0.85),
    ]
    study = tiny.study({"seed": [0, 1]}, report={"delta": {"reference": {"budget": "full"}}})
    store = Artifacts(MemoryBlobs("memory"))
    files = report_files(study, records, store)
    assert files["delta.csv"].decode().splitlines() == [
        "budget,numerator,numerator_low,numerator_high,denominator,denominator_low,denominator_high,delta,low,"
        "high,seeds,verdict,resampled,fixed,note",
        "block1,40,40,40,7.5,-24.2655,39.2655,5.33333,,,2,unstable,2 seed,"  # 7.5 -+ 12.7062 * 2.5
        '"classes, class draw, split, auxiliary draw, attacked images, judge",'
        "denominator's interval includes 0",
    ]
    assert rb"block1 & $40$" in files["delta.tex"]
    assert files == report_files(study, records[::-1], store)


def test_a_denominator_whose_interval_touches_0_has_no_bounds() -> None:
    assert _verdict(Drop(0.1, Interval(0.0, 0.2))) == "unstable"
    assert _verdict(Drop(0.1, Interval(1e-300, 0.2))) == "defined"
    assert _verdict(Drop(0.0, Interval(-0.1, 0.1))) == "undefined"

"""Settings by what they leak: by hand, over paired seeds, by the metric that the study measures."""

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.report.page.ranking import Estimate, Ranking, leakage_metric, ranking
from orchestrator.report.page.words import leak_line
from orchestrator.report.per_image import PerImage
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.page.trials import ACCURACY, SKILL, TOP1, empty_store, sweep
from tests.report.trials import MSE, record

AXES = {"release.truncation": [1, 3], "seed": [0, 1, 2]}


def ranked(records: list[TrialRecord], **search: str) -> Ranking:
    """Return the ranking of a study over the tiny base."""
    study = tiny.study(AXES, search={"objectives": search or {MSE: "minimize"}})
    found = ranking(study, records, PerImage(empty_store()))
    assert found is not None
    return found


def test_settings_come_by_their_mean_skill() -> None:
    found = ranked(sweep())
    assert [dict(one.setting) for one in found.ranked[:2]] == [
        {"m": 3, "budget": "full"},
        {"m": 3, "budget": "block1"},
    ]
    assert found.leak(found.ranked[0]).mean == pytest.approx(0.4)
    assert found.worst is found.ranked[0]
    assert found.not_told_apart == 0
    assert found.recognition == {"judge": TOP1}


def test_differences_are_paired_by_seed() -> None:
    values = {(1, 0): 0.30, (1, 1): 0.50, (1, 2): 0.40, (3, 0): 0.31, (3, 1): 0.53, (3, 2): 0.42}
    records = [
        record(i, {"m": m, "seed": s}, {SKILL: v, MSE: 1 - v, "yardstick/label_mse_test": 1.0})
        for i, ((m, s), v) in enumerate(values.items())
    ]
    found = ranked(records)
    assert found.worst is not None
    assert dict(found.worst.setting) == {"m": 3}
    assert found.not_told_apart == 1  # 0.01, 0.03 and 0.02: half of the interval is 0.025
    apart = [
        one if one.axes["m"] == 3 else record(one.index, one.axes, {**one.metrics, SKILL: 0.0})
        for one in records
    ]
    assert ranked(apart).not_told_apart == 0


def test_the_leakage_is_what_was_measured() -> None:
    study = tiny.study(AXES, search={"objectives": {ACCURACY: "maximize"}})
    assert leakage_metric(study, [record(0, {}, {ACCURACY: 1.0, SKILL: 0.1})]) == SKILL
    assert leakage_metric(study, [record(0, {}, {ACCURACY: 1.0, TOP1: 0.1})]) == TOP1
    assert leakage_metric(study, [record(0, {}, {ACCURACY: 1.0})]) is None
    study = tiny.study(AXES, search={"objectives": {"attack/knn_distance_train": "minimize"}})
    both = {"attack/knn_distance_train": 3.0, "inversion/skill_train": 0.2, SKILL: 0.1}
    assert leakage_metric(study, [record(0, {}, both)]) == "inversion/skill_train"
    assert (
        leakage_metric(study, [record(0, {}, {"class/judge_top1": 0.5, "class/over_floor": 0.2})]) is not None
    )


def test_a_distance_leaks_more_where_it_is_smaller() -> None:
    name = "attack/knn_distance_test"
    records = [record(i, {"m": m}, {name: v}) for i, (m, v) in enumerate({1: 5.0, 3: 2.0}.items())]
    found = ranked(records, **{name: "minimize"})
    assert (found.sign, found.is_skill) == (-1.0, False)
    assert [dict(one.setting)["m"] for one in found.ranked] == [3, 1]
    assert found.worst is found.ranked[0]


def of_skill(cells: dict[int, list[float]], **more: float) -> list[TrialRecord]:
    """Return trials of m -> a skill for each seed."""
    rows = [(m, seed, value) for m, own in cells.items() for seed, value in enumerate(own)]
    return [
        record(i, {"m": m, "seed": s}, {SKILL: v, MSE: 1 - v, "yardstick/label_mse_test": 1.0, **more})
        for i, (m, s, v) in enumerate(rows)
    ]


def test_among_many_settings_without_leakage_seldom_one_is_named() -> None:
    generator = np.random.default_rng(0)
    named = 0
    for _ in range(25):
        records = of_skill({m: (0.1 * generator.normal(size=3)).tolist() for m in range(30)})
        named += ranked(records).worst is not None
    assert named <= 3  # 95 % of sweeps name none; without Holm's correction every second one does


def test_settings_passed_over_are_named_with_their_reason() -> None:
    found = ranked(of_skill({1: [0.05, 0.9, 0.85], 3: [0.30, 0.31, 0.29], 5: [0.1, 0.101, 0.102]}))
    assert found.worst is not None
    assert dict(found.worst.setting) == {"m": 3}
    assert [dict(one.setting) for one in found.passed_over] == [{"m": 1}]
    assert (found.not_told_apart, len(found.lower)) == (0, 1)  # m=1 is above, though it is not told apart
    line = leak_line(found, ["m"])
    assert "leaks most of the 2 settings that are shown to leak (of 3 tested, Holm)" in line
    assert "Passed over though their number leaks more: m=1 (0.6 \u00b1 1.2: its interval holds 0)." in line


def test_an_infinite_leakage_is_passed_over() -> None:
    found = ranked(of_skill({1: [math.inf, math.inf, math.inf], 3: [0.30, 0.31, 0.29]}))
    assert found.worst is not None
    assert dict(found.worst.setting) == {"m": 3}
    assert "m=1 (inf: it is not finite)" in leak_line(found, ["m"])


def test_held_images_and_queries_beyond_the_release_are_said() -> None:
    records = of_skill({3: [0.30, 0.31, 0.29]}, **{"attack/queries_beyond_release": 70.0})
    line = leak_line(ranked([replace(one, held=("test",)) for one in records]), ["m"])
    assert line.endswith(
        "Its adversary itself held private images (test). "
        "70 of its queries were answered with more than the release."
    )
    assert "0 is a guess without training, 1 a perfect copy" in line


def test_what_0_and_1_mean_depends_on_the_leakage() -> None:
    rows = [
        (m, s, v) for m, own in {1: [0.5, 0.52, 0.48], 3: [0.3, 0.3, 0.31]}.items() for s, v in enumerate(own)
    ]
    records = [
        record(
            i,
            {"m": m, "seed": s},
            {"class/judge_top1": v, "yardstick/chance": 0.1, "class/over_floor": (v - 0.1) / 0.9, MSE: 0.1},
        )
        for i, (m, s, v) in enumerate(rows)
    ]
    line = leak_line(ranked(records, **{"class/judge_top1": "maximize"}), ["m"])
    assert "0 is the judge's floor, 1 every image recognised" in line
    name = "attack/knn_distance_test"
    records = [record(i, {"m": m}, {name: v}) for i, (m, v) in enumerate({1: 5.0, 3: 2.0}.items())]
    line = leak_line(ranked(records, **{name: "minimize"}), ["m"])
    assert line.startswith(f"**m=3** has the smallest `{name}`: **2**")
    assert "no yardstick was measured" in line


def test_an_interval_holds_0_only_if_there_is_one() -> None:
    assert Estimate(0.1, 0.2).holds_zero
    assert not Estimate(0.3, 0.2).holds_zero
    assert not Estimate(0.1, math.nan).holds_zero

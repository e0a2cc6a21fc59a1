"""Importance: shares of the variance by hand, complete blocks of ragged sweeps, intervals over replicates."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.anova import LEAST_SHARE_LEVELS
from orchestrator.report.importance import (
    ANOVA,
    BOTH,
    HIGHER,
    NO_BLOCK,
    REPLICATES,
    SEARCHED,
    Importance,
    importance_table,
    importances,
    largest_block,
)
from orchestrator.sweep.forest import Forest
from orchestrator.sweep.records import TrialRecord
from tests.report.trials import MSE, record


def sweep(*cells: tuple[Mapping[str, Any], list[float]]) -> list[TrialRecord]:
    """Return trials of settings, a value for each seed."""
    rows = [(axes, seed, value) for axes, own in cells for seed, value in enumerate(own)]
    return [record(i, {**axes, "seed": seed}, {MSE: value}) for i, (axes, seed, value) in enumerate(rows)]


def of(records: list[TrialRecord]) -> Importance:
    """Return the one importance."""
    (found,) = importances(records, [MSE])
    return found


def shares(found: Importance) -> dict[str, float]:
    """Return source -> share."""
    return {one.name: one.share for one in found.sources}


def test_two_axes_with_three_replicates_by_hand() -> None:
    centers = {(1, "x"): 2, (1, "y"): 3, (1, "z"): 4, (2, "x"): 6, (2, "y"): 6, (2, "z"): 9}
    extra = {(1, "x"): 0.5, (2, "x"): -0.5}  # of the first seed; the last one has the opposite
    found = of(
        sweep(
            *(
                ({"m": m, "a": a}, [c - 1 + e, float(c), c + 1 - e])
                for (m, a), c in centers.items()
                for e in (extra.get((m, a), 0.0),)
            )
        )
    )
    # Means of m: 3 and 7 around 5; of a: 4, 4.5 and 6.5; the rest of the cells' means: 0, 0.5, -0.5, ...
    squares = {"m": 9 * (4 + 4), "a": 6 * (1 + 0.25 + 2.25), "m x a": 3 * 4 * 0.25}
    squares |= {REPLICATES: 6 * 2.0, BOTH: 4 * 0.25}
    assert sum(squares.values()) == 109
    assert shares(found) == pytest.approx({name: own / 109 for name, own in squares.items()})
    assert [one.freedom for one in found.sources] == [1, 2, 2, 2, 10]
    first = found.axes[0]
    assert (first.name, found.method, found.num_settings, found.num_replicates) == ("m", ANOVA, 6, 3)
    error = 3 * 4 * (1 / 6) ** 2 / 2  # m over seeds: means of three settings that differ by 1/6
    assert first.beyond_chance == pytest.approx((72 - error) / (109 + error))
    assert first.p == pytest.approx(2 * stats.t.sf(math.sqrt(72 / error), 2))  # F(1, 2) is t^2
    second = found.axes[1]
    assert second.p < first.p
    assert first.p_holm == pytest.approx(2 * first.p)  # of three p-values the second one


def test_two_by_three_by_three_by_hand() -> None:
    one, two, three = (-1, 1), (-2, 0, 2), (-1, -1, 2)
    both = ((0.5, -0.5, 0), (-0.5, 0.5, 0))
    cells = itertools.product(range(2), range(3), range(3))
    found = of(
        sweep(
            *(
                ({"m": i, "k": j, "budget": f"b{h}"}, [center - 0.5, center + 0.5])
                for i, j, h in cells
                for center in (7 + one[i] + two[j] + three[h] + both[i][j],)
            )
        )
    )
    squares = {"m": 36.0, "k": 36 * 8 / 3, "budget": 36 * 2.0, "m x k": 6.0, REPLICATES: 9.0}
    rest = {"m x budget": 0.0, "k x budget": 0.0, HIGHER: 0.0, BOTH: 0.0}
    assert shares(found) == pytest.approx(
        {name: own / 219 for name, own in (squares | rest).items()}, abs=1e-12
    )
    assert [one.name for one in found.axes] == ["k", "budget", "m"]
    assert sum(one.share for one in found.sources) == pytest.approx(1)


def test_what_is_not_complete_is_left_out_with_as_few_trials_as_can_be() -> None:
    """As in the demo: m=5 cannot exist with k=3, and a baseline has some settings more."""
    cells = [(m, k, a) for m in (1, 3, 5) for k in (3, 5) for a in "xyz" if m <= k]
    records = sweep(
        *(({"m": m, "k": k, "a": a, "align": True}, [float(m), float(k)]) for m, k, a in cells),
        ({"m": 1, "k": 5, "a": "x", "align": False}, [9.0, 9.0]),
    )
    block = largest_block(records)
    assert block is not None
    assert dict(zip(block.axes, block.values, strict=True)) == {
        "m": ("1", "3"),
        "k": ("3", "5"),
        "a": ("x", "y", "z"),
    }
    assert block.trials.shape == (2, 2, 3, 2)
    assert all(trial.axes["align"] for trial in block.trials.ravel())
    found = of(records)
    assert (found.num_settings, found.all_settings, found.num_replicates) == (12, 16, 2)
    assert (found.fixed, found.left_out) == ({"align": "True"}, {"m": ("5",)})
    lost = [one for one in records if one.axes != {"m": 1, "k": 3, "a": "x", "align": True, "seed": 1}]
    assert (of(lost).num_settings, of(lost).num_replicates) == (
        9,
        2,
    )  # k=3 goes; without a=x or a seed: 16, 12


@pytest.mark.parametrize("seed", range(20))
def test_the_block_is_the_largest_that_there_is(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = [one for one in itertools.product(range(3), range(3), range(2)) if generator.random() < 0.75]
    block = largest_block([record(i, dict(zip("abc", p, strict=True))) for i, p in enumerate(places)])
    parts = [
        [part for size in range(1, n + 1) for part in itertools.combinations(range(n), size)]
        for n in (3, 3, 2)
    ]
    sizes = [
        math.prod(map(len, levels))
        for levels in itertools.product(*parts)
        if set(itertools.product(*levels)) <= set(places)
    ]
    assert block is not None
    assert block.trials.size == max(sizes)


def test_intervals_are_over_replicates_and_repeat() -> None:
    noise = np.random.default_rng(1).normal(size=(2, 2, LEAST_SHARE_LEVELS)) / 10
    values = [({"m": m, "k": k}, list(m + 0.2 * k + noise[m][k])) for m in range(2) for k in range(2)]
    records = sweep(*((axes, [float(one) for one in own]) for axes, own in values))
    first = of(records).axes[0]
    assert first.interval.low < first.share < first.interval.high < 1
    assert of(records).is_ahead
    assert importance_table([of(records)]).equals(importance_table([of(records[::-1])]))
    level = [({"m": m, "k": k}, list(m + k + noise[m][k])) for m in range(2) for k in range(2)]
    assert not of(sweep(*((axes, [float(one) for one in own]) for axes, own in level))).is_ahead


def test_one_seed_has_shares_without_interval() -> None:
    found = of(sweep(*(({"m": m, "k": k}, [float(m)]) for m in range(3) for k in range(2))))
    assert shares(found) == pytest.approx({"m": 1.0, "k": 0.0, "m x k": 0.0})
    assert all(math.isnan(one.interval.low) and math.isnan(one.p) for one in found.sources)


def test_what_does_not_vary_and_what_is_no_grid_have_no_shares() -> None:
    found = of(sweep(*(({"m": m}, [0.1 + 0.2, 0.3]) for m in range(3))))
    assert found.has_answer is False
    assert math.isnan(shares(found)["m"])
    drawn = np.random.default_rng(0).random((30, 2)).tolist()
    found = of([record(i, {"a": a, "b": b}, {MSE: a}) for i, (a, b) in enumerate(drawn)])
    assert (found.method, found.sources, found.all_settings) == (NO_BLOCK, (), 30)
    assert importance_table([found]).to_dict("records")[0]["method"] == NO_BLOCK
    assert of([record(0, {"m": 1}, {MSE: 0.5})]).all_settings == 1
    assert importances([record(0, {"m": 1})], [MSE]) == []


def test_of_a_search_a_model_says_it() -> None:
    records = [record(i, {"a": i / 10, "seed": 0}, {MSE: i / 10}) for i in range(10)]
    forest = Forest({"a": 0.9}, 9, 0.7)
    (found,) = importances(records, [MSE], searched=lambda metric: forest if metric == MSE else None)
    assert (found.method, shares(found), found.num_settings) == (SEARCHED, {"a": 0.9}, 9)
    assert found.explained == 0.7
    row = importance_table([found]).to_dict("records")[0]
    assert (row["source"], row["share"], row["freedom"]) == ("a", 0.9, "")

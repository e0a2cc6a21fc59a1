"""Preference of raters: by hand, and the interval's coverage where persons and raters differ."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.user_study.answers import Answer
from orchestrator.report.user_study.preference import preference, preference_table
from tests.report.user_study.trials import study


def answers(rows: Sequence[tuple[str, int, bool]]) -> list[Answer]:
    """Return answers as (rater, person, whether the first was chosen)."""
    return [Answer(rater, place, person, first, 2.0) for place, (rater, person, first) in enumerate(rows, 1)]


def test_one_answer_for_each_person_has_wilsons_interval() -> None:
    found = preference(answers([("ann", person, person < 7) for person in range(10)]))
    assert (found.share, found.method) == (0.7, "Wilson")
    assert (found.low, found.high) == pytest.approx((0.3968, 0.8922), abs=1e-4)  # Wilson (1927)
    assert found.p == pytest.approx(0.34375)  # 2 (120 + 45 + 10 + 1) / 1024


def test_persons_that_repeat_widen_the_interval() -> None:
    alone = preference(answers([("ann", person, person % 2 == 0) for person in range(40)]))
    grouped = preference(answers([("ann", person // 4, person // 4 % 2 == 0) for person in range(40)]))
    assert (alone.share, grouped.share) == (0.5, 0.5)
    assert grouped.method == "bootstrap over persons"
    assert grouped.high - grouped.low > 1.7 * (alone.high - alone.low)
    assert grouped.p == 1.0  # five persons each


def test_raters_that_repeat_widen_the_interval() -> None:
    rows = [(f"r{rater}", person, rater < 3) for rater in range(6) for person in range(30)]
    found = preference(answers(rows))
    assert (found.share, found.method) == (0.5, "bootstrap over persons and raters")
    assert found.high - found.low > 0.6  # six raters who never change their minds
    assert found.p == 1.0


def test_a_majority_of_each_person_is_tested() -> None:
    rows = [(f"r{rater}", person, rater != 2) for rater in range(3) for person in range(8)]
    assert preference(answers(rows)).p == pytest.approx(2 / 2**8)
    ties = [(f"r{rater}", person, rater == 0) for rater in range(2) for person in range(8)]
    assert preference(answers(ties)).p == 1.0


@pytest.mark.parametrize("first", [True, False])
def test_agreement_of_all_has_an_interval_of_some_width(first: bool) -> None:
    found = preference(answers([(f"r{rater}", person, first) for rater in range(3) for person in range(10)]))
    assert (found.share, found.method) == (float(first), "Wilson over persons")
    assert found.high - found.low == pytest.approx(0.2775, abs=1e-4)


def test_one_person_and_one_rater_have_no_interval() -> None:
    found = preference(answers([("ann", 1, True), ("ann", 1, False)]))
    assert math.isnan(found.low)
    assert found.method == "none: one person and one rater"
    alone = preference(answers([("ann", 1, True)]))
    assert (alone.low, alone.high, alone.p) == pytest.approx((0.2065, 1.0, 1.0), abs=1e-4)


def test_it_covers_where_persons_and_raters_differ() -> None:
    generator, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(100):
        leans = generator.normal(0, 1, (40, 1)) + generator.normal(0, 1, (1, 12))
        chosen = generator.random((40, 12)) < 1 / (1 + np.exp(-leans))
        found = preference(answers([(f"r{r}", p, bool(chosen[p, r])) for p in range(40) for r in range(12)]))
        covered += found.low <= 0.5 <= found.high
        plain = stats.binomtest(int(chosen.sum()), chosen.size).proportion_ci(0.95, method="wilson")
        naive += plain.low <= 0.5 <= plain.high
    assert covered >= 88  # nominal 95; twelve raters
    assert naive < 70


def test_the_table_names_both_settings() -> None:
    _, key = study()
    (row,) = preference_table(key, answers([("ann", 0, True), ("ann", 1, False)])).to_dict("records")
    assert (row["closer"], row["than"], row["page"]) == ("budget=full", "budget=conv4_1", key.page)
    assert (row["answers"], row["pairs"], row["persons"], row["raters"]) == (2, 2, 2, 1)
    assert (row["share"], row["interval"], row["median_seconds"]) == (0.5, "Wilson", 2.0)

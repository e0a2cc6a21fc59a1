"""The lines of the answer: what is shown, what is not, and what is not known."""

import math
from dataclasses import replace

import pytest

from orchestrator.report.importance import ANOVA, HIGHER, NO_BLOCK, REPLICATES, SEARCHED, Importance, Source
from orchestrator.report.page.ranking import Estimate
from orchestrator.report.page.words import axis_line, in_numbers, share_words
from orchestrator.report.statistics import Interval


def grid(p: float = 1e-6, *, is_ahead: bool = True, replicates: int = 3) -> Importance:
    """Return shares of two axes."""
    sources = (
        Source(("m",), "m", 1, 0.6, Interval(0.5, 0.7), 0.5, p, p),
        Source(("k",), "k", 1, 0.3, Interval(0.2, 0.4), 0.2, p, p),
        Source((), REPLICATES, 8, 0.1),
    )
    return Importance("x/y", ANOVA, sources, 4, 6, replicates, is_ahead=is_ahead)


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        (
            grid(),
            "**m** matters most: 60 % [50, 70] of the variance of `x/y`; then `k` 30 % [20, 40]; replicates",
        ),
        (
            grid(is_ahead=False),
            "**m** has the largest share of one axis, not shown to be ahead of others: 60 %",
        ),
        (grid(p=0.2), "Nothing is shown to matter more than replicates differ"),
        (grid(replicates=1), "**m** has the largest share of one axis: 60 %"),
        (
            Importance("x/y", NO_BLOCK, all_settings=9),
            "Which axis matters most for `x/y` is not known: not a grid",
        ),
        (
            Importance("x/y", NO_BLOCK, all_settings=1),
            "Which axis matters most for `x/y` is not known: there is one",
        ),
        (Importance("x/y", ANOVA, (Source(("m",), "m", 1, math.nan),)), "No axis matters for `x/y`"),
        (
            Importance("x/y", SEARCHED, (Source(("m",), "m", 0, 0.9),), 20, 20, explained=0.5),
            "**m** has the largest share: 90 % of the",
        ),
        (
            Importance("x/y", SEARCHED, (Source(("m",), "m", 0, 0.9),), 20, 20, explained=-0.1),
            "Which axis matters most for `x/y` is not known: a random forest of 20 trials explains nothing",
        ),
        (None, "Which axis matters most is not known"),
    ],
)
def test_which_axis_matters_most(found: Importance | None, starts: str) -> None:
    assert axis_line(found).startswith(starts)


def test_the_block_and_the_method_are_named() -> None:
    assert axis_line(grid()).endswith(
        "(exact, over 4 of 6 settings that form a complete grid, 3 replicates each)."
    )
    searched = Importance("x/y", SEARCHED, (Source(("m",), "m", 0, 0.9),), 20, 40, explained=0.5)
    assert "an estimate by a random forest of 20 trials, without interval" in axis_line(searched)
    cut = replace(grid(), fixed={"align": "True"}, left_out={"k": ("1", "2", "3", "4", "5")})
    assert axis_line(cut).endswith("each; align is fixed at True; without k=1, 2, 3, 4 and 1 more).")


def test_an_interaction_that_is_larger_is_said_first() -> None:
    joint = Source(("m", "k"), "m x k", 1, 0.9, p=1e-6, p_holm=1e-6)
    small = [replace(one, share=0.0) for one in grid().sources]
    line = axis_line(replace(grid(), sources=(*small, joint)))
    assert line.startswith(
        "**m** and **k** act together: their interaction has 90 %, more than any axis alone"
    )
    assert "matters most" not in line
    higher = replace(joint, axes=("m", "k", "a"), name=HIGHER, p_holm=0.3)
    line = axis_line(replace(grid(), sources=(*small, higher)))
    assert line.startswith("three or more axes act together: their interaction has 90 %, which is not shown")


def test_what_survives_holm_is_named_though_it_is_not_the_largest() -> None:
    first, second, rest = grid().sources
    line = axis_line(replace(grid(), sources=(replace(first, p_holm=0.2), second, rest)))
    assert line.startswith(
        "**m** has the largest share of one axis, not shown beyond replicates; shown are `k`"
    )


def test_a_share_is_never_below_0() -> None:
    assert share_words(Source(("m",), "m", 1, -1e-9, Interval(-1e-3, 0.2))) == "0 % [0, 20]"


def test_numbers_have_their_interval_where_there_is_one() -> None:
    assert in_numbers(Estimate(0.12345, 0.0123)) == "0.123 \u00b1 0.012"
    assert in_numbers(Estimate(0.98712, 0.0002)) == "0.98712 \u00b1 0.00020"
    assert in_numbers(Estimate(12345.6, 31.2)) == "12346 \u00b1 31"
    assert in_numbers(Estimate(0.5, 0.0)) == "0.5 \u00b1 0"
    assert in_numbers(Estimate(math.inf, math.nan)) == "inf"
    assert in_numbers(Estimate(0.12345)) == "0.123"
    assert in_numbers(Estimate(math.nan)) == ""

"""The lines of the answer: what is shown, what is not, and what is not known."""

import math

import pytest

from orchestrator.report.importance import ANOVA, NO_BLOCK, REPLICATES, SEARCHED, Importance, Source
from orchestrator.report.page.ranking import Estimate
from orchestrator.report.page.words import axis_line, in_numbers
from orchestrator.report.statistics import Interval


def grid(p: float = 1e-6, *, is_ahead: bool = True, replicates: int = 3) -> Importance:
    """Return shares of two axes."""
    sources = (
        Source(("m",), "m", 1, 0.6, Interval(0.5, 0.7), 0.5, p),
        Source(("k",), "k", 1, 0.3, Interval(0.2, 0.4), 0.2, p),
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
        (grid(is_ahead=False), "**m** has the largest share, not told apart from `k`: 60 %"),
        (grid(p=0.2), "No axis is shown to matter more than replicates differ"),
        (grid(replicates=1), "**m** has the largest share: 60 %"),
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
            Importance("x/y", SEARCHED, (Source(("m",), "m", 0, 0.9),), 20, 20),
            "**m** matters most: 90 % of the",
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
    searched = Importance("x/y", SEARCHED, (Source(("m",), "m", 0, 0.9),), 20, 20)
    assert f"by {SEARCHED} of 20 trials" in axis_line(searched)


def test_numbers_have_their_interval_where_there_is_one() -> None:
    assert in_numbers(Estimate(0.12345, 0.0123)) == "0.123 \u00b1 0.012"
    assert in_numbers(Estimate(0.12345)) == "0.123"
    assert in_numbers(Estimate(math.nan)) == ""

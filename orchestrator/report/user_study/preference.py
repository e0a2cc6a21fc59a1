"""Preference of raters: the share of answers for the first setting, its interval, and a test of one half.

Several answers of one rater about one person count as their mean, once. Answers about one person, and answers
of one rater, are not independent. Where either repeats, the interval is a bootstrap that draws persons and
raters, each once for a replicate (crossed, not nested); otherwise it is Wilson's. With fewer than ten persons
or raters a bootstrap is too narrow. The p-value is the exact binomial test over persons, each counted by the
majority of its answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.report.crossed import Crossed
from orchestrator.report.resampling import resampled_means
from orchestrator.report.statistics import CONFIDENCE
from orchestrator.report.user_study.answers import Answer
from orchestrator.report.user_study.key import Key


@dataclass(frozen=True)
class Preference:
    """How often the first setting was found closer to the private image."""

    share: float
    low: float  # NaN where nothing can be drawn
    high: float
    method: str  # of the interval
    p: float  # two-sided, that both are chosen alike; 1 where no person has a majority


def preference_table(key: Key, answers: Sequence[Answer]) -> pd.DataFrame:
    """Return one row: both settings, counts, the share of answers for the first one, its interval, p."""
    found = preference(answers)
    row = {
        "page": key.page,
        "closer": key.settings[0],
        "than": key.settings[1],
        "answers": len(answers),
        "pairs": len({one.pair for one in answers}),
        "persons": len({one.person for one in answers}),
        "raters": len({one.rater for one in answers}),
        "share": found.share,
        "low": found.low,
        "high": found.high,
        "interval": found.method,
        "p_binomial": found.p,
        "median_seconds": float(np.median([one.seconds for one in answers])),
    }
    return pd.DataFrame([row])


def preference(answers: Sequence[Answer]) -> Preference:
    """Return the share of answers for the first setting with its 95 % interval; there is an answer."""
    persons, raters = (
        np.unique([getattr(one, name) for one in answers], return_inverse=True)[1]
        for name in ("person", "rater")
    )
    shape = persons.max() + 1, raters.max() + 1
    asked, chosen = np.zeros(shape), np.zeros(shape)
    np.add.at(asked, (persons, raters), 1)
    np.add.at(chosen, (persons, raters), [one.prefers_first for one in answers])
    cells = np.divide(chosen, asked, out=np.full(shape, np.nan), where=asked > 0)
    crossed = Crossed(cells, ("persons", "raters"))
    share = crossed.mean
    if len(answers) == shape[0] and shape[1] == 1:
        (low, high), method = _wilson(share, len(answers)), "Wilson"
    elif not crossed.drawn:
        low, high, method = math.nan, math.nan, "none: one person and one rater"
    elif share in (0.0, 1.0):  # a bootstrap of one value has no width: one answer for each person
        (low, high), method = _wilson(share, shape[0]), "Wilson over persons"
    else:
        (low, high), method = _bootstrap(crossed), f"bootstrap over {' and '.join(crossed.resampled)}"
    return Preference(share, low, high, method, _sign_test(asked.sum(1), chosen.sum(1)))


def _wilson(share: float, number: int) -> tuple[float, float]:
    found = stats.binomtest(round(share * number), number).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _bootstrap(crossed: Crossed) -> tuple[float, float]:
    """Return the percentile interval of the mean."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.nanquantile(resampled_means(crossed), ends)
    return float(low), float(high)


def _sign_test(asked: np.ndarray, chosen: np.ndarray) -> float:
    """Return the exact p-value over persons, (persons,) numbers of answers; ties are left out."""
    leaning = np.sign(2 * chosen - asked)
    wins, losses = int((leaning > 0).sum()), int((leaning < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0

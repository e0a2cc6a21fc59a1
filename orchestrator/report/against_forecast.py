"""Forecast against actual: what stages were expected to take when a sweep began, and what they took.

The forecast is the one kept with the sweep at its first start; compared are the stages that were missing then
and are stored now.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.rates import seconds_of

ALL = "all"
"""Row of the sums."""


@dataclass(frozen=True)
class Compared:
    """Stages of one kind; seconds are of the CPU, or of an accelerator where the stages had one."""

    stage: str
    num_forecast: int
    """Stages that had a forecast."""

    forecast: float
    """Seconds of them, with an interval of 90 % between `low` and `high`."""

    low: float
    high: float
    actual: float
    num_unknown: int = 0
    """Stages that nothing in the store was like when the sweep began."""

    actual_unknown: float = 0.0
    """Seconds that they took; they are in no other number."""

    @property
    def factor(self) -> float:
        """What the stages took over what was expected of them; NaN without a forecast."""
        return self.actual / self.forecast if self.forecast else float("nan")


def compared(
    missing: Mapping[str, Mapping[str, float] | None], artifacts: Mapping[str, Artifact]
) -> list[Compared]:
    """Return a row for each kind of stage that was run since the forecast, in the order of `artifacts`.

    `missing`: key -> `seconds`, `low` and `high` of the stages that the forecast expected to be run, None for
    those that nothing was like; `artifacts`: key -> stored stages.
    """
    run = {key: one for key, one in artifacts.items() if key in missing}
    rows = []
    for stage in dict.fromkeys(one.stage for one in run.values()):
        own = {key: seconds_of(one) for key, one in run.items() if one.stage == stage}
        known = {key: one for key in own if (one := missing[key])}
        seconds, low, high = (sum(one[part] for one in known.values()) for part in ("seconds", "low", "high"))
        spent = sum(own[key] for key in known)
        rest = [took for key, took in own.items() if key not in known]
        rows.append(Compared(stage, len(known), seconds, low, high, spent, len(rest), sum(rest)))
    return rows


def kept_compared(kept: Mapping[str, Any] | None, artifacts: Mapping[str, Artifact]) -> list[Compared]:
    """Return the rows of a forecast that was kept with a sweep; none without one."""
    missing = kept["forecast"].get("missing") if kept else None
    return compared(missing, artifacts) if missing else []


def total(rows: Iterable[Compared]) -> Compared:
    """Return the sums of rows."""
    numbers = [[getattr(row, part) for row in rows] for part in NUMBERS]
    return Compared(ALL, *map(sum, numbers))


NUMBERS = ("num_forecast", "forecast", "low", "high", "actual", "num_unknown", "actual_unknown")


def forecast_table(rows: Sequence[Compared]) -> pd.DataFrame:
    """Return a row for each kind of stage and one of the sums."""
    return pd.DataFrame(
        {
            "stage": row.stage,
            "stages": row.num_forecast,
            "forecast_seconds": row.forecast,
            "low": row.low,
            "high": row.high,
            "actual_seconds": row.actual,
            "factor": row.factor,
            "without_forecast": row.num_unknown,
            "their_seconds": row.actual_unknown,
        }
        for row in (*rows, total(rows))
    )


def forecast_words(rows: Sequence[Compared], unit: str) -> str:
    """Return the sums in words; `unit` of the seconds."""
    if not rows:
        return "No forecast was kept with this sweep."
    one = total(rows)
    if not one.num_forecast:
        return (
            f"When it began, the store had nothing like its {one.num_unknown:,} stages: none had a forecast."
        )
    rest = (
        f"; {one.num_unknown:,} more had none and took {one.actual_unknown:,.0f}" if one.num_unknown else ""
    )
    return (
        f"{one.num_forecast:,} stages were expected to take {one.forecast:,.0f} {unit} ({one.low:,.0f} to "
        f"{one.high:,.0f}) when the sweep began and took {one.actual:,.0f}, a "
        f"factor of {one.factor:.2f}{rest}."
    )

"""Forecast against actual: sums by kind of stage; what had no forecast is in no sum of those that had one."""

import math
from typing import Any

import pytest

from orchestrator.report.against_forecast import (
    Compared,
    compared,
    forecast_table,
    forecast_words,
    kept_compared,
    total,
)
from orchestrator.store.artifacts import Artifact

TEN = {"seconds": 10.0, "low": 8.0, "high": 13.0}


def stage(name: str, seconds: float, device: str = "cpu") -> Artifact:
    """Return a stored stage that took CPU seconds, and twice as many of the clock."""
    cost = {"cpu_seconds": seconds, "wall_seconds": 2 * seconds}
    return Artifact("0" * 64, name, 1, {}, cost=cost, profile={"device": device})


STORED = {
    "a": stage("target", 12.0),
    "b": stage("target", 18.0),
    "c": stage("target", 1.0),  # it was stored when the sweep began
    "d": stage("judge", 7.0),
    "e": stage("inversion", 3.0, "cuda"),
}
MISSING = {"a": TEN, "b": TEN, "d": None, "e": TEN, "f": TEN}  # f has not been run


def test_stages_are_summed_by_kind() -> None:
    rows = compared(MISSING, STORED)
    assert rows == [
        Compared("target", 2, 20.0, 16.0, 26.0, 30.0),
        Compared("judge", 0, 0.0, 0.0, 0.0, 0.0, 1, 7.0),
        Compared("inversion", 1, 10.0, 8.0, 13.0, 6.0),  # seconds of its accelerator
    ]
    assert [row.factor for row in rows] == pytest.approx([1.5, math.nan, 0.6], nan_ok=True)
    assert total(rows) == Compared("all", 3, 30.0, 24.0, 39.0, 36.0, 1, 7.0)
    table = forecast_table(rows)
    assert table["stage"].tolist() == ["target", "judge", "inversion", "all"]
    assert table["factor"].iloc[-1] == pytest.approx(1.2)


def test_what_is_said_of_them() -> None:
    words = forecast_words(compared(MISSING, STORED), "CPU seconds")
    assert words == (
        "3 stages were expected to take 30 CPU seconds (24 to 39) when the sweep began and took 36, a factor "
        "of 1.20; 1 more had none and took 7."
    )
    unknown = forecast_words(compared(dict.fromkeys(MISSING), STORED), "CPU seconds")
    assert unknown == "When it began, the store had nothing like its 4 stages: none had a forecast."
    without: list[dict[str, Any] | None] = [None, {"forecast": {}}, {"forecast": {"missing": {}}}]
    for kept in without:
        assert (
            forecast_words(kept_compared(kept, STORED), "CPU seconds")
            == "No forecast was kept with this sweep."
        )
    assert kept_compared({"forecast": {"missing": MISSING}}, STORED) == compared(MISSING, STORED)

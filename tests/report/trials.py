"""Trials made by hand for the tests of reports."""

from collections.abc import Mapping
from typing import Any

from orchestrator.config.base import Scalar
from orchestrator.sweep.records import Status, TrialRecord

MSE = "inversion/mse_test"


def record(
    index: int,
    axes: Mapping[str, Scalar],
    metrics: Mapping[str, float] | None = None,
    status: Status = "finished",
    **more: Any,
) -> TrialRecord:
    """Return one ended trial."""
    name = f"{index:04d}"
    return TrialRecord(
        key=name, index=index, name=name, params={}, axes=axes, status=status, metrics=metrics or {}, **more
    )


def grid(values: Mapping[Any, list[float]]) -> list[TrialRecord]:
    """Return trials over seeds, of (m, k) -> a value for each seed."""
    rows = [((m, k), seed, value) for (m, k), seeds in values.items() for seed, value in enumerate(seeds)]
    return [
        record(index, {"m": m, "k": k, "seed": seed}, {MSE: value})
        for index, ((m, k), seed, value) in enumerate(rows)
    ]


FAILED = record(2, {"m": 5}, status="failed", failed_stage="inversion", error='ValueError: a "b", c')

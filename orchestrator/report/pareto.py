"""The front of a search for several objectives: trials that no other one beats in all of them."""

import math
from collections.abc import Mapping, Sequence

from orchestrator.sweep.records import TrialRecord


def pareto_front(records: Sequence[TrialRecord], objectives: Mapping[str, str]) -> list[TrialRecord]:
    """Return the finished trials that are not dominated: metric -> minimize or maximize. A trial in which an
    objective is undefined is none of them."""
    finished = _measured(records, objectives)

    def losses(record: TrialRecord) -> tuple[float, ...]:
        return tuple(
            record.metrics[m] * (-1.0 if direction == "maximize" else 1.0)
            for m, direction in objectives.items()
        )

    def is_beaten(one: TrialRecord) -> bool:
        own = losses(one)
        return any(
            all(a <= b for a, b in zip(losses(other), own, strict=True)) and losses(other) != own
            for other in finished
        )

    return [record for record in finished if not is_beaten(record)]


def front_line(records: Sequence[TrialRecord], objectives: Mapping[str, str]) -> str:
    """Return a line of Markdown that says how many trials are on the front and where it ends in each
    objective; empty if no trial has all objectives."""
    front = sorted(pareto_front(records, objectives), key=lambda record: record.index)
    if not front:
        return ""
    num = len(_measured(records, objectives))
    ends = []
    for name, direction in objectives.items():
        is_low = direction == "minimize"
        best = (min if is_low else max)(front, key=lambda record: record.metrics[name])
        others = (f"`{other}` {best.metrics[other]:.4g}" for other in objectives if other != name)
        word = "lowest" if is_low else "highest"
        ends.append(f"{word} `{name}` {best.metrics[name]:.4g} at {', '.join(others)} in `{best.name}`")
    asked = " and ".join(f"`{name}` {way}d" for name, way in objectives.items())
    are = "trial is" if len(front) == 1 else "trials are"
    return (
        f"No trial is called best, as several objectives are asked ({asked}): {len(front)} of {num} finished "
        f"{are} on the front, which no other one beats in all of them (`pareto.csv`); {'; '.join(ends)}."
    )


def _measured(records: Sequence[TrialRecord], objectives: Mapping[str, str]) -> list[TrialRecord]:
    """Return the finished trials that have a finite value of every objective."""
    return [
        one
        for one in records
        if one.status == "finished" and all(math.isfinite(one.metrics.get(m, math.nan)) for m in objectives)
    ]

"""Hypervolume of a front: how much of the space of objectives it dominates, up to a reference point."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna._hypervolume import compute_hypervolume  # exact; Optuna has no public name for it

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.search import Search
from orchestrator.metrics.names import MetricName


def reference_point(search: Search) -> dict[str, float]:
    """Return the worst value that counts of each objective: as `search.stop` has it, else of a share 0 where it
    is maximized and 1 where it is minimized.

    Raise `Refused` for an objective that is no share and has none.
    """
    given = search.stop.reference if search.stop else {}
    for name in search.objectives:
        if name not in given and not MetricName.parse(name).metric.is_share:
            rule = f"has no worst value of {name}, which is no share of images"
            way_out = f"add {{{name}: VALUE}}, the worst value that counts"
            raise Refused("search.stop.reference", NO_VALUE, rule, way_out)
    shares = {name: float(way == "minimize") for name, way in search.objectives.items()}
    return {name: given.get(name, shares[name]) for name in search.objectives}


def hypervolume(
    values: Sequence[Sequence[float]], objectives: Mapping[str, str], reference: Mapping[str, float]
) -> float:
    """Return the volume that trials dominate up to the reference point, in the product of the objectives' units;
    0 where none is better than the reference in all of them.

    `values`: (trials, objectives), in the objectives' order; trials with a value that is not finite count not.
    """
    signs = np.array([-1.0 if way == "maximize" else 1.0 for way in objectives.values()])
    corner = signs * np.array([reference[name] for name in objectives])
    losses = [signs * np.array(own) for own in values if all(map(math.isfinite, own))]
    inside = np.array([own for own in losses if (own < corner).all()])
    return float(compute_hypervolume(inside, corner)) if len(inside) else 0.0


class Growth:
    """Whether the hypervolume of a search's front still grows, as `search.stop` has it."""

    def __init__(self, search: Search) -> None:
        assert search.stop is not None
        self._stop, self._objectives = search.stop, search.objectives
        self._reference = reference_point(search)
        self._values: list[Sequence[float]] = []
        self._volumes = [0.0]  # after each trial that was asked; the first before any

    def start(self, values: Sequence[float]) -> None:
        """Add a trial that was not asked."""
        self._values.append(values)
        self._volumes[0] = hypervolume(self._values, self._objectives, self._reference)

    def add(self, values: Sequence[float] | None) -> None:
        """Add a trial that was asked; None where it has no objectives."""
        if values is None:
            self._volumes.append(self._volumes[-1])
            return
        self._values.append(values)
        self._volumes.append(hypervolume(self._values, self._objectives, self._reference))

    def ended(self) -> str:
        """Return why the search ends; empty while the front grows, or has nothing beyond the reference yet."""
        patience, now = self._stop.patience, self._volumes[-1]
        if len(self._volumes) <= patience or not now:
            return ""
        growth = now - self._volumes[-1 - patience]
        if growth > self._stop.tolerance * now:
            return ""
        asked = len(self._volumes) - 1
        return (
            f"the hypervolume of the front, {now:.4g}, grew by {growth / now:.2%} over the last {patience} of "
            f"{asked} trials, at most search.stop.tolerance={self._stop.tolerance:g}"
        )

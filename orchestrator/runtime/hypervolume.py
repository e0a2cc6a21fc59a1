"""Hypervolume of a front: how much of the space of objectives it dominates, up to a reference point."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna._hypervolume import compute_hypervolume  # exact; Optuna has no public name for it

from orchestrator.config.search import Search
from orchestrator.sweep.study_checks import reference_point


def hypervolume(
    values: Sequence[Sequence[float]], objectives: Mapping[str, str], reference: Mapping[str, float]
) -> float:
    """Return the volume that trials dominate up to the reference point, in the product of the objectives'
    units; 0 where none is better than the reference in all of them.

    `values`: (trials, objectives), in the objectives' order; trials with a value that is not finite are left
    out.
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
        """Return why the search ends; empty while the front grows, or nothing is beyond the reference yet."""
        patience, now = self._stop.patience, self._volumes[-1]
        if len(self._volumes) <= patience or not now:
            return ""
        growth = now - self._volumes[-1 - patience]
        if growth > self._stop.tolerance * now:
            return ""
        asked = len(self._volumes) - 1
        return (
            f"the hypervolume of the front, {now:.4g}, grew by {growth / now:.2%} over the last {patience} "
            f"of {asked} trials, at most search.stop.tolerance={self._stop.tolerance:g}"
        )

"""Importance: how much of a metric's variance over a sweep each axis accounts for.

Of a grid, the exact analysis of variance of its largest complete block (R. A. Fisher, 1925): in a block where
every combination of values has every replicate, the sums of squares of axes, of their interactions, of
replicates and of what both make together are orthogonal and add up to the total. Shares are those sums over
the total. A share of few replicates is too large by chance: `beyond_chance` is what is left of it beyond its
own error (omega squared, W. L. Hays, 1963), `p` is of the F test against that error (`anova.py`), `p_holm`
the same after Holm's correction over all axes and interactions of the metric.

Of a search, which has no such block, a model of its trials says it: `method` names which.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from orchestrator.config.report import Report
from orchestrator.report.anova import Anova, Places
from orchestrator.report.means import DEFAULTS
from orchestrator.report.settings import (
    by_setting,
    finished_trials,
    replicate_of,
    replicates_of,
    varying_axes,
)
from orchestrator.report.statistics import NAN, Interval, holm
from orchestrator.sweep.forest import Forest
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

ANOVA = "analysis of variance"
SEARCHED = "fANOVA of a random forest (Optuna)"
"""The method for searches: Hutter, Hoos and Leyton-Brown, 2014; a model's shares, not the trials' own."""
NO_BLOCK = "not a grid"
MOST_CELLS = 100_000  # combinations of values that are looked through for a complete block
MOST_STEPS = 500  # branches of that search
MOST_ORDER = 2  # axes of an interaction that has a row of its own
HIGHER, REPLICATES, BOTH = "three or more axes", "replicates", "replicates x axes"


Searched = Callable[[str], Forest | None]
"""Metric -> what a model of a search's trials says; None where there are too few."""


@dataclass(frozen=True)
class Source:
    """One part of the variance."""

    axes: tuple[str, ...]  # none: replicates, alone or with axes; more than one: their interaction
    name: str
    freedom: int
    share: float
    interval: Interval = field(default_factory=Interval)
    beyond_chance: float = NAN
    p: float = NAN
    p_holm: float = NAN


@dataclass(frozen=True)
class Importance:
    """The sources of a metric's variance, replicates last."""

    metric: str
    method: str
    sources: tuple[Source, ...] = ()
    num_settings: int = 0  # of the block; of a search its trials
    all_settings: int = 0  # of the sweep
    num_replicates: int = 0  # of each setting
    values: Mapping[str, tuple[str, ...]] | None = None  # axis -> its values in the block
    fixed: Mapping[str, str] = field(default_factory=dict)  # varying axis -> its one value in the block
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # axis -> values not in the block
    is_ahead: bool = False  # whether the largest axis is shown to have more than each other one (Holm)
    explained: float = NAN  # of a search: R2 out of bag

    @property
    def axes(self) -> list[Source]:
        """The sources of one axis, the largest share first."""
        single = [one for one in self.sources if len(one.axes) == 1]
        return sorted(single, key=lambda one: -one.share)

    @property
    def interactions(self) -> list[Source]:
        """The sources of several axes together, the largest share first."""
        return sorted((one for one in self.sources if len(one.axes) > 1), key=lambda one: -one.share)

    @property
    def has_answer(self) -> bool:
        """Whether there are shares at all: a metric that does not vary has none."""
        return bool(self.axes) and not math.isnan(self.axes[0].share)


@dataclass(frozen=True)
class Block:
    """A complete block: each combination of its values has each of its replicates."""

    axes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each axis, as tables write them
    trials: np.ndarray  # objects, an axis for each of `axes` and one of replicates


def importances(
    records: Sequence[TrialRecord],
    metrics: Sequence[str],
    report: Report = DEFAULTS,
    searched: Searched | None = None,
) -> list[Importance]:
    """Return the importance of each metric that finished trials have; `searched` speaks for a search."""
    found, finished = [], finished_trials(records)
    for metric in metrics:
        having = [one for one in finished if math.isfinite(one.metrics.get(metric, math.nan))]
        if having:
            own = _of_search(having, metric, report, searched) if searched else None
            found.append(own or _of_grid(having, finished, metric, report))
    return found


def importance_table(found: Sequence[Importance]) -> pd.DataFrame:
    """Return a row for each source of each metric; one row that says why where there is none."""
    rows: list[dict[str, object]] = []
    for one in found:
        head = {"metric": one.metric, "method": one.method}
        tail = {
            "settings": one.num_settings,
            "of_settings": one.all_settings,
            "replicates": one.num_replicates,
        }
        for source in one.sources:
            rows.append(
                {
                    **head,
                    "source": source.name,
                    "axes": len(source.axes),
                    "freedom": source.freedom if source.freedom else "",
                    "share": source.share,
                    "low": source.interval.low,
                    "high": source.interval.high,
                    "beyond_chance": source.beyond_chance,
                    "p": source.p,
                    "p_holm": source.p_holm,
                    **tail,
                }
            )
        if not one.sources:
            rows.append({**head, "source": "", **tail})
    return pd.DataFrame(rows)


def largest_block(records: Sequence[TrialRecord], report: Report = DEFAULTS) -> Block | None:
    """Return the complete block of most trials, of two settings at least; None if there is none.

    Of several equally large ones the one with the values that come first. A sweep of very many combinations,
    as random draws make them, has none that is looked for.
    """
    axes = varying_axes(records, report.repeats)
    repeated = sorted(replicates_of(records, report.repeats))
    words = [
        (*(str(one.axes.get(axis, ABSENT)) for axis in axes), str([one.axes.get(axis) for axis in repeated]))
        for one in records
    ]
    levels = [list(dict.fromkeys(own)) for own in zip(*words, strict=True)]
    shape = tuple(map(len, levels))
    if not axes or math.prod(shape) > MOST_CELLS:
        return None
    places = {tuple(own.index(word) for own, word in zip(levels, row, strict=True)): row for row in words}
    trials = dict(zip(words, records, strict=True))
    filled = np.zeros(shape, dtype=bool)
    filled[tuple(np.array(list(places)).T)] = True
    kept = _complete([np.arange(size) for size in shape], filled)
    if math.prod(map(len, kept[:-1])) < 2:
        return None
    chosen = np.empty(tuple(map(len, kept)), dtype=object)
    for place in np.ndindex(chosen.shape):
        chosen[place] = trials[places[tuple(int(own[at]) for own, at in zip(kept, place, strict=True))]]
    several = [axis for axis, own in enumerate(kept[:-1]) if len(own) > 1]
    chosen = chosen.reshape([*(len(kept[axis]) for axis in several), len(kept[-1])])
    values = tuple(tuple(levels[axis][at] for at in kept[axis]) for axis in several)
    return Block(tuple(axes[axis] for axis in several), values, chosen)


def _complete(start: Sequence[np.ndarray], filled: np.ndarray) -> list[np.ndarray]:
    """Return the levels of each axis whose combinations are all filled, as many combinations as can be.

    Some level of each empty combination has to go: branch over which, the axis that loses least first, and
    leave branches that are not larger than what is known already.
    """
    best: list[np.ndarray] = [part[:0] for part in start]
    size, steps = 0, 0
    waiting = [list(start)]
    while waiting and steps < MOST_STEPS:
        kept = waiting.pop()
        own = math.prod(map(len, kept))
        if own <= size:
            continue
        steps += 1
        block = filled[np.ix_(*kept)]
        if block.all():
            best, size = kept, own
            continue
        shares = [
            block.mean(axis=tuple(o for o in range(block.ndim) if o != axis)) for axis in range(block.ndim)
        ]
        emptiest = min(range(block.ndim), key=lambda axis: (float(shares[axis].min()), axis))
        level = int(len(kept[emptiest]) - 1 - np.argmin(shares[emptiest][::-1]))  # the last of equals
        hole = _first_hole(block, emptiest, level)
        branches = []
        for axis, at in enumerate(hole):
            left = [part if other != axis else np.delete(part, at) for other, part in enumerate(kept)]
            branches.append((float(shares[axis][at]), -math.prod(map(len, left)), -axis, left))
        waiting += [left for *_, left in sorted(branches, key=lambda one: one[:3], reverse=True)]
    return best


def _first_hole(block: np.ndarray, axis: int, level: int) -> tuple[int, ...]:
    """Return the first combination with this level that is not filled; there is one."""
    rest = np.argwhere(~block.take(level, axis))[0].tolist()
    return (*rest[:axis], level, *rest[axis:])


def _of_grid(
    having: Sequence[TrialRecord], finished: Sequence[TrialRecord], metric: str, report: Report
) -> Importance:
    num = len(by_setting(finished, report.repeats))
    block = largest_block(having, report)
    if block is None:
        return Importance(metric, NO_BLOCK, all_settings=num)
    values = np.vectorize(lambda one: one.metrics[metric], otypes=[np.float64])(block.trials)
    replicates = [
        replicate_of(one.axes, report.repeats) for one in block.trials.reshape(-1, values.shape[-1])[0]
    ]
    anova = Anova(values, replicates)
    fixed, left_out = _outside(block, finished, report)
    first, *others = sorted(
        ((at,) for at in range(len(block.axes))), key=lambda key: -anova.part([key]).squares
    )
    return Importance(
        metric,
        ANOVA,
        _sources(anova, block.axes),
        num_settings=values[..., 0].size,
        all_settings=num,
        num_replicates=values.shape[-1],
        values=dict(zip(block.axes, block.values, strict=True)),
        fixed=fixed,
        left_out=left_out,
        is_ahead=anova.is_ahead(first, others),
    )


def _outside(
    block: Block, finished: Sequence[TrialRecord], report: Report
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the axes of finished trials that vary but not in the block, and the values that it lacks."""
    values = dict(zip(block.axes, block.values, strict=True))
    fixed: dict[str, str] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    for axis in varying_axes(finished, report.repeats):
        levels = dict.fromkeys(str(one.axes.get(axis, ABSENT)) for one in finished)
        missing = tuple(level for level in levels if level not in values.get(axis, ()))
        if axis not in values:
            fixed[axis] = str(block.trials.flat[0].axes.get(axis, ABSENT))
        elif missing:
            left_out[axis] = missing
    return fixed, left_out


def _sources(anova: Anova, axes: Sequence[str]) -> tuple[Source, ...]:
    """Return every source: axes, interactions, replicates, and replicates together with axes."""
    rows: dict[str, list[Places]] = {}
    for key in anova.places:
        name = " x ".join(axes[at] for at in key) if len(key) <= MOST_ORDER else HIGHER
        rows.setdefault(name, []).append(key)
    total, found = anova.total, []
    intervals, left = anova.intervals(rows), anova.total - anova.replicate_squares
    for name, keys in rows.items():
        part = anova.part(keys)
        left -= part.squares
        own = Source(
            tuple(dict.fromkeys(axes[at] for key in keys for at in key)),
            name,
            part.freedom,
            part.squares / total if total else NAN,
            intervals.get(name, Interval()),
        )
        if not math.isnan(part.p):
            beyond = (part.squares - part.freedom * part.noise) / (total + part.noise)
            own = replace(own, beyond_chance=beyond, p=part.p)
        found.append(own)
    found = [replace(one, p_holm=p) for one, p in zip(found, holm([one.p for one in found]), strict=True)]
    if anova.num > 1:
        freedom, num = anova.num - 1, math.prod(anova.shape)
        found += [
            Source((), REPLICATES, freedom, anova.replicate_squares / total if total else NAN),
            Source((), BOTH, freedom * (num - 1), max(left, 0.0) / total if total else NAN),
        ]
    return tuple(found)


def _of_search(
    records: Sequence[TrialRecord], metric: str, report: Report, searched: Searched
) -> Importance | None:
    """Return what a model of the trials says; None if it has nothing to say."""
    forest = searched(metric)
    if forest is None:
        return None
    sources = tuple(Source((axis,), axis, 0, share) for axis, share in forest.shares.items())
    num = len(by_setting(records, report.repeats))
    return Importance(metric, SEARCHED, sources, forest.num_trials, num, explained=forest.explained)

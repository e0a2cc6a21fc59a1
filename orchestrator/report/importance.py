"""Importance: how much of a metric's variance over a sweep each axis accounts for.

Of a grid, the exact analysis of variance of its largest complete block (R. A. Fisher, 1925): in a block where
every combination of values has every replicate, the sums of squares of axes, of their interactions and of
replicates are orthogonal and add up to the total. Shares are those sums over the total. Their intervals are
percentiles over resampled replicates, the same draw for all settings; classes are held fixed. A share of few
replicates is too large by chance: `beyond_chance` is what is left of it beyond the replicates' own spread
(omega squared, W. L. Hays, 1963), and `p` is of the F test against that spread.

Of a search, which has no such block, a model of its trials says it: `method` names which.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import special

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.report.crossed import Crossed, cross
from orchestrator.report.means import DEFAULTS
from orchestrator.report.resampling import resampled_means
from orchestrator.report.settings import (
    by_setting,
    finished_trials,
    replicate_of,
    replicates_of,
    varying_axes,
)
from orchestrator.report.statistics import CONFIDENCE, NAN, Interval
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

ANOVA = "analysis of variance"
SEARCHED = "fANOVA of a random forest (Optuna)"
"""The method for searches: Hutter, Hoos and Leyton-Brown, 2014; a model's shares, not the trials' own."""
NO_BLOCK = "not a grid"
DRAWS = 2000  # resampled sets of replicates
MOST_CELLS = 100_000  # combinations of values that are looked through for a complete block
MOST_STEPS = 500  # branches of that search
MOST_ORDER = 2  # axes of an interaction that has a row of its own
HIGHER, REPLICATES = "three or more axes", "replicates"
ROUNDING = 1e-12  # of squares, beside those of the largest value: equal numbers have no variance

Places = tuple[int, ...]
"""Numbers of axes that vary together."""

Searched = Callable[[str], Mapping[str, float]]
"""Metric -> swept axis -> share, as a model of a search's trials has it; empty where there are too few."""


@dataclass(frozen=True)
class Source:
    """One part of the variance."""

    axes: tuple[str, ...]  # none: replicates; more than one: their interaction
    name: str
    freedom: int
    share: float
    interval: Interval = field(default_factory=Interval)
    beyond_chance: float = NAN
    p: float = NAN


@dataclass(frozen=True)
class Importance:
    """The sources of a metric's variance, replicates last."""

    metric: str
    method: str
    sources: tuple[Source, ...] = ()
    num_settings: int = 0  # of the block, or of the search
    all_settings: int = 0  # of the sweep
    num_replicates: int = 0  # of each setting
    values: Mapping[str, tuple[str, ...]] | None = None  # axis -> its values in the block
    is_ahead: bool = False  # whether the largest axis's share is above the next one's at 95 %

    @property
    def axes(self) -> list[Source]:
        """The sources of one axis, the largest share first."""
        single = [one for one in self.sources if len(one.axes) == 1]
        return sorted(single, key=lambda one: -one.share)

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
    found = []
    for metric in metrics:
        having = [one for one in finished_trials(records) if math.isfinite(one.metrics.get(metric, math.nan))]
        if having:
            own = _of_search(having, metric, report, searched) if searched else None
            found.append(own or _of_grid(having, metric, report))
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


def _of_grid(records: Sequence[TrialRecord], metric: str, report: Report) -> Importance:
    num = len(by_setting(records, report.repeats))
    block = largest_block(records, report)
    if block is None:
        return Importance(metric, NO_BLOCK, all_settings=num)
    values = np.vectorize(lambda one: one.metrics[metric], otypes=[np.float64])(block.trials)
    replicates = [
        replicate_of(one.axes, report.repeats) for one in block.trials.reshape(-1, values.shape[-1])[0]
    ]
    drawn = _draws(values.reshape(-1, values.shape[-1]), replicates)
    sources, is_ahead = _sources(values, block.axes, drawn)
    return Importance(
        metric,
        ANOVA,
        sources,
        num_settings=values[..., 0].size,
        all_settings=num,
        num_replicates=values.shape[-1],
        values=dict(zip(block.axes, block.values, strict=True)),
        is_ahead=is_ahead,
    )


def _draws(
    cells: np.ndarray, replicates: Sequence[Mapping[str, Scalar]]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return means of settings, (draws, settings), and mean squares of all values, (draws,), over resampled
    replicates; None for one replicate. `cells`: (settings, replicates)."""
    crossed = [cross(list(zip(replicates, map(float, own), strict=True))) for own in cells]
    if not crossed[0].drawn:
        return None
    means = np.stack([resampled_means(one, DRAWS) for one in crossed], axis=1)
    squares = [resampled_means(Crossed(one.values**2, one.factors), DRAWS) for one in crossed]
    return means, np.mean(squares, axis=0)


def _sources(
    values: np.ndarray, axes: Sequence[str], drawn: tuple[np.ndarray, np.ndarray] | None
) -> tuple[tuple[Source, ...], bool]:
    """Return every source, and whether the largest axis is ahead. `values`: an axis for each of `axes`, the
    last of replicates."""
    shape, num_replicates = values.shape[:-1], values.shape[-1]
    largest = float((values**2).max())
    values = values - values.mean()
    total = float((values**2).sum())
    total = total if total > ROUNDING**2 * largest * values.size else 0.0
    own: dict[Places, float] = {
        key: num_replicates * float(part[0]) for key, part in _squares(values.mean(-1)[None]).items()
    }
    resampled = {} if drawn is None or not total else _resampled_shares(*drawn, shape)
    free = math.prod(shape) * (num_replicates - 1)
    rest = max(total - sum(own.values()), 0.0)
    noise = rest / free if free else NAN
    rows: dict[str, list[Places]] = {}
    for key in own:
        rows.setdefault(" x ".join(axes[at] for at in key) if len(key) <= MOST_ORDER else HIGHER, []).append(
            key
        )
    found = []
    for name, keys in rows.items():
        freedom = sum(math.prod(shape[at] - 1 for at in key) for key in keys)
        squares = sum(own[key] for key in keys)
        source = Source(
            tuple(dict.fromkeys(axes[at] for key in keys for at in key)),
            name,
            freedom,
            squares / total if total else NAN,
            _percentiles(_sum(resampled[key] for key in keys)) if resampled else Interval(),
        )
        if total and free:
            beyond, p = (
                (squares - freedom * noise) / (total + noise),
                _f_test(squares / freedom, noise, freedom, free),
            )
            source = replace(source, beyond_chance=beyond, p=p)
        found.append(source)
    if free:
        interval = _percentiles(1.0 - _sum(resampled.values())) if resampled else Interval()
        found.append(Source((), REPLICATES, free, rest / total if total else NAN, interval))
    shares: dict[Places, float] = {key: part for key, part in own.items() if len(key) == 1}
    return tuple(found), _is_ahead(shares, resampled)


def _resampled_shares(
    means: np.ndarray, squares: np.ndarray, shape: tuple[int, ...]
) -> dict[Places, np.ndarray]:
    """Return the share of each source in each draw; NaN where a resampled sweep does not vary."""
    center = means.mean(axis=1, keepdims=True)
    whole = (squares - center[:, 0] ** 2) * math.prod(shape)
    parts = _squares((means - center).reshape(-1, *shape))
    return {key: part / np.where(whole > 0, whole, np.nan) for key, part in parts.items()}


def _squares(means: np.ndarray) -> dict[Places, np.ndarray]:
    """Return axes, alone and together, -> the sum of their squared effects over all settings, (draws,).

    `means`: (draws, ...), an axis for each swept one. Orthonormal contrasts of each axis, the first one
    constant, split the squares of all settings among the axes that a contrast is not constant in.
    """
    for axis, size in enumerate(means.shape[1:], start=1):
        means = np.moveaxis(np.tensordot(means, _contrasts(size), axes=(axis, 1)), -1, axis)
    squares, num_axes = means**2, means.ndim - 1
    found = {}
    for order in range(1, num_axes + 1):
        for axes in itertools.combinations(range(num_axes), order):
            place = tuple(slice(1, None) if axis in axes else slice(0, 1) for axis in range(num_axes))
            found[axes] = squares[(slice(None), *place)].reshape(len(squares), -1).sum(axis=1)
    return found


def _contrasts(size: int) -> np.ndarray:
    """Return an orthonormal basis, (size, size), whose first row is constant (Helmert)."""
    rows = [np.full(size, 1 / math.sqrt(size))]
    for number in range(1, size):
        row = np.zeros(size)
        row[:number], row[number] = 1.0, -number
        rows.append(row / math.sqrt(number * (number + 1)))
    return np.stack(rows)


def _f_test(squares: float, noise: float, freedom: int, free: int) -> float:
    """Return the p-value of a mean square against that of replicates; 0 where replicates do not differ."""
    return float(special.fdtrc(freedom, free, squares / noise)) if noise > 0 else 0.0


def _is_ahead(shares: Mapping[Places, float], resampled: Mapping[Places, np.ndarray]) -> bool:
    """Return whether the largest share of an axis is above the next one's in 95 % of the draws, two-sided."""
    first, *others = sorted(shares, key=lambda axis: -shares[axis])
    if not resampled:
        return False
    return not others or _percentiles(resampled[first] - resampled[others[0]]).low > 0


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.sum(list(parts), axis=0)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _of_search(
    records: Sequence[TrialRecord], metric: str, report: Report, searched: Searched
) -> Importance | None:
    """Return what a model of the trials says; None if it has nothing to say."""
    shares = searched(metric)
    if not shares:
        return None
    sources = tuple(Source((axis,), axis, 0, share) for axis, share in shares.items())
    num = len(by_setting(records, report.repeats))
    return Importance(metric, SEARCHED, sources, num, num)

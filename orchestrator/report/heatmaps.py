"""Heat maps: a metric's mean for each pair of swept axes, over settings that all cells share.

An axis of more than `MOST_VALUES` numbers, as random searches and Optuna draw them, is continuous: its pairs
are scattered, a point for each trial. Every picture is bounded in cells and pixels, and so is their number.
"""

import itertools
import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from orchestrator.config.study import is_seed
from orchestrator.metrics.names import MetricName
from orchestrator.metrics.plots import figure_png
from orchestrator.report.held import ON_HELD, reads_held
from orchestrator.report.pictures import drawn
from orchestrator.report.settings import Repeats
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

logger = logging.getLogger(__name__)

MOST_VALUES = 24  # of an axis in a heat map
MOST_MAPS = 45  # the pairs of ten axes
LOGARITHMIC = 100  # an axis is, if its values differ by this factor
LONGEST_TICK = 40  # letters


def heat_maps(records: Sequence[TrialRecord], metric: str, repeats: Repeats = is_seed) -> dict[str, bytes]:
    """Return one PNG for each pair of swept axes: the metric's mean over settings that all cells share.

    Cells of a sweep of several grids may hold different settings of the other axes; their means would compare
    unlike things. A pair whose cells share nothing has no map. Raise `Refused` for an unknown metric.
    """
    measured = [
        record
        for record in sorted(records, key=lambda one: one.index)  # not in the order in which trials ended
        if record.status == "finished" and math.isfinite(record.metrics.get(metric, math.nan))
    ]
    if not measured:
        return {}
    table = pd.DataFrame([{**record.axes, "value": record.metrics[metric]} for record in measured])
    title, colours = _title(metric, measured), colours_of(metric)
    axes = [name for name in table.columns if name != "value" and table[name].nunique(dropna=False) > 1]
    pairs = list(itertools.combinations([name for name in axes if not repeats(name)], 2))
    if len(pairs) > MOST_MAPS:
        logger.warning("event=heat_maps_left_out pairs=%d drawn=%d", len(pairs), MOST_MAPS)
    maps: dict[str, bytes | None] = {}
    for one, other in pairs[:MOST_MAPS]:
        long = [axis for axis in (one, other) if table[axis].nunique() > MOST_VALUES]
        pair = f"{_plain(one)}-{_plain(other)}.png"
        if not long:
            rest = [axis for axis in axes if axis not in (one, other)]
            maps[f"heatmap-{pair}"] = drawn(
                f"heatmap-{pair}", _heat_map, table, (one, other), rest, title, colours
            )
            continue
        having = table[(table[long] != ABSENT).all(axis=1)]
        if all(map(_is_number, having[long].to_numpy().ravel().tolist())):
            maps[f"scatter-{pair}"] = drawn(f"scatter-{pair}", _scatter, having, (one, other), title, colours)
        else:
            logger.warning(
                "event=heat_map_left_out name=%s reason=%r", pair, f"{long[0]} has too many values"
            )
    return {name: png for name, png in maps.items() if png is not None}


def is_logarithmic(values: Sequence[float]) -> bool:
    """Return whether numbers are shown on a logarithmic scale: positive, and far apart."""
    return 0 < min(values) * LOGARITHMIC < max(values)


def matched_settings(table: pd.DataFrame, one: str, other: str, rest: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose other axes take values that every (one, other) cell has."""
    settings = pd.Series(list(table[list(rest)].itertuples(index=False, name=None)), index=table.index)
    cells = [set(part) for _, part in settings.groupby([table[one], table[other]])]
    return table.assign(setting=settings)[settings.isin(set.intersection(*cells))]


def _heat_map(
    table: pd.DataFrame, pair: tuple[str, str], rest: Sequence[str], title: str, colours: str
) -> bytes | None:
    """Draw means with the number in each cell, None if cells share nothing; what was not run stays empty."""
    one, other = pair
    table = matched_settings(table, one, other, rest)
    if table.empty:
        return None
    means = table.pivot_table(index=one, columns=other, values="value", aggfunc="mean", sort=False)
    means = means.reindex(index=list(dict.fromkeys(table[one])), columns=list(dict.fromkeys(table[other])))
    values = means.to_numpy(dtype=float)
    figure = Figure(
        figsize=(1.3 * values.shape[1] + 2.6, 0.7 * values.shape[0] + 1.6), dpi=120, layout="constrained"
    )
    axis = figure.subplots()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    image = axis.imshow(values, cmap=colours, aspect="auto", vmin=low, vmax=high)
    axis.set_xticks(range(values.shape[1]), _ticks(means.columns))
    axis.set_yticks(range(values.shape[0]), _ticks(means.index))
    axis.set_xlabel(other)
    axis.set_ylabel(one)
    shared = f"mean of {table['setting'].nunique()} settings that every cell has"
    axis.set_title(f"{title}\n{shared}", fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            share = (value - low) / (high - low) if high > low else 0.0
            is_light = (1 - share if colours.endswith("_r") else share) > 0.6
            axis.text(
                column, row, f"{value:.4g}", ha="center", va="center", color="black" if is_light else "white"
            )
    figure.colorbar(image)
    return figure_png(figure)


def _scatter(table: pd.DataFrame, pair: tuple[str, str], title: str, colours: str) -> bytes:
    """Draw a point for each trial, coloured by the metric; words have places in their order."""
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    plot = figure.subplots()
    places = []
    for axis, values in ((plot.yaxis, table[pair[0]]), (plot.xaxis, table[pair[1]])):
        if all(map(_is_number, values)):
            places.append(values.to_numpy(dtype=float))
            if is_logarithmic(places[-1].tolist()):
                (plot.set_yscale if axis is plot.yaxis else plot.set_xscale)("log")
        else:
            codes, words = pd.factorize(values.map(str))
            places.append(codes.astype(float))
            axis.set_ticks(range(len(words)), _ticks(words))
    points = plot.scatter(places[1], places[0], c=table["value"].to_numpy(dtype=float), cmap=colours, s=18)
    plot.set_xlabel(pair[1])
    plot.set_ylabel(pair[0])
    plot.set_title(f"{title}\n{len(table)} trials", fontsize=8)
    figure.colorbar(points)
    return figure_png(figure)


def _title(metric: str, records: Sequence[TrialRecord]) -> str:
    """Return the metric with unit and direction, and in how many trials it reads held images."""
    held = sum(reads_held(record, metric) for record in records)
    words = f"\n{held} of {len(records)} trials {ON_HELD}" if held else ""
    named = MetricName.parse(metric)
    darker = ", darker leaks more" if named.metric.leaks else ""
    return f"{metric}\n{named.describe()}{darker}{words}"


def colours_of(metric: str) -> str:
    """Return the colour map of a metric, in which darker always leaks more; raise `Refused` for an unknown
    one."""
    return "viridis_r" if MetricName.parse(metric).metric.leaks == "up" else "viridis"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ticks(names: Iterable[object]) -> list[str]:
    return [str(name)[:LONGEST_TICK] for name in names]


def _plain(name: str) -> str:
    return name.replace(".", "-").replace("_", "-")

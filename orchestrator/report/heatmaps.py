"""Heat maps: a metric's mean for each pair of swept axes, over settings that all cells share."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from orchestrator.config.study import is_seed
from orchestrator.metrics.names import MetricName
from orchestrator.metrics.plots import figure_png
from orchestrator.sweep.records import TrialRecord


def heat_maps(records: Sequence[TrialRecord], metric: str) -> dict[str, bytes]:
    """Return one PNG for each pair of swept axes: the metric's mean over settings that all cells share.

    Cells of a sweep of several grids may hold different settings of the other axes; their means would compare
    unlike things. A pair whose cells share nothing has no map. Raise `Refused` for an unknown metric.
    """
    rows = [
        {**r.axes, "value": r.metrics[metric]}
        for r in sorted(records, key=lambda one: one.index)  # not in the order in which trials ended
        if r.status == "finished" and metric in r.metrics
    ]
    if not rows:
        return {}
    table = pd.DataFrame(rows)
    axes = [name for name in table.columns if name != "value" and table[name].nunique(dropna=False) > 1]
    maps = {}
    for one, other in itertools.combinations([name for name in axes if not is_seed(name)], 2):
        matched = matched_settings(table, one, other, [a for a in axes if a not in (one, other)])
        if not matched.empty:
            maps[f"heatmap-{_plain(one)}-{_plain(other)}.png"] = _heat_map(matched, one, other, metric)
    return maps


def matched_settings(table: pd.DataFrame, one: str, other: str, rest: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose other axes take values that every (one, other) cell has."""
    settings = pd.Series(list(table[list(rest)].itertuples(index=False, name=None)), index=table.index)
    cells = [set(part) for _, part in settings.groupby([table[one], table[other]])]
    return table.assign(setting=settings)[settings.isin(set.intersection(*cells))]


def _heat_map(table: pd.DataFrame, one: str, other: str, metric: str) -> bytes:
    """Draw means with the number in each cell; combinations that were not run stay empty."""
    means = table.pivot_table(index=one, columns=other, values="value", aggfunc="mean", sort=False)
    means = means.reindex(index=list(dict.fromkeys(table[one])), columns=list(dict.fromkeys(table[other])))
    values = means.to_numpy(dtype=float)
    figure = Figure(
        figsize=(1.3 * values.shape[1] + 2.6, 0.7 * values.shape[0] + 1.6), dpi=120, layout="constrained"
    )
    axis = figure.subplots()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    image = axis.imshow(values, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    axis.set_xticks(range(values.shape[1]), [str(name) for name in means.columns])
    axis.set_yticks(range(values.shape[0]), [str(name) for name in means.index])
    axis.set_xlabel(other)
    axis.set_ylabel(one)
    shared = f"mean of {table['setting'].nunique()} settings that every cell has"
    axis.set_title(f"{metric}\n{MetricName.parse(metric).describe()}\n{shared}", fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            is_light = value > low + 0.6 * (high - low)
            axis.text(
                column, row, f"{value:.4g}", ha="center", va="center", color="black" if is_light else "white"
            )
    figure.colorbar(image)
    return figure_png(figure)


def _plain(name: str) -> str:
    return name.replace(".", "-").replace("_", "-")

"""Robustness curves, histograms and costs over the settings of a study; each plot has its table.

A curve (TL-DMI, Figure 1) has leakage over utility with a point for each checkpoint of a target; a histogram
(Figures 6 and 7) shows the target's confidence in successful and failed reconstructions; `costs_table` (Table
13) divides one stage's seconds by those of a reference.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure

from orchestrator.config.base import Scalar
from orchestrator.config.report import Costs, Histogram, Report, RobustnessCurve
from orchestrator.config.study import is_seed
from orchestrator.metrics.names import Metric, MetricName
from orchestrator.metrics.plots import figure_png
from orchestrator.report.held import caption, held_by_metric, held_column, without_empty
from orchestrator.report.means import DEFAULTS, mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import (
    Repeats,
    Setting,
    finished_trials,
    fits,
    in_words,
    merged_axes,
    narrowed,
    present_values,
    replicates_of,
    setting_of,
    varying_axes,
)
from orchestrator.report.statistics import half_column, mean_and_interval
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.adversary import HELD
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

logger = logging.getLogger(__name__)
Part = TypeVar("Part")
Lines = dict[Scalar, dict[tuple[Scalar, ...], list[TrialRecord]]]
"""Value of a curve's line -> values of the axes that tell its points apart -> trials of the point."""

DPI = 120
BINS = 20
MOST_LINES, MOST_PANELS = 24, 12  # in one picture
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKERS = "osD^vP*X"
SUCCESSFUL, FAILED = "#d55e00", "#0072b2"
PERCENT = 100


def curve_table(
    curve: RobustnessCurve,
    records: Sequence[TrialRecord],
    images: PerImage | None = None,
    report: Report = DEFAULTS,
) -> pd.DataFrame:
    """Return one row for each point of each line: means over seeds with half a 95 % interval over seeds and,
    where images are kept, classes; may be empty."""
    others, lines = curve_lines(curve, records, report)
    rows = []
    for line, points in lines.items():
        for place, members in points.items():
            row: dict[str, object] = {curve.line: line, **dict(zip(others, place, strict=True))}
            for metric in (curve.x, curve.y):
                row[metric], row[half_column(metric)] = mean_and_half(members, metric, images, report)
            rows.append(row | {"seeds": len(members)} | held_column(members))
    return without_empty(pd.DataFrame(rows))


def curve_lines(
    curve: RobustnessCurve, records: Sequence[TrialRecord], report: Report = DEFAULTS
) -> tuple[list[str], Lines]:
    """Return the axes that tell a line's points apart, the axis of the points first, and the trials of each
    point of each line."""
    measured = [r for r in finished_trials(records) if curve.x in r.metrics and curve.y in r.metrics]
    fitting = [r for r in measured if curve.line in r.axes and fits(r.axes, curve.where)]
    others = [
        axis for axis in varying_axes(fitting, report.repeats) if axis not in (curve.line, curve.points)
    ]
    if curve.points:
        fitting = narrowed(
            fitting, {curve.line, curve.points, *curve.where, *replicates_of(fitting, report.repeats)}
        )
        others = [curve.points, *others]
    lines: Lines = {}
    for record in fitting:
        place = tuple(record.axes.get(axis, ABSENT) for axis in others)
        lines.setdefault(record.axes[curve.line], {}).setdefault(place, []).append(record)
    return others, lines


def draw_curve(curve: RobustnessCurve, table: pd.DataFrame) -> bytes:
    """Draw the curve's table as PNG, shares in percent; one seed has no error bars."""
    figure = Figure(figsize=(6.4, 4.8), dpi=DPI, layout="constrained")
    plot = figure.subplots()
    scales = {metric: PERCENT if _metric(metric).is_share else 1 for metric in (curve.x, curve.y)}
    lines = _first(list(table.groupby(curve.line, sort=False)), MOST_LINES, f"curve-{curve.name}")
    for place, (value, points) in enumerate(lines):
        if curve.points is None:
            points = points.sort_values(curve.x, kind="stable")
        x, x_half, y, y_half = (
            scales[metric] * points[column].to_numpy(dtype=float)
            for metric in (curve.x, curve.y)
            for column in (metric, half_column(metric))
        )
        plot.errorbar(
            x,
            y,
            xerr=x_half,
            yerr=y_half,
            label=str(value),
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            capsize=2.5,
            elinewidth=0.9,
            linewidth=1.4,
        )
    plot.set_xlabel(_axis_label(curve.x))
    plot.set_ylabel(_axis_label(curve.y))
    fixed = in_words({**curve.where, **_fixed(table, curve.x)})
    words = (fixed, _seeds(table["seeds"]), caption(table.columns))
    plot.set_title("\n".join(filter(None, words)), fontsize=8)
    plot.grid(alpha=0.3, linewidth=0.6)
    plot.legend(fontsize=8, title=curve.line, title_fontsize=8)
    return figure_png(figure)


def _first(parts: Sequence[Part], most: int, name: str) -> Sequence[Part]:
    """Return the parts that a picture has room for; its table has all of them."""
    if len(parts) > most:
        logger.warning("event=picture_cut name=%s parts=%d drawn=%d", name, len(parts), most)
    return parts[:most]


def histogram_table(
    spec: Histogram, records: Sequence[TrialRecord], images: PerImage, repeats: Repeats = is_seed
) -> pd.DataFrame:
    """Return one row for each bin of each panel: its ends, numbers of successful and failed attacks; may be
    empty."""
    fitting = [r for r in finished_trials(records) if spec.panels in r.axes and fits(r.axes, spec.where)]
    shown = narrowed(fitting, {spec.panels, *spec.where, *replicates_of(fitting, repeats)})
    others = [axis for axis in varying_axes(fitting, repeats) if axis != spec.panels]
    fixed = {axis: (present_values(axis, shown) or [ABSENT])[0] for axis in others}
    panels: dict[Scalar, list[tuple[np.ndarray, np.ndarray]]] = {}
    held: dict[Scalar, list[TrialRecord]] = {}
    for record in shown:
        rows, judged = images.of(record, spec.value), images.of(record, spec.success)
        if rows is not None and judged is not None and len(rows):
            values = rows[_metric(spec.value).name].astype(np.float64)
            success = judged[_metric(spec.success).name]
            is_success, has_both = success > 0.5, ~(np.isnan(values) | np.isnan(success))
            panels.setdefault(record.axes[spec.panels], []).append((values[has_both], is_success[has_both]))
            held.setdefault(record.axes[spec.panels], []).append(record)
    edges = _edges(spec.value, [values for parts in panels.values() for values, _ in parts])
    bins = []
    for panel, parts in panels.items():
        values, is_success = (np.concatenate(part) for part in zip(*parts, strict=True))
        counts = [np.histogram(values[chosen], edges)[0] for chosen in (is_success, ~is_success)]
        for low, high, successful, failed in zip(edges[:-1], edges[1:], *counts, strict=True):
            ends = {spec.panels: panel, **fixed, "low": low, "high": high}
            counted = {"successful": int(successful), "failed": int(failed)}
            bins.append(ends | counted | held_by_metric(held[panel], spec.value))
    return without_empty(pd.DataFrame(bins), [HELD])


def draw_histogram(spec: Histogram, table: pd.DataFrame) -> bytes:
    """Draw the histogram's table as PNG: a panel for each value, shares of successful and of failed ones."""
    groups = list(table.groupby(spec.panels, sort=False))
    panels = _first(groups, MOST_PANELS, f"histogram-{spec.name}")
    figure = Figure(figsize=(3.4 * len(panels) + 0.8, 3.8), dpi=DPI, layout="constrained")
    plots = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for plot, (value, counts) in zip(plots, panels, strict=True):
        _draw_panel(plot, counts)
        num, won = counts[["successful", "failed"]].to_numpy().sum(), counts["successful"].sum()
        title = f"{spec.panels}={value}\n{won} of {num} succeed ({PERCENT * won / num:.1f} %)"
        words = "".join(sorted(set(counts[HELD]))) if HELD in counts else ""
        plot.set_title(f"{title}\n{HELD}: {words}" if words else title, fontsize=9)
        plot.set_xlabel(spec.value)
    plots[0].set_ylabel("% of the group's images")
    plots[0].set_ylim(0, PERCENT * 1.05)
    fixed = {**spec.where, **_fixed(table, "low")}
    words = in_words({axis: value for axis, value in fixed.items() if axis != spec.panels})
    figure.suptitle("; ".join(filter(None, (f"success: {spec.success}", words))), fontsize=8)
    return figure_png(figure)


def costs_table(costs: Costs, records: Sequence[TrialRecord], store: Artifacts) -> pd.DataFrame:
    """Return one row for each setting that the stage depends on: mean seconds and their ratio to the
    reference's. A stage that several trials share counts once."""
    having = [r for r in finished_trials(records) if costs.stage in r.stage_keys]
    axes = _deciding(having, costs)
    spent: dict[Setting, dict[str, Mapping[str, float]]] = {}
    keys = list(dict.fromkeys(record.stage_keys[costs.stage] for record in having))
    artifacts = dict(zip(keys, parallel_map(store.find, keys), strict=True))
    for record in having:
        if artifact := artifacts[record.stage_keys[costs.stage]]:
            setting = setting_of({axis: record.axes.get(axis, ABSENT) for axis in axes})
            spent.setdefault(setting, {})[artifact.key] = artifact.cost
    settings = [_Spent(dict(setting), list(runs.values())) for setting, runs in spent.items()]
    return pd.DataFrame([one.row(_reference(one, settings, costs)) for one in settings])


@dataclass(frozen=True)
class _Spent:
    """Costs of the stage's runs in one setting."""

    axes: Mapping[str, Scalar]
    runs: Sequence[Mapping[str, float]]

    def seconds(self, kind: str) -> list[float]:
        """Return wall or CPU seconds of each run that measured them."""
        return [run[f"{kind}_seconds"] for run in self.runs if f"{kind}_seconds" in run]

    def row(self, reference: "_Spent | None") -> dict[str, object]:
        """Return the table's row."""
        row: dict[str, object] = {**self.axes, "runs": len(self.runs)}
        for kind in ("wall", "cpu"):
            mean, half = mean_and_interval(self.seconds(kind))
            beside, _ = mean_and_interval(reference.seconds(kind) if reference else [])
            row |= {f"{kind}_seconds": mean, f"{kind}_seconds +-": half}
            row[f"{kind}_ratio"] = mean / beside if beside > 0 else math.nan
        return row | {"note": "" if reference else "no such reference with the same other axes"}


def _deciding(records: Sequence[TrialRecord], costs: Costs) -> list[str]:
    """Return the axes that distinguish this stage's keys, without those that only other stages read."""
    axes = list(dict.fromkeys(axis for record in records for axis in record.axes))
    for axis in [axis for axis in axes if axis not in costs.reference]:
        rest = [other for other in axes if other != axis]
        keys: dict[tuple[Scalar, ...], set[str]] = {}
        for record in records:
            place = tuple(record.axes.get(other, ABSENT) for other in rest)
            keys.setdefault(place, set()).add(record.stage_keys[costs.stage])
        if all(len(distinct) == 1 for distinct in keys.values()):
            axes = rest
    return axes


def _reference(one: _Spent, settings: Sequence[_Spent], costs: Costs) -> _Spent | None:
    """Return the only reference that differs in the reference's axes alone."""
    references = [
        other
        for other in settings
        if fits(other.axes, costs.reference)
        and merged_axes(one.axes, other.axes, costs.reference) is not None
    ]
    return references[0] if len(references) == 1 else None


def _draw_panel(plot: Plot, counts: pd.DataFrame) -> None:
    """Draw both groups over each other, each as shares of its own images."""
    edges = np.append(counts["low"].to_numpy(), counts["high"].iloc[-1])
    for group, colour, style in (("successful", SUCCESSFUL, "-"), ("failed", FAILED, "--")):
        num = int(counts[group].sum())
        shares = PERCENT * counts[group].to_numpy() / max(num, 1)
        plot.stairs(shares, edges, fill=True, alpha=0.25, color=colour)
        plot.stairs(shares, edges, color=colour, linestyle=style, linewidth=1.4, label=f"{group} (n = {num})")
    plot.set_xlim(edges[0], edges[-1])
    plot.grid(alpha=0.3, linewidth=0.6)
    plot.legend(fontsize=8, loc="upper left")


def _edges(metric: str, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the ends of the bins: of [0, 1] for shares and scores, else of what occurs."""
    if not values or _metric(metric).unit.startswith(("share", "score", "mean score")):
        return np.linspace(0, 1, BINS + 1)
    joined = np.concatenate(values)
    return np.histogram_bin_edges(joined[np.isfinite(joined)], BINS)


def _axis_label(metric: str) -> str:
    return f"{metric} (%)" if _metric(metric).is_share else f"{metric} ({_metric(metric).unit or 'no unit'})"


def _metric(name: str) -> Metric:
    return MetricName.parse(name).metric


def _fixed(table: pd.DataFrame, last: str) -> dict[str, Scalar]:
    """Return the axes that all rows share: of the columns between the first and the one named."""
    axes = table.columns[1 : table.columns.get_loc(last)]
    return {axis: table[axis].iloc[0] for axis in axes if table[axis].nunique() == 1}


def _seeds(counts: pd.Series) -> str:
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one seed, no error bars"
    return f"means over {most if least == most else f'{least}-{most}'} seeds, bars: 95 % interval"

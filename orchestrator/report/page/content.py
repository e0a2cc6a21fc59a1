"""Parts of the page: tables and charts of settings, axes, importance and costs, as plain values."""

import csv
import io
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.report.against_forecast import Compared, total
from orchestrator.report.heatmaps import is_logarithmic, matched_settings
from orchestrator.report.importance import Importance
from orchestrator.report.means import mean_and_half
from orchestrator.report.page.charts import Dot, Row, number, rows_chart, scatter_chart, shade
from orchestrator.report.page.front import Front
from orchestrator.report.page.ranking import ACCURACY, QUERIES, Estimate, Ranked, Ranking
from orchestrator.report.page.spent import Spent
from orchestrator.report.page.words import PERCENT, in_numbers, share_words
from orchestrator.report.settings import narrowed, replicates_of, varying_axes
from orchestrator.report.statistics import WIDE, half_column
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

MOST_ROWS = 1000  # of a table on the page; its CSV has all
MOST_VALUES = 24  # of an axis that is drawn as rows or cells
MOST_MAPS = 6
MOST_DOTS = 1500  # of a chart
MOST_NAMED = 12  # settings of the front with a number beside their dot


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what it is sorted by, its colours where they say how much leaks."""

    text: str
    value: float | None = None
    background: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """A table with an anchor; `numbers` are the places of its columns of numbers."""

    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    numbers: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Chart:
    """An SVG with what it shows in words."""

    title: str
    svg: str
    caption: str


def cell(value: float, text: str | None = None) -> Cell:
    """Return the cell of a number; an empty one sorts last."""
    return Cell(number(value, 4) if text is None else text, value if math.isfinite(value) else None)


class Shades:
    """Colours of numbers by how much they leak, darker for more, over a range of theirs."""

    def __init__(self, values: Iterable[float], sign: float) -> None:
        known = [sign * value for value in values if math.isfinite(value)]
        self._sign, self._low, self._high = sign, min(known, default=0.0), max(known, default=0.0)

    def share(self, value: float) -> float:
        """Return where a number lies between the one that leaks least, 0, and most, 1."""
        width = self._high - self._low
        return (self._sign * value - self._low) / width if width > 0 and not math.isnan(value) else 0.0

    def cell(self, value: float, text: str) -> Cell:
        """Return the number's cell in its colour."""
        if math.isnan(value):
            return Cell("")
        return Cell(text, value if math.isfinite(value) else None, *shade(self.share(value)))


def settings_table(
    found: Ranking, axes: Sequence[str], objectives: Sequence[str], seconds: tuple[str, str]
) -> Table:
    """Return the settings, the one that leaks most first."""
    shades = Shades((found.leak(one).mean for one in found.ranked), found.sign)
    measured = [name for name in (*objectives, ACCURACY) if name != found.leakage]
    measured = [
        name for name in dict.fromkeys(measured) if any(name in one.estimates for one in found.ranked)
    ]
    judges = judge_columns(found)
    plain = {"queries": QUERIES, f"{seconds[1]} a trial": seconds[0]}
    plain = {
        title: name for title, name in plain.items() if any(name in one.estimates for one in found.ranked)
    }
    marks = {
        "no better than": [one.unbeaten for one in found.ranked],
        "held": [one.held for one in found.ranked],
        "queries beyond the release": [one.beyond for one in found.ranked],
        "at chance": ["yes" if one.has_chance else "" for one in found.ranked],
    }
    marks = {title: own for title, own in marks.items() if any(own)}
    rows = []
    for place, one in enumerate(found.ranked[:MOST_ROWS]):
        own = dict(one.setting)
        leak = found.leak(one)
        row = [_plain(own.get(axis, ABSENT)) for axis in axes]
        row += [cell(len(one.members)), shades.cell(leak.mean, in_numbers(leak))]
        row += [_estimate(one, name) for name in (*measured, *judges.values())]
        row += [
            cell(one.estimates[name].mean) if name in one.estimates else Cell("") for name in plain.values()
        ]
        rows.append([*row, *(Cell(own[place]) for own in marks.values())])
    columns = [*axes, "replicates", found.leakage, *measured, *judges, *plain, *marks]
    first = len(axes)
    numbers = frozenset(range(first, len(columns) - len(marks)))
    note = "" if len(found.ranked) <= MOST_ROWS else f"The first {MOST_ROWS} of {len(found.ranked)} settings."
    return Table("settings-table", "Settings, the one that leaks most first", columns, rows, note, numbers)


def judge_columns(found: Ranking) -> dict[str, str]:
    """Return title -> metric of the columns that say what judges recognise."""
    return {f"recognised by {judge}": name for judge, name in found.recognition.items()}


def _estimate(one: Ranked, name: str) -> Cell:
    known = one.estimates.get(name)
    return Cell("") if known is None else cell(known.mean, in_numbers(known))


def _plain(value: Scalar) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(str(value), float(value) if is_number else None)


def csv_table(id_: str, caption: str, content: bytes, without: Collection[str] = WIDE) -> Table:
    """Return a table of the report without some columns; halves of intervals join their means."""
    lines = list(csv.DictReader(io.StringIO(content.decode())))
    names = [name for name in (lines[0] if lines else {}) if name not in without]
    halves = {half_column(name) for name in names}
    names = [name for name in names if name not in halves]
    rows = []
    for line in lines[:MOST_ROWS]:
        row = []
        for name in names:
            value, half = _number(line[name]), _number(line.get(half_column(name), ""))
            text = line[name] if value is None else number(value, 4) if "." in line[name] else line[name]
            joined = text if half is None else f"{text} \u00b1 {number(half, 2)}"
            row.append(Cell(joined, value))
        rows.append(row)
    numbers = frozenset(
        place for place in range(len(names)) if any(row[place].value is not None for row in rows)
    )
    note = "" if len(lines) <= MOST_ROWS else f"The first {MOST_ROWS} of {len(lines)} rows."
    return Table(id_, caption, names, rows, note, numbers)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def tradeoff_chart(found: Ranking, front: Front, axes: Sequence[str]) -> Chart | None:
    """Return leakage over target accuracy, a dot for each setting; None without accuracy."""
    known = [
        one
        for one in found.ranked
        if ACCURACY in one.estimates
        and math.isfinite(one.estimates[ACCURACY].mean)
        and math.isfinite(found.leak(one).mean)
    ]
    if not known:
        return None
    names = {id(one): str(place) for place, one in enumerate(front.chosen, start=1)}
    kept = [one for one in known if id(one) in names]
    kept += [one for one in known if id(one) not in names][: max(MOST_DOTS - len(kept), 0)]
    dots = []
    for one in kept:
        leak, accuracy = found.leak(one), one.estimates[ACCURACY]
        words = f"{one.words(axes)}: {ACCURACY} {in_numbers(accuracy)}, {found.leakage} {in_numbers(leak)}"
        name = names.get(id(one), "") if len(names) <= MOST_NAMED else ""
        dots.append(Dot(words, accuracy.mean, leak.mean, accuracy.half, leak.half, id(one) in names, name))
    title = f"{found.leakage} over {ACCURACY}, {len(dots)} settings"
    y_label = f"{found.leakage}, upwards leaks more"
    svg = scatter_chart(dots, title, ACCURACY, y_label, is_flipped=found.sign < 0)
    few = f" {_few(len(dots), len(known), 'settings')}" if len(dots) < len(known) else ""
    has_interval = any(math.isfinite(half) for dot in dots for half in (dot.x_half, dot.y_half))
    bars = " with its 95 % intervals" if has_interval else "; one replicate has no interval"
    caption = f"Each dot is a setting{bars}.{few} {front.words}"
    return Chart(title, svg, caption)


def _few(num: int, of: int, what: str) -> str:
    return f"Drawn are {num} of {of} {what}."


def front_table(found: Ranking, chosen: Sequence[Ranked], axes: Sequence[str]) -> Table:
    """Return the settings of the front with the numbers of their dots."""
    rows = []
    for place, one in enumerate(chosen[:MOST_ROWS], start=1):
        own = [_plain(dict(one.setting).get(axis, ABSENT)) for axis in axes]
        leak = found.leak(one)
        rows.append([cell(place), *own, _estimate(one, ACCURACY), cell(leak.mean, in_numbers(leak))])
    columns = ["dot", *axes, ACCURACY, found.leakage]
    numbers = frozenset({0, len(columns) - 2, len(columns) - 1})
    return Table("front-table", "The Pareto front: most accurate first", columns, rows, "", numbers)


def axis_charts(
    records: Sequence[TrialRecord], metric: str, sign: float, report: Report, axes: Sequence[str]
) -> list[Chart]:
    """Return a chart for each of these axes: the metric's mean and interval at each of its values, over the
    settings of the other axes that all values have; without such, at the first values of the others."""
    having = [one for one in records if math.isfinite(one.metrics.get(metric, math.nan))]
    parts = [(axis, *_values(having, axis, axes, report)) for axis in axes]
    means = {
        axis: {value: mean_and_half(own, metric, report=report) for value, own in values.items()}
        for axis, values, _ in parts
    }
    ends = _ends([pair for own in means.values() for pair in own.values()])
    shades = Shades((mean for own in means.values() for mean, _ in own.values()), sign)
    charts = []
    for axis, values, words in parts:
        title = f"{metric} by {axis}"
        if len(values) < 2:
            charts.append(Chart(title, "", "No two of its values share a setting of the other axes."))
        elif len(values) <= MOST_VALUES:
            rows = [
                Row(
                    str(value),
                    mean,
                    mean - half,
                    mean + half,
                    in_numbers(Estimate(mean, half)),
                    shades.share(mean),
                )
                for value, (mean, half) in means[axis].items()
            ]
            charts.append(Chart(title, rows_chart(rows, title, ends=ends), words))
        elif all(_plain(value).value is not None for value in values):
            dots = [
                Dot(
                    f"{axis}={value}: {number(one.metrics[metric])}",
                    float(value),
                    one.metrics[metric],
                    nan,
                    nan,
                    False,
                )
                for value, own in values.items()
                for one in own
                for nan in (math.nan,)
            ]
            is_log = is_logarithmic([dot.x for dot in dots])
            kept = dots[:: math.ceil(len(dots) / MOST_DOTS)]
            svg = scatter_chart(kept, title, axis, metric, is_flipped=sign < 0, is_log=is_log)
            few = f" {_few(len(kept), len(dots), 'trials')}" if len(kept) < len(dots) else ""
            words = f"A dot for each trial, the other axes as they were drawn.{few}"
            charts.append(Chart(title, svg, words))
        else:
            charts.append(Chart(title, "", f"It has {len(values)} values, too many to draw."))
    return charts


def _values(
    records: Sequence[TrialRecord], axis: str, axes: Sequence[str], report: Report
) -> tuple[dict[Scalar, list[TrialRecord]], str]:
    """Return value -> its trials that are compared, and in words what becomes of the other axes."""
    others = [other for other in axes if other != axis]
    repeated = sorted(replicates_of(records, report.repeats))
    places: dict[Scalar, dict[tuple[str, ...], list[TrialRecord]]] = {}
    for one in records:
        key = tuple(str(one.axes.get(other, ABSENT)) for other in (*others, *repeated))
        places.setdefault(one.axes.get(axis, ABSENT), {}).setdefault(key, []).append(one)
    if len(places) > MOST_VALUES:
        return {value: [one for own in rest.values() for one in own] for value, rest in places.items()}, ""
    shared = set.intersection(*(set(own) for own in places.values())) if places else set()
    if shared:
        num = len({key[: len(others)] for key in shared})
        words = f"Mean of the {num} settings of the other axes that every value has." if others else ""
        if num == 1 and others:
            key = next(iter(shared))
            words = f"Others fixed: {', '.join(f'{o}={v}' for o, v in zip(others, key, strict=False))}."
        return {
            v: [one for key in own if key in shared for one in own[key]] for v, own in places.items()
        }, words
    kept = narrowed(records, {axis, *repeated})
    found: dict[Scalar, list[TrialRecord]] = {}
    for one in kept:
        found.setdefault(one.axes.get(axis, ABSENT), []).append(one)
    return found, "No setting of the other axes has every value: others at their first values."


def _ends(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    spans = [(mean, 0.0 if math.isnan(half) else half) for mean, half in pairs if not math.isnan(mean)]
    if not spans:
        return 0.0, 1.0
    low, high = min(mean - span for mean, span in spans), max(mean + span for mean, span in spans)
    room = 0.04 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - room, high + room


def heat_tables(records: Sequence[TrialRecord], metric: str, sign: float, axes: Sequence[str]) -> list[Table]:
    """Return a table of means for each pair of these axes, in their order, over the settings that every cell
    has; darker cells leak more."""
    rows = [
        {**one.axes, "value": one.metrics[metric]}
        for one in records
        if math.isfinite(one.metrics.get(metric, math.nan))
    ]
    if not rows:
        return []
    table = pd.DataFrame(rows).fillna(ABSENT)
    found: list[Table] = []
    for one, other in itertools.combinations(axes, 2):
        if len(found) == MOST_MAPS:
            break
        if max(table[one].nunique(), table[other].nunique()) > MOST_VALUES:
            continue
        rest = [name for name in table.columns if name not in (one, other, "value")]
        cells = matched_settings(table, one, other, rest)
        if cells.empty:
            continue
        means = cells.groupby([one, other], sort=False)["value"].mean()
        shades = Shades(means.tolist(), sign)
        columns = list(dict.fromkeys(table[other]))
        body = []
        for value in dict.fromkeys(table[one]):
            own = [means.get((value, column), math.nan) for column in columns]
            body.append(
                [Cell(str(value)), *(shades.cell(float(mean), number(float(mean), 4)) for mean in own)]
            )
        caption = f"{metric} by {one} (down) and {other} (across)"
        num = len(dict.fromkeys(cells["setting"]))
        note = f"Mean of {num} combinations of the other axes that every cell has. Darker leaks more."
        names = [f"{one} \\ {other}", *map(str, columns)]
        found.append(Table(f"map-{len(found)}", caption, names, body, note, frozenset(range(1, len(names)))))
    return found


def importance_chart(found: Importance) -> Chart | None:
    """Return bars of the shares of a metric's variance; None without shares."""
    if not found.has_answer:
        return None
    rows = [
        Row(
            one.name,
            PERCENT * one.share,
            PERCENT * one.interval.low,
            PERCENT * one.interval.high,
            share_words(one),
        )
        for one in sorted(found.sources, key=lambda one: (not one.axes, -one.share))
    ]
    title = f"Shares of the variance of {found.metric}, {found.method}"
    return Chart(title, rows_chart(rows, title, ends=(0.0, float(PERCENT)), is_bar=True), "")


def spent_table(spent: Sequence[Spent], seconds: tuple[str, str]) -> Table:
    """Return what each kind of stage cost, and would have cost if no trials shared it. `seconds`: metric of a
    trial's costs, whose unit is the table's, and the unit in words."""
    rows = []
    for one in spent:
        own, alone = one.seconds(seconds[0])
        rows.append([Cell(one.stage), *map(cell, (one.distinct, one.uses, own, alone, alone - own))])
    unit = seconds[1]
    columns = ["stage", "distinct", "used by trials", unit, f"{unit} if not shared", f"{unit} saved"]
    return Table("costs-table", "What the stages cost", columns, rows, "", frozenset(range(1, len(columns))))


def spent_words(spent: Sequence[Spent], seconds: tuple[str, str]) -> str:
    """Return the sums in words, in the unit of `spent_table`."""
    own, alone = (sum(one.seconds(seconds[0])[place] for one in spent) for place in (0, 1))
    if not alone:
        return "No stage of these trials is stored with its cost."
    return (
        f"{number(own, 4)} {seconds[1]} for {sum(one.distinct for one in spent)} stages, those of failed and "
        f"pruned trials too. Without sharing they would have been {number(alone, 4)}: sharing saved "
        f"{PERCENT * (alone - own) / alone:.0f} %."
    )


def forecast_grid(rows: Sequence[Compared], unit: str) -> Table:
    """Return what each kind of stage was expected to take, and took; `unit` of the seconds."""
    body = []
    for one in (*rows, total(rows)):
        interval = f"{number(one.low)} to {number(one.high)}" if one.num_forecast else ""
        expected = (
            [cell(one.forecast), Cell(interval), cell(one.actual)] if one.num_forecast else [Cell("")] * 3
        )
        rest = [cell(one.num_unknown), cell(one.actual_unknown)]
        body.append([Cell(one.stage), cell(one.num_forecast), *expected, cell(one.factor), *rest])
    columns = ["stage", "with a forecast", f"forecast, {unit}", "interval of 90 %", "they took", "factor"]
    columns += ["without a forecast", "those took"]
    note = "The factor is what they took over the forecast."
    title = "Forecast at the start against actual"
    return Table("forecast-table", title, columns, body, note, frozenset(range(1, len(columns))))


def unvarying(records: Sequence[TrialRecord]) -> Mapping[str, Scalar]:
    """Return the parameters that are the same in every trial."""
    if not records:
        return {}
    first = records[0].params
    return {
        name: value
        for name, value in sorted(first.items())
        if all(one.params.get(name) == value for one in records)
    }


def ordered_axes(records: Sequence[TrialRecord], report: Report, found: Importance | None) -> list[str]:
    """Return the axes that vary, the one with the largest share of the variance first."""
    axes = varying_axes(records, report.repeats)
    shares = {one.name: one.share for one in found.axes} if found else {}
    return sorted(axes, key=lambda axis: -shares.get(axis, -1.0))

"""Terminal output at the end of a sweep: the report's tables, trial and stage counts."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.config.study import Study
from orchestrator.report.captions import captions
from orchestrator.report.held import caption
from orchestrator.report.judges import narrow
from orchestrator.report.page.page import PAGE
from orchestrator.report.skill import at_chance, summary_metrics, warnings
from orchestrator.report.statistics import half_column
from orchestrator.sweep.ledger import Ledger


def print_end(
    console: Console,
    study: Study,
    ledger: Ledger,
    folder: Path,
    files: Mapping[str, bytes],
    *,
    is_whole: bool = True,
) -> None:
    """Print where the answer is, the report's tables, trial and stage counts, and the report's folder."""
    if PAGE in files:
        console.print(f"the answer on one page: {(folder / PAGE).absolute().as_uri()}", soft_wrap=True)
    metrics = summary_metrics(study, ledger.records)
    console.print(_rich_table(_summary(files["summary.csv"], metrics), metrics))
    if "comparison.csv" in files:
        console.print(_printed_numbers(files["comparison.csv"]))
    if "judges.csv" in files:
        console.print(_judged(files["judges.csv"]))
    if "orderings.csv" in files:
        console.print(_claimed_orders(files["orderings.csv"]))
    for name, title in PLAIN_TABLES.items():
        if f"{name}.csv" in files:
            rows = [
                {column: _short(cell) for column, cell in row.items()} for row in _rows(files[f"{name}.csv"])
            ]
            console.print(_table(title, rows))
    for line in warnings(at_chance(ledger.records)):
        console.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)
    for remark in captions(ledger.records, study.report):
        console.print(f"note: {remark}", markup=False, soft_wrap=True)
    counts = Counter(record.status for record in ledger.records)
    console.print(
        f"trials: {counts['finished']} finished, {counts['failed']} failed, {counts['pruned']} pruned"
    )
    if is_whole:
        stages = ledger.stage_counts()
        run, reused = (sum(entry[kind] for entry in stages.values()) for kind in ("run", "reused"))
        each = ", ".join(f"{name} {entry['run']}/{entry['reused']}" for name, entry in stages.items())
        console.print(f"stages run/reused: {run}/{reused} ({each})", soft_wrap=True)
    console.print(f"report: {folder}: {', '.join(sorted(files))}", soft_wrap=True)


SHARED = {"resampled": "resampled", "fixed": "held fixed"}
"""Columns of comparisons that hardly differ between rows -> what they are called below a table."""
STEP_COLUMNS = {
    "step": 6,
    "": 5,
    "difference": 10,
    "95 % interval": 8,
    "seeds": 5,
    "p (signs)": 5,
    "p (Holm)": 5,
    "verdict": 11,
}
"""Column of a claim's steps -> its least width, less than 80 characters in all."""
INDENT = (0, 0, 0, 2)

PLAIN_TABLES = {
    "delta": "what a defense saves (numerator) for what it costs (denominator), in points",
    "costs": "what stages cost, and the ratio to the reference",
}
"""Table of the report that is printed as it is written -> its title."""


def _printed_numbers(content: bytes) -> Table:
    half = half_column("ours")
    rows = [
        {
            **{name: row[name] for name in ("source", "label", "metric")},
            "printed": _short(row["printed"]),
            "ours": _short(row["ours"]) + (f" +- {_short(row[half])}" if row[half] else ""),
            "difference": _short(row["difference"]),
            **{name: row[name] for name in ("seeds", "note")},
        }
        for row in _rows(content)
    ]
    return _table("numbers that papers print", rows)


def _judged(content: bytes) -> Table:
    rows = [
        {
            name: _short(row[name]) + (f" +- {_short(half)}" if (half := row.get(half_column(name))) else "")
            for name in narrow(list(row))
            if not name.endswith(half_column(""))
        }
        for row in _rows(content)
    ]
    return _table("what each judge accepts, +- half a 95 % interval", rows)


def _claimed_orders(content: bytes) -> Group:
    """Return each claim as a line with its steps below, and once what all of them share."""
    rows = list(_rows(content))
    title = "orders that papers report, differences positive as claimed"
    parts: list[RenderableType] = [Text(title, style="italic")]
    for claim, steps in groupby(rows, key=lambda row: (row["claim"], row["source"], row["metric"])):
        parts += _claim(*claim, list(steps))
    return Group(*parts, *(Text(line, style="dim") for line in _shared(rows)))


def _claim(claim: str, source: str, metric: str, steps: Sequence[Mapping[str, str]]) -> list[RenderableType]:
    """Return the lines of one claim: its steps, and once the settings and notes that they share."""
    settings = [row["setting"].split(", ") for row in steps]
    shared = [part for part in settings[0] if part and all(part in other for other in settings)]
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for name, width in STEP_COLUMNS.items():
        table.add_column(name, min_width=width, overflow="fold")
    for row, setting in zip(steps, settings, strict=True):
        cells = (
            f"{row['axis']}: {row['lower']} -> {row['upper']}",
            ", ".join(part for part in setting if part not in shared),
            _short(row["difference"]),
            f"{_short(row['low'])} .. {_short(row['high'])}" if row["low"] else "",
            f"{row['seeds_agreeing']}/{row['seeds']}",
            _short(row["p_flip"]),
            _short(row["p_holm"]),
            row["verdict"],
        )
        table.add_row(*map(escape, cells))
    notes = dict.fromkeys(row["note"] for row in steps if row["note"])
    where = f" where {', '.join(shared)}" if shared else ""
    heading = Text(f"\n{claim} ({source}; {metric}){where}", style="bold")
    return [heading, Padding(table, INDENT), *(Padding(Text(f"note: {text}"), INDENT) for text in notes)]


def _shared(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a line for each column of `SHARED` with all that rows have in it."""
    found = {
        label: dict.fromkeys(row[column] for row in rows if row.get(column))
        for column, label in SHARED.items()
    }
    return [f"{label}: {'; or '.join(values)}" for label, values in found.items() if values]


def _table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    """Return a table without the columns that are empty in every row, and with those of `SHARED` below it."""
    names = [name for name in rows[0] if name not in SHARED and any(row[name] for row in rows)]
    below = "\n".join(_shared(rows)) or None
    table = Table(title=title, title_justify="left", caption=below, caption_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in names))
    return table


def _rows(content: bytes) -> Iterable[dict[str, str]]:
    return csv.DictReader(io.StringIO(content.decode()))


def _short(cell: str) -> str:
    """Return a number of a CSV with four significant digits, other text unchanged."""
    try:
        return f"{float(cell):.4g}" if "." in cell or "e" in cell else cell
    except ValueError:
        return cell


def _summary(content: bytes, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the summary with its means and half intervals as numbers, everything else as text."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    names = {*metrics, *map(half_column, metrics)} & set(table.columns)
    return table.assign(**{name: [_number(cell) for cell in table[name]] for name in names})


def _number(cell: str) -> float | str:
    """Return a cell as a number, NaN if it is empty; the reason why there is none unchanged."""
    try:
        return float(cell or "nan")
    except ValueError:
        return cell


def _rich_table(summary: pd.DataFrame, metrics: Sequence[str]) -> Table:
    halves = [half_column(metric) for metric in metrics]
    axes = [name for name in summary.columns if name not in (*metrics, *halves)]
    title = "mean over seeds, +- half a 95 % interval"
    below = caption(summary.columns) or None
    table = Table(title=title, title_justify="left", caption=below, caption_justify="left")
    for name in (*axes, *metrics):
        table.add_column(name, overflow="fold")
    for row in summary.to_dict("records"):
        cells = [_cell(row[axis]) for axis in axes]
        for metric, column in zip(metrics, halves, strict=True):
            value, interval = row.get(metric, float("nan")), row.get(column, float("nan"))
            half = "" if math.isnan(interval) else f" +- {interval:.4f}"
            cells.append(value if isinstance(value, str) else _cell(value) and f"{value:.4f}{half}")
        table.add_row(*cells)
    return table


def _cell(value: object) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else str(value)

"""Output and options of `jobs.runs`: tables, JSON or CSV, and the sweeps of the stores that are named."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from jobs.store_output import RUNS_STORE, Out, opened
from orchestrator.api.options import TRACKING
from orchestrator.api.runs import HALF, Mean, StoredSweep, stored_sweeps
from orchestrator.config.base import one_line

MOST_LETTERS = 60
"""Of a cell of a table; JSON and CSV have all."""

Cell = str | Mean
DEFAULT = (RUNS_STORE,)


class Format(StrEnum):
    """How a command prints."""

    table = "table"
    json = "json"
    csv = "csv"


Stores = Annotated[
    list[str],
    typer.Option(
        "--store",
        envvar="INVERSION_STORE",
        help="Read this store: a folder or s3://...; repeatable; default: runs/store.",
    ),
]
Trackings = Annotated[
    list[str],
    typer.Option(
        "--mlflow",
        metavar="URI",
        help=f"Read this MLflow; repeatable; default: {TRACKING} where no store is given.",
    ),
]
AsFormat = Annotated[Format, typer.Option("--format", help="Print a table, JSON or CSV.")]


def sweeps_of(stores: Sequence[str], tracking_uris: Sequence[str] = ()) -> list[StoredSweep]:
    """Return the sweeps of all stores and all MLflow, the latest first; the defaults where none is named.

    Raise `Refused` for one that cannot be read.
    """
    if not stores and not tracking_uris:
        known = os.environ.get(TRACKING)
        stores, tracking_uris = ([], [known]) if known else (DEFAULT, [])
    return stored_sweeps([opened(uri) for uri in stores], tracking_uris)


def in_words(milliseconds: int) -> str:
    """Return a time; empty for none."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC" if milliseconds else ""


def print_rows(
    form: Format, title: str, rows: Sequence[Mapping[str, Cell]], notes: Sequence[str] = ()
) -> None:
    """Print rows with the columns of all of them; notes are no part of CSV.

    In JSON and CSV a mean is a number, and half its interval another, in a column whose name ends in `+-`.
    """
    if form is Format.table:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        out = Out(as_json=False)
        heads = [one_line(column) for column in columns]
        out.table(
            one_line(title), heads, [[_short(row.get(column, "")) for column in columns] for row in rows]
        )
        for line in notes if rows else (title, *notes):
            out.say(one_line(line))
        return
    plain = [dict(_parts(row)) for row in rows]
    if form is Format.json:
        document = {"title": title, "rows": plain, "notes": list(notes)}
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    plain = [{one_line(name): _printable(cell) for name, cell in row.items()} for row in plain]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for row in plain for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(plain)
    print(text.getvalue(), end="")


def _parts(row: Mapping[str, Cell]) -> Iterator[tuple[str, str | float | None]]:
    for name, cell in row.items():
        if isinstance(cell, Mean):
            yield name, _finite(cell.value)
            yield name + HALF, _finite(cell.half)
        else:
            yield name, cell


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has; None for others."""
    return value if value is not None and math.isfinite(value) else None


def _printable(cell: str | float | None) -> str | float | None:
    return one_line(cell) if isinstance(cell, str) else cell


def _short(cell: Cell) -> str:
    """Return a cell of a table."""
    text = one_line(str(cell))
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."

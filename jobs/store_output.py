"""Output and options of the commands over a store: tables or JSON, refusals in one line."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.store.artifacts import Artifacts

RUNS_STORE = "runs/store"

Store = Annotated[
    str, typer.Option(envvar="INVERSION_STORE", help="Use this store: a folder or s3://bucket/prefix.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; tables by default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change and change nothing.")]


class Out:
    """Prints tables, on a terminal with lines around them, or one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(
            width=None if sys.stdout.isatty() else 160, highlight=False, quiet=as_json, soft_wrap=True
        )

    def json(self, document: Any) -> None:
        """Print a document under --json; infinities and NaN become strings."""
        if self.as_json:
            print(json.dumps(_plain(document), indent=2))

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line of text, unless under --json."""
        self.console.print(line, markup=False, style=style)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows, unless under --json; a column whose name ends in `>` is aligned to the right."""
        if not rows:
            return
        if self.console.is_terminal:
            table = Table(title=title, title_justify="left")
            for name in columns:
                table.add_column(name.rstrip(">"), justify="right" if name[-1] == ">" else "left")
            for row in rows:
                table.add_row(*map(escape, row))
            self.console.print(table, soft_wrap=False)
            return
        names = [name.rstrip(">") for name in columns]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        self.say(title)
        for row in [names, *rows]:
            cells = zip(row, columns, widths, strict=True)
            line = (
                cell.rjust(width) if name[-1] == ">" else cell.ljust(width) for cell, name, width in cells
            )
            self.say(f"  {'  '.join(line)}".rstrip())


@contextmanager
def refusing() -> Iterator[None]:
    """Print a refusal, or the error of a store, as one line and exit with code 2."""
    try:
        yield
    except ValueError as error:
        lines = str(error).splitlines()
    except OSError as error:  # of a bucket `StoreError`, which has the way out
        where = f"{error.filename}: {error.strerror}; the store must be writable" if error.strerror else error
        lines = [f"store: {where}"]
    else:
        return
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def opened(uri: str) -> Artifacts:
    """Return the store; raise `Refused` if it cannot be read. What cannot be written fails when it is."""
    blobs = open_blobs(uri)
    check(blobs, writes=False)
    return Artifacts(blobs)


def _plain(value: Any) -> Any:
    """Return a document with its NaN and infinities, which JSON lacks, as strings."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

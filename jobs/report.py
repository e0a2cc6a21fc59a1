"""Write a study's report again: `python -m jobs.report STUDY.yaml`, with the options of `jobs.sweep`.

Reads the store, trains nothing and starts no Ray. Use it after `report` in the study has changed, or while a
sweep runs. Tables, plots, heat maps and the image grid go to `--out`, the store and the sweep's run in
MLflow.

`--compare`, twice, exports a user study of two settings instead: a page for raters, and a key to keep.
`--answers` reads what they downloaded.

Exit code 0: every point is in it. 1: some are not stored or failed. 2: none is stored, nothing was written.
3: every point is in it, but MLflow did not take all records.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import Data, Out, Overrides, Scale, ShipLater, Store, StudyName, TrackingUri
from jobs.printing import SweepProgress
from jobs.sweep import Sweep, refuse, start_console
from jobs.user_study import PAIRS, check_request, export, none_stored, table_of
from orchestrator.api.options import RUNS, Options
from orchestrator.api.sweep import open_tracker
from orchestrator.store.artifacts import Corrupt
from orchestrator.store.journal import Journal
from orchestrator.sweep.ledger import Ledger, Tracker

Compare = Annotated[
    list[str],
    typer.Option(
        "--compare",
        metavar="AXES",
        help="Export a blinded user study of two settings, and no report; give it twice, e.g. "
        "'{budget: full}' and '{budget: conv4_1}'.",
    ),
]
Pairs = Annotated[int, typer.Option(help="Ask raters at most this many pairs.")]
OrderSeed = Annotated[int, typer.Option(help="Draw pairs, their order and their sides by this seed.")]
Answers = Annotated[
    list[Path],
    typer.Option("--answers", help="Read a rater's answers, and write no report; repeat for several."),
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(  # noqa: PLR0913 - options of a command
    study: StudyName,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    scale: Scale = None,
    out: Out = RUNS,
    store: Store = None,
    data: Data = None,
    tracking_uri: TrackingUri = None,
    ship_later: ShipLater = False,
    compare: Compare = [],  # noqa: B006 - as above
    pairs: Pairs = PAIRS,
    order_seed: OrderSeed = 0,
    answers: Answers = [],  # noqa: B006 - as above
) -> None:
    """Write a study's tables and pictures from what is stored, without running anything."""
    options = Options(study, overrides, scale, out, store, data, tracking_uri, ship_later)
    try:
        settings = check_request(compare, answers, pairs, order_seed)
        opened = Sweep(options, start_console(), writes=False)
        if settings or answers:
            lines = export(opened, settings, pairs, order_seed) if settings else table_of(opened, answers)
            for line in lines:
                opened.say(line)
            return
        journal = Journal(opened.store.blobs, opened.study.key)  # only read: a report is no start
        ledger, files, num_missing = collect(opened, journal)
        tracker = open_tracker(opened)
    except (ValueError, Corrupt) as error:
        refuse(error)
    tracker.open(opened.sweep_record(journal))
    sys.exit(publish(opened, ledger, tracker, files, num_missing))


def collect(opened: Sweep, journal: Journal) -> tuple[Ledger, dict[str, bytes], int]:
    """Return the ledger over the stored points, the report's files and how many points are missing.

    Raise `StudyError` if all are. A point whose stored files are damaged is missing.
    """
    ledger = opened.ledger(journal, [SweepProgress(opened.console, *opened.study.objective)])
    is_whole, files = not ledger.has_work(), None
    while ledger.records and files is None:
        files = opened.report_files(ledger)
        is_whole = is_whole and files is not None
    if files is None:
        raise none_stored(opened)
    return ledger, files, 0 if is_whole else opened.num_missing(ledger)


def publish(
    opened: Sweep, ledger: Ledger, tracker: Tracker, files: Mapping[str, bytes], num_missing: int
) -> int:
    """Write the report of the adopted trials and track it; return the exit code."""
    ledger.listeners.append(tracker)
    try:
        for record in ledger.records:
            tracker.ended(record)
        code = opened.publish(ledger, tracker, files, num_missing=num_missing)
    except Exception:  # the store failed: the run in MLflow does not stay open
        tracker.interrupted()
        raise
    if num_missing:
        opened.say(
            f"{num_missing} of {opened.num_points} points are not stored; this computes them: "
            f"{opened.options.command()}"
        )
    return code


if __name__ == "__main__":
    app()

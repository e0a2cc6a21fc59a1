"""Write a study's report again: `python -m jobs.report STUDY.yaml`, with the options of `jobs.sweep`.

Reads the store, trains nothing and starts no Ray. Use it after `report` in the study has changed, or while a
sweep runs. Tables, plots, heat maps and the image grid go to `--out`, the store and the sweep's run in
MLflow.

Exit code 0: every point is in it. 1: some are not stored or failed. 2: none is stored, nothing was written.
3: every point is in it, but MLflow did not take all records.
"""

import sys
from collections.abc import Mapping

import typer

from jobs.options import RUNS, Data, Options, Out, Overrides, Scale, ShipLater, Store, StudyName, TrackingUri
from jobs.printing import SweepProgress
from jobs.sweep import Sweep, open_tracker, refuse, start_console
from orchestrator.config.study import StudyError
from orchestrator.store.journal import Journal
from orchestrator.sweep.ledger import Ledger, Tracker

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
) -> None:
    """Write a study's tables and pictures from what is stored, without running anything."""
    options = Options(study, overrides, scale, out, store, data, tracking_uri, ship_later)
    try:
        opened = Sweep(options, start_console(), writes=False)
        journal = Journal(opened.store.blobs, opened.study.key)  # only read: a report is no start
        ledger, files, num_missing = collect(opened, journal)
        tracker = open_tracker(opened)
    except ValueError as error:
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
        raise StudyError(
            f"none of the {opened.num_points} points of {opened.study.study} is stored at "
            f"{opened.locations.store}; this computes them: {opened.options.command()}"
        )
    return ledger, files, 0 if is_whole else opened.num_points - len(ledger.records)


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

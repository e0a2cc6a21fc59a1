"""Write a study's report again: `python -m jobs.report STUDY.yaml`, with the options of `jobs.sweep`.

Reads what the store has, trains nothing and starts no Ray: after `report` in the study has changed, or while
a sweep goes on. Tables, heat maps and the picture go to `--out`, the store and the sweep's run in MLflow.

Exit code 0: every point is in it. 1: some are not stored or failed. 2: none is stored, nothing was written.
"""

import sys
from typing import Any

import typer

from jobs.printing import SweepProgress
from jobs.sweep import (
    RUNS,
    Data,
    Options,
    Out,
    Overrides,
    Run,
    Scale,
    ShipLater,
    Store,
    StudyName,
    TrackingUri,
    open_tracker,
    refuse,
    start_console,
)
from orchestrator.config.study import StudyError
from orchestrator.runtime.open_store import check
from orchestrator.store.journal import Journal
from orchestrator.sweep.records import SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import Source

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
        run = Run(options, start_console(), writes=False)
        source, num_missing = collect(run)
        check(run.store.blobs)
        source.tracker = open_tracker(options)
    except (StudyError, ValueError) as error:
        refuse(error)
    sys.exit(publish(run, source, num_missing))


def collect(run: Run) -> tuple[Source, int]:
    """Return the books over the stored points and how many are missing; `StudyError` if all are."""
    journal = ReadJournal(run.store.blobs, run.study.key)
    source = run.source(NoTracker(), journal, SweepProgress(run.console, *run.study.objective))
    is_whole = not source.has_work()
    if not source.records:
        raise StudyError(
            f"none of the {run.num_points} points of {run.study.study} is stored at {run.places.store_uri}; "
            f"this computes them: {run.options.command()}"
        )
    return source, 0 if is_whole else run.num_points - len(source.records)


def publish(run: Run, source: Source, num_missing: int) -> int:
    """Write and tell the report of what was collected; return the exit code."""
    tracker = source.tracker
    tracker.start(run.sweep_record(source.journal))
    try:
        for record in source.records:
            tracker.record(record)
        code = run.publish(source, num_missing=num_missing)
    except Exception:  # the store failed: the run in MLflow does not stay open
        tracker.interrupted()
        raise
    if num_missing:
        run.console.print(
            f"{num_missing} of {run.num_points} points are not stored; this computes them: "
            f"{run.options.command()}",
            markup=False,
            soft_wrap=True,
        )
    return code


class ReadJournal(Journal):
    """The journal of a sweep for a report, which is no attempt at it: nothing is added."""

    def append(self, event: str, **fields: Any) -> None:
        """Leave the journal as it is."""


class NoTracker:
    """Implements `Tracker` while it is not known whether there is anything to tell."""

    def start(self, sweep: SweepRecord) -> None:
        """Tell nobody."""

    def record(self, trial: TrialRecord) -> None:
        """Tell nobody."""

    def finish(self, report: SweepReport) -> list[str]:
        """Tell nobody."""
        return []

    def interrupted(self) -> None:
        """Tell nobody."""


if __name__ == "__main__":
    app()

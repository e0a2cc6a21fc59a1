"""Run a study: `python -m jobs.sweep STUDY.yaml`, on a cluster behind `ray job submit --working-dir . --`.

Running the same command again resumes; what is stored is never computed twice.

Exit code 0: every trial finished or was stopped early. 1: some failed. 2: the study cannot be run as written,
nothing was started. 3: as 0, but MLflow did not take all records.
"""

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from jobs.interruption import Interruption
from jobs.options import (
    Cache,
    CacheGib,
    Data,
    Out,
    Overrides,
    Scale,
    ShipLater,
    Store,
    StudyName,
    TrackingUri,
    WaitForNodes,
)
from jobs.printing import SweepProgress, print_dropped, print_plan, print_stand_ins
from orchestrator.api.options import RUNS, Options
from orchestrator.api.shipped import STUDIES, shipped_studies
from orchestrator.api.sweep import Sweep as OpenedSweep
from orchestrator.api.sweep import open_tracker
from orchestrator.config.base import NO_VALUE, Refused, one_line
from orchestrator.config.load import summary_of
from orchestrator.config.study import StudyError
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.sweep.ledger import Ledger, Tracker

NOT_TRACKED = 3  # exit code: the results are whole, MLflow's view of them is not


def print_studies(is_asked: bool) -> None:
    """Print the shipped studies with their scales and leave, if that is asked."""
    if is_asked:
        for name in shipped_studies():
            about, scales = summary_of(STUDIES / f"{name}.yaml")
            print(f"{name}: scales {', '.join(scales) or 'none'}; {about}")
        raise typer.Exit


ListStudies = Annotated[
    bool,
    typer.Option(
        "--list",
        is_eager=True,
        callback=print_studies,
        help="List the shipped studies with their scales and what they are about.",
    ),
]

Rate = Annotated[
    float | None,
    typer.Option("--rate", min=0.0, help="Price a plan at this much money for a device hour."),
]

Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="With --plan: run one short step of each kind of stage that the store has none like.",
    ),
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def sweep(  # noqa: PLR0913 - options of a command
    study: StudyName,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    scale: Scale = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print points, stages and cost, run nothing.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    out: Out = RUNS,
    store: Store = None,
    data: Data = None,
    tracking_uri: TrackingUri = None,
    ship_later: ShipLater = False,
    cache: Cache = None,
    cache_gib: CacheGib = CACHE_GIB,
    wait_for_nodes: WaitForNodes = 0.0,
    list_studies: ListStudies = False,
    rate: Rate = None,
    calibrate: Calibrate = False,
) -> None:
    """Sweep a study: train targets, attack them, measure what leaks, and keep the comparison."""
    options = Options(
        study,
        overrides,
        scale,
        out,
        store,
        data,
        tracking_uri,
        ship_later,
        cache,
        wait_for_nodes,
        cache_gib,
    )
    console = start_console()
    try:
        if not plan and (calibrate or rate is not None):
            option = "--calibrate" if calibrate else "--rate"
            raise Refused(option, NO_VALUE, "is of a plan", "add --plan or leave it out")
        opened = Sweep(options, console, local=local, plans=plan)
        if plan:
            opened.print_plan(rate, calibrates=calibrate)
            return
        opened.check_queries()
        tracker = open_tracker(opened)
    except ValueError as error:
        refuse(error)
    try:
        code = opened.execute(tracker)
    except (StudyError, Refused) as error:  # the cluster cannot take the study
        refuse(error)
    sys.exit(code)


def start_console() -> Console:
    """Set up logging; return the console a command prints to, as wide as the terminal if it is one."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


class Sweep(OpenedSweep):
    """The sweep of a command, which prints what is planned, what happens and how it ends."""

    def __init__(
        self,
        options: Options,
        console: Console,
        *,
        local: bool = False,
        writes: bool = True,
        plans: bool = False,
    ) -> None:
        super().__init__(options, local=local, writes=writes, plans=plans)
        self.console = console

    def print_plan(self, rate: float | None = None, *, calibrates: bool = False) -> None:
        """Print what would run, and its price at a rate for a device hour; with `calibrates` after measuring
        the kinds of stages that the store has none like."""
        print_stand_ins(self.console, self.preflight.published, self.preflight.absent)
        needed = [one.words for one in self.needed_queries()]  # before the search moves on
        tasks = self.first_tasks()
        expected = self.forecast(tasks)
        if calibrates and expected.unknown:
            from orchestrator.api.calibration import calibrate  # here: it imports torch, a plan needs none

            described = self.preflight.descriptions
            done = calibrate(tasks, expected.unknown, self.study.resources, described, self.precisions.choose)
            for fault in done.faults:
                self.say(f"not measured: {fault}")
            expected = self.forecast(tasks, done.stages)
            for stage in expected.unknown:
                self.say(f"not measured: {stage}: {done.why(stage)}")
        print_plan(
            self.console,
            self.study,
            tasks,
            self.dropped,
            expected,
            rate,
            precision=self.precision_lines(),
            is_measured=calibrates,
        )
        if self.began:
            self.say(self.began)
        for words in needed:
            self.say(words)

    def execute(self, tracker: Tracker) -> int:
        """Run the sweep to its end; return the exit code.

        Raise `StudyError` or `Refused` if the cluster cannot take the study.
        """
        progress = SweepProgress(self.console, *self.study.objective)
        with self.started(tracker, [progress], self.say) as run:
            print_dropped(self.console, self.dropped)
            progress.follow(run.requests)
            with progress, Interruption(run.journal, tracker) as interruption:
                while (executor := run.next_executor()) is not None:
                    with interruption.halting(executor):
                        executor.run(run.ledger)
            return self.publish(run.ledger, tracker, run.files)

    def say(self, line: str) -> None:
        """Print a line for people."""
        self.console.print(line, markup=False, soft_wrap=True)

    def publish(
        self, ledger: Ledger, tracker: Tracker, files: Mapping[str, bytes], *, num_missing: int = 0
    ) -> int:
        """Write and print the report, give it to the listeners; return the exit code."""
        from jobs.tables import print_end  # here: pandas takes half a second to import, and a plan needs none

        folder = self.write(files)
        print_end(self.console, self.study, ledger, folder, files, is_whole=not num_missing)
        for line in ledger.finish(self.report(ledger, files, num_missing)):
            self.say(line)
        counts = Counter(record.status for record in ledger.records)
        if counts["finished"] + counts["pruned"] < len(ledger.records) + num_missing:
            return 1
        return 0 if tracker.is_complete else NOT_TRACKED


def refuse(error: Exception) -> NoReturn:
    """Print what is wrong, one line for each fault, and exit with 2."""
    for fault in error.faults if isinstance(error, StudyError) else (error,):
        print(f"error: {one_line(str(fault))}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app()

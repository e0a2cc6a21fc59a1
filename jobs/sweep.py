"""Run a study: `python -m jobs.sweep STUDY.yaml`, on a cluster behind `ray job submit --working-dir . --`.

Running the same command again resumes; what is stored is never computed twice.

Exit code 0: every trial finished. 1: some failed. 2: the study cannot be run as written, nothing was started.
3: every trial finished, but MLflow did not take all records.
"""

import difflib
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from jobs.interruption import Interruption
from jobs.options import (
    RUNS,
    Cache,
    CacheGib,
    Data,
    Options,
    Out,
    Overrides,
    Scale,
    ShipLater,
    Store,
    StudyName,
    TrackingUri,
    WaitForNodes,
)
from jobs.printing import SweepProgress, print_dropped, print_plan
from jobs.report_folder import folder_name, write_report
from orchestrator.config.base import Refused, Scalar, one_line
from orchestrator.config.load import as_written, read_study, scales_of
from orchestrator.config.normalise import normalise
from orchestrator.config.plain import check_path
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, footprint
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.runtime.mlflow.check import check_tracking
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.runtime.open_store import check, check_place
from orchestrator.runtime.ray.connect import ray_executor
from orchestrator.runtime.search import search_points
from orchestrator.stages.graph import Planner, Stage
from orchestrator.store.artifacts import Corrupt
from orchestrator.store.directory import withhold
from orchestrator.store.journal import Journal, now_ms
from orchestrator.sweep.journal import JournalListener, read_pruned, read_started_ms
from orchestrator.sweep.json_tracker import JsonTracker
from orchestrator.sweep.ledger import Ledger, Listener, Points, Tracker
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.profiles import profile_of, profiles_of
from orchestrator.sweep.records import DatasetInput, SweepRecord, SweepReport
from orchestrator.sweep.search import FixedPoints
from orchestrator.sweep.study_checks import check_local, check_study
from orchestrator.sweep.trial import REBUILDS, Task
from orchestrator.sweep.validation import Preflight

logger = logging.getLogger(__name__)

STUDIES = Path(__file__).parent / "studies"
NOT_TRACKED = 3  # exit code: the results are whole, MLflow's view of them is not


def print_studies(is_asked: bool) -> None:
    """Print the shipped studies with their scales and leave, if that is asked."""
    if is_asked:
        for name in _shipped():
            scales = ", ".join(scales_of(STUDIES / f"{name}.yaml")) or "none"
            print(f"{name}: scales {scales}")
        raise typer.Exit


ListStudies = Annotated[
    bool,
    typer.Option(
        "--list", is_eager=True, callback=print_studies, help="List the shipped studies and their scales."
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
        opened = Sweep(options, console, local=local)
        if plan:
            opened.print_plan()
            return
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


class Sweep:
    """A study opened by a command: everything checked at construction, nothing started before `execute`.

    `jobs.report` starts nothing at all: it publishes what the ledger adopts, and before that writes nothing.
    """

    def __init__(
        self, options: Options, console: Console, *, local: bool = False, writes: bool = True
    ) -> None:
        file = _find(options.study)
        study = read_study(file, overrides=options.overrides, scale=options.scale)
        self.options, self.study, self.local, self.console = options, study, local, console
        self._runs = writes
        self.locations = options.locations()
        check_study(study)
        self.store = self.locations.open_store()
        if writes:
            check_place(self.store.blobs)  # written to only when nothing is left to refuse
        else:
            check(self.store.blobs, writes=False)
        self.location: Location = self.locations.open_data()
        if self.location.blobs is not None:
            check(self.location.blobs, option="--data", writes=False)
        self.preflight = Preflight(self.location, lambda stage: study.resources.of(stage).workers)
        self.search: Points
        self.dropped: list[Dropped]
        self.search, self.num_points, self.dropped = search_points(
            study, self.preflight, as_written(file) if options.scale or options.overrides else None
        )
        self._planner = Planner(
            self.preflight.digests, profile_of(study.resources), profiles_of(study.resources)
        )
        if local:
            check_local(study)

    def plan(self, point: Point) -> dict[str, Stage]:
        """Return the stages of a point."""
        return self._planner.plan(normalise(point.spec))

    def print_plan(self) -> None:
        """Print what would run."""
        tasks = [Task(point, self.plan(point)) for point in self.search.ask()]
        sets = {name: footprint(about, self.location) for name, about in self.preflight.descriptions.items()}
        print_plan(self.console, self.study, tasks, self.dropped, self.store, sets)

    def execute(self, tracker: Tracker) -> int:
        """Run the sweep to its end; return the exit code.

        Raise `StudyError` or `Refused` if the cluster cannot take the study.
        """
        with Journal(self.store.blobs, self.study.key) as journal:
            progress = SweepProgress(self.console, *self.study.objective)
            ledger = self.ledger(journal, [JournalListener(journal), tracker, progress])
            print_dropped(self.console, self.dropped)
            journal.append("start", study=self.study.study, points=self.num_points, dropped=len(self.dropped))
            tracker.open(self.sweep_record(journal))
            try:
                with progress, Interruption(journal, tracker) as interruption:
                    files = self._complete(ledger, journal, interruption)
            except Exception:  # the store or the cluster failed: nothing stays open, the next start goes on
                tracker.interrupted()
                raise
            return self.publish(ledger, tracker, files)

    def ledger(self, journal: Journal, listeners: Sequence[Listener]) -> Ledger:
        """Return the sweep's ledger; nothing is planned yet."""
        return Ledger(
            self.search,
            self.plan,
            self.store,
            self._describe,
            pruned=lambda: read_pruned(journal),
            listeners=listeners,
            takes_older=not self._runs,
        )

    def _complete(self, ledger: Ledger, journal: Journal, interruption: Interruption) -> dict[str, bytes]:
        """Run what is missing until a report can be made of undamaged files; return its files."""
        for _ in range(REBUILDS):
            self._run(ledger, journal, interruption)
            if (files := self.report_files(ledger)) is not None:
                return files
        way_out = "check the store's disk, then run the same command again"
        raise Refused("store", self.store.blobs.uri, f"damaged what was built {REBUILDS} times", way_out)

    def report_files(self, ledger: Ledger) -> dict[str, bytes] | None:
        """Return the report of the recorded trials; None if the ledger has to run some of them again.

        These have lost their records: a file that the report reads was damaged and is quarantined.
        """
        # Here, because pandas, matplotlib and scipy take seconds to import and a plan needs none.
        from orchestrator.report.tables import report_files

        try:
            return report_files(self.study, ledger.records, self.store)
        except Corrupt as error:
            logger.warning("event=report_put_off reason=%r trials=%d", str(error), ledger.reopen())
            return None

    def _run(self, ledger: Ledger, journal: Journal, interruption: Interruption) -> None:
        if not ledger.has_work():
            return  # everything is stored: Ray is not even started
        if self.local:
            from orchestrator.sweep.local import LocalExecutor  # here: it imports torch, a plan needs none

            local = LocalExecutor(self.store, self.location, self.study.resources.checkpoint_seconds)
            with interruption.halting(local):
                local.run(ledger)
            return
        wait_seconds = 60.0 * self.options.wait_for_nodes
        with (
            ray_executor(
                self.study, self.locations, journal, wait_seconds=wait_seconds, say=self.say
            ) as executor,
            interruption.halting(executor),
        ):
            executor.run(ledger)

    def say(self, line: str) -> None:
        """Print a line for people."""
        self.console.print(line, markup=False, soft_wrap=True)

    def publish(
        self, ledger: Ledger, tracker: Tracker, files: Mapping[str, bytes], *, num_missing: int = 0
    ) -> int:
        """Write and print the report, give it to the listeners; return the exit code."""
        from jobs.tables import print_end  # here, as above
        from orchestrator.report.tables import NOTE

        records = ledger.records
        counts = Counter(record.status for record in records)
        folder = self._write(files)
        print_end(self.console, self.study, ledger, folder, files, is_whole=not num_missing)
        for line in ledger.finish(self._report(ledger, files, files[NOTE].decode(), num_missing)):
            self.console.print(line, markup=False, soft_wrap=True)
        if counts["finished"] + counts["pruned"] < len(records) + num_missing:
            return 1
        return 0 if tracker.is_complete else NOT_TRACKED

    def _report(
        self, ledger: Ledger, files: Mapping[str, bytes], about: str, num_missing: int
    ) -> SweepReport:
        records = ledger.records
        counts = Counter(record.status for record in records)
        metrics = {
            f"sweep/trials_{status}": float(counts[status]) for status in ("finished", "failed", "pruned")
        }
        metrics["sweep/stages"] = float(len(ledger.needed))
        if num_missing:
            about += f"\n\n{num_missing} of {self.num_points} points are not stored and not in this report."
        num_failed = counts["failed"] + num_missing  # a sweep that is not whole is not shown as finished
        ended_ms = max((record.ended_ms for record in records), default=0)
        return SweepReport(files, metrics, about, num_failed, ended_ms=ended_ms)

    @cached_property
    def folder(self) -> Path:
        """Where the report is written here."""
        options = self.options
        is_overridden = bool(options.overrides)
        name = folder_name(self.study, _find(options.study), options.scale, is_overridden=is_overridden)
        return options.out / name

    def _write(self, files: Mapping[str, bytes]) -> Path:
        """Write the report to the store and to its folder here; return that folder."""
        blobs, place, folder = self.store.blobs, f"sweeps/{self.study.key}/report", self.folder
        write_report(folder, files)
        for left in set(blobs.names(f"{place}/")) - {f"{place}/{name}" for name in files}:
            blobs.remove(left)  # the study asked for more when this sweep's report was last written
        for name, content in files.items():
            blobs.put(f"{place}/{name}", content)
        return folder

    def sweep_record(self, journal: Journal) -> SweepRecord:
        """Return the record of the sweep; it began with its first start."""
        objective, is_maximized = self.study.objective
        started_ms, axes = read_started_ms(journal), self._axes()
        return SweepRecord(
            key=self.study.key,
            study=self.study.study,
            about=self.study.about,
            study_yaml=self.study.yaml(),
            axes=axes,
            num_points=self.num_points,
            num_dropped=len(self.dropped),
            objective=objective,
            maximize=is_maximized,
            started_ms=now_ms() if started_ms is None else started_ms,
            replicates=[axis for axis in axes if self.study.report.repeats(axis)],
        )

    def _axes(self) -> dict[str, list[Scalar]]:
        """Return the values that points have, including those that only the base gives to some of the grids;
        of points that are still to be chosen, the study's."""
        if not isinstance(self.search, FixedPoints):
            return self.study.axes()
        points = self.search.points
        return {axis: list(dict.fromkeys(point.axes[axis] for point in points)) for axis in points[0].axes}

    def _describe(self, name: str) -> DatasetInput:
        about = self.preflight.descriptions[name]
        return DatasetInput(name, about.digest, about.source, "", about.num_images, about.num_classes)


def _find(study: str) -> Path:
    """Return the file of a study or of a shipped one; raise `Refused` with what its name is close to."""
    check_path("study", study)
    path = Path(study)
    shipped = STUDIES / f"{study}.yaml"
    if path.exists() or not shipped.exists():
        shipped = path
    if not shipped.exists():
        close = difflib.get_close_matches(study.lower().removesuffix(".yaml"), _shipped())
        if close:
            raise Refused("study", study, "does not exist", f"did you mean {' or '.join(close)}")
    return shipped


def _shipped() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def open_tracker(opened: Sweep) -> Tracker:
    """Return where the comparison goes; raise `ValueError` if it cannot be tracked there now.

    What this writes to, the store included, is only created when nothing is left to refuse.
    """
    out, uri = opened.options.out, opened.locations.tracking
    if uri is not None:
        check_tracking(uri)
    used = [opened.folder] if uri is not None else [opened.folder, out / "unshipped"]
    for folder in used:
        there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
        if not there.is_dir():
            rule = "is no folder, and this command writes to one of that name"
            raise Refused("out", there, rule, "name another folder with --out or move it away")
    check(opened.store.blobs)
    if not out.is_dir():
        withhold(out)
    return JsonTracker(out / "unshipped") if uri is None else MlflowTracker(uri)


def refuse(error: Exception) -> NoReturn:
    """Print what is wrong, one line for each fault, and exit with 2."""
    for fault in error.faults if isinstance(error, StudyError) else (error,):
        print(f"error: {one_line(str(fault))}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app()

"""A study opened to be run or reported on, by a command or in a notebook, and one run of it.

    opened = Sweep(options, local=True)
    with opened.started(tracker, listeners) as run:
        while (executor := run.next_executor()) is not None:
            executor.run(run.ledger)
        folder = opened.write(run.files)

The caller runs the executor, so that no file lies between it and the executor on the stack.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.forecast import Forecast, Known, forecast
from orchestrator.api.forecast_record import ForecastListener
from orchestrator.api.forecast_record import read as read_forecast
from orchestrator.api.options import Options
from orchestrator.api.report_folder import folder_name, write_report
from orchestrator.api.shipped import find_study
from orchestrator.config.base import Refused, Scalar
from orchestrator.config.load import as_written, read_study
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, footprint
from orchestrator.runtime.importance import axis_importance
from orchestrator.runtime.matrix_units import units_here
from orchestrator.runtime.mlflow.check import check_tracking
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.runtime.open_store import check, check_place
from orchestrator.runtime.ray.connect import is_cluster_named, ray_executor
from orchestrator.runtime.search import Start, known_points, search_points
from orchestrator.stages.graph import Planner, Stage
from orchestrator.stages.workload import Sizes
from orchestrator.store.artifacts import Artifact, Corrupt
from orchestrator.store.directory import withhold
from orchestrator.store.journal import Journal, now_ms
from orchestrator.store.requests import RequestFolder, start_fields
from orchestrator.sweep.forest import Forest
from orchestrator.sweep.journal import JournalListener, read_pruned, read_started_ms
from orchestrator.sweep.json_tracker import JsonTracker
from orchestrator.sweep.ledger import Executor, Ledger, Listener, Points, Tracker
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.precision import Precisions, Units, read_units
from orchestrator.sweep.profiles import profile_of, profiles_of
from orchestrator.sweep.records import DatasetInput, SweepRecord, SweepReport
from orchestrator.sweep.requests import Requests, Size
from orchestrator.sweep.search import FixedPoints
from orchestrator.sweep.study_checks import check_local, check_study
from orchestrator.sweep.trial import REBUILDS, Task
from orchestrator.sweep.validation import Preflight

if TYPE_CHECKING:
    from orchestrator.api.queries import Needed

logger = logging.getLogger(__name__)


class Sweep:
    """A study that is opened: everything checked at construction, nothing started before `started`.

    `jobs.report` starts nothing at all: it publishes what the ledger adopts, and before that writes nothing.
    What is only planned (`plans`) needs no data: published sizes stand in for sets that are not staged.
    Construction raises `StudyError` or `Refused` for what cannot be run as written.
    """

    def __init__(
        self, options: Options, *, local: bool = False, writes: bool = True, plans: bool = False
    ) -> None:
        file = find_study(options.study)
        study = read_study(file, overrides=options.overrides, scale=options.scale)
        self.options, self.study, self.local = options, study, local
        self.began = ""  # what the search goes on from, in words
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
        self.preflight = Preflight(
            self.location, lambda stage: study.resources.of(stage).workers, stands_in=plans
        )
        self.search: Points
        self.dropped: list[Dropped]
        self.search, self.num_points, self.dropped = search_points(
            study, self.preflight, as_written(file) if options.scale or options.overrides else None
        )
        self._plans = plans
        self.precisions = Precisions(study.resources, self._find_units, self._read_units)
        self._planner = Planner(
            self.preflight.digests,
            profile_of(study.resources),
            profiles_of(study.resources),
            self.precisions.choose,
        )
        if local:
            check_local(study)

    def plan(self, point: Point) -> dict[str, Stage]:
        """Return the stages of a point."""
        return self._planner.plan(normalise(point.spec))

    def _find_units(self, device: str) -> Units:
        """Return what the machines that the stages run on have of a kind of device."""
        if self.local or not self._runs or not is_cluster_named():
            return units_here(device)
        if self._plans:  # of a cluster that it need not reach
            units = units_here(device)
            return Units(units.are_there, f"{units.words}, of this machine; a run asks the cluster's nodes")
        from orchestrator.runtime.ray.nodes import units_of_nodes  # here: Ray takes seconds to import

        return units_of_nodes(device)

    def _read_units(self) -> dict[str, Units]:
        return read_units(Journal(self.store.blobs, self.study.key))

    def precision_lines(self) -> list[str]:
        """Return lines for people: the precision that planned trainings have where the resources leave it
        open, and warnings of bfloat16 on devices that are slow in it."""
        return list(filter(None, (self.precisions.words, *self.precisions.warnings())))

    def first_tasks(self) -> list[Task]:
        """Return the points that are known now with their stages: in a grid all of them, of a search that
        learns those that an earlier start had asked and the next batch. The search moves on."""
        with Journal(self.store.blobs, self.study.key) as journal:
            self._begin(journal, writes=False)
            return [self._task(point) for point in known_points(self.search)]

    def _begin(self, journal: Journal, *, writes: bool) -> None:
        if writes:
            self.precisions.keep(journal)
        start = Start(self.study, self.preflight, self._task, self.store, self._describe)
        self.began = start.begin(self.search, journal, writes=writes)

    def _task(self, point: Point) -> Task:
        return Task(point, self.plan(point))

    def needed_queries(self) -> "list[Needed]":
        """Return what the points ask of services beyond stored answers; nothing of points that a search has
        still to choose."""
        if self.preflight.published or self.preflight.absent:  # a plan of images that are not here
            return []
        points = self.search.points if isinstance(self.search, FixedPoints) else []
        asking = [point for point in points if point.spec.target.service is not None]
        if not asking:
            return []
        from orchestrator.api.queries import needed_queries  # here: it imports torch, other plans need none

        tasks = [Task(point, self.plan(point)) for point in asking]
        return list(needed_queries(tasks, self.store, self.location))

    def check_queries(self) -> None:
        """Raise `Refused` if a service's budget does not suffice for what is certain to be asked."""
        for needed in self.needed_queries():
            needed.check()

    def forecast(self, tasks: Sequence[Task], calibrated: Sequence[tuple[Artifact, Sizes]] = ()) -> Forecast:
        """Return what the stages of these trials need; nothing is run. `calibrated`: stages that were run to
        be measured, with the numbers of images of their sets."""
        described = self.preflight.descriptions
        sets = {name: footprint(about, self.location) for name, about in described.items()}
        known = Known(sets, self.preflight.counts, self.preflight.shapes)
        return forecast(tasks, self.store, known, calibrated)

    def ledger(self, journal: Journal, listeners: Sequence[Listener]) -> Ledger:
        """Return the sweep's ledger; nothing is planned yet, and the search goes on from the journal."""
        self._begin(journal, writes=self._runs)
        return Ledger(
            self.search,
            self.plan,
            self.store,
            self._describe,
            pruned=lambda: read_pruned(journal),
            listeners=listeners,
            takes_older=not self._runs,
        )

    @contextmanager
    def started(
        self, tracker: Tracker, listeners: Sequence[Listener] = (), say: Callable[[str], None] = print
    ) -> Iterator["Run"]:
        """Start the sweep, or go on with it; yield the run, whose tracker stays open for no error.

        `say` prints a line for people.
        """
        with Journal(self.store.blobs, self.study.key) as journal:
            expected = ForecastListener(self.store, self.study.key, journal, self.forecast)
            run = Run(self, journal, [JournalListener(journal), expected, tracker, *listeners], say)
            if self.began:
                say(self.began)
            fields = start_fields(journal, is_local=self.local)
            journal.append(
                "start", study=self.study.study, points=self.num_points, dropped=len(self.dropped), **fields
            )
            tracker.open(self.sweep_record(journal))
            try:
                with run:
                    yield run
            except (
                BaseException
            ):  # of the store or the cluster, or a notebook's interrupt: a next start goes on
                if not run.files:
                    tracker.interrupted()
                raise

    def executor(
        self, journal: Journal, size: Size, say: Callable[[str], None], *, is_first: bool = True
    ) -> AbstractContextManager[Executor]:
        """Return what runs trials: this process, or Ray, joined or started now and ended with the block.

        Entering raises `Refused` if the cluster cannot be reached or, the first time, cannot take the study.
        """
        if self.local:
            from orchestrator.sweep.local import LocalExecutor  # here: it imports torch, a plan needs none

            seconds = self.study.resources.checkpoint_seconds
            return nullcontext(LocalExecutor(self.store, self.location, seconds, size=size, **self._kept))
        wait_seconds = 60.0 * self.options.wait_for_nodes
        return ray_executor(
            self.study,
            self.locations,
            journal,
            size,
            wait_seconds=wait_seconds,
            checks_room=is_first and wait_seconds <= 0,
            say=say,
        )

    @cached_property
    def _kept(self) -> dict[str, Any]:
        """What all local executors of a start share: a pause forgets no failure, and compares with the
        trainings before it too."""
        scheduler, rungs = self.study.search.scheduler, None
        if scheduler is not None:
            from orchestrator.runtime.pruning import LocalRungs  # here: Optuna, as above

            rungs = LocalRungs(scheduler)
        return {"scheduler": scheduler, "rungs": rungs, "failures": {}}

    def report_files(self, ledger: Ledger) -> dict[str, bytes] | None:
        """Return the report of the recorded trials; None if the ledger has to run some of them again.

        These have lost their records: a file that the report reads was damaged and is quarantined.
        """
        # Here, because pandas, matplotlib and scipy take seconds to import and a plan needs none.
        from orchestrator.report.page.page import Context
        from orchestrator.report.tables import report_files

        try:
            searched = None if self.study.search.algorithm == "grid" else self._importance(ledger)
            kept = read_forecast(self.store.blobs, self.study.key)
            context = Context(self.options.again(), self.num_missing(ledger), kept)
            return report_files(self.study, ledger.records, self.store, context=context, searched=searched)
        except Corrupt as error:
            logger.warning("event=report_put_off reason=%r trials=%d", str(error), ledger.reopen())
            return None

    def num_missing(self, ledger: Ledger) -> int:
        """Return how many points have no record; none of a search that has ended before its last sample."""
        return 0 if self.search.ended else max(0, self.num_points - len(ledger.records))

    def report(self, ledger: Ledger, files: Mapping[str, bytes], num_missing: int = 0) -> SweepReport:
        """Return the end of the sweep for its listeners; `num_missing` points are in no record."""
        from orchestrator.report.tables import NOTE  # here, as above

        records, about = ledger.records, files[NOTE].decode()
        counts = Counter(record.status for record in records)
        metrics = {
            f"sweep/trials_{status}": float(counts[status]) for status in ("finished", "failed", "pruned")
        }
        metrics["sweep/stages"] = float(len(ledger.needed))
        if num_missing:
            about += f"\n\n{num_missing} of {self.num_points} points are not stored and not in this report."
        if self.search.ended:
            about += f"\n\nThe search ended: {self.search.ended}."
        num_failed = counts["failed"] + num_missing  # a sweep that is not whole is not shown as finished
        ended_ms = max((record.ended_ms for record in records), default=0)
        models = []
        if self.study.report.register:
            from orchestrator.api.best_models import best_models  # here, as above

            models = best_models(self.study, records, self.store)
        return SweepReport(files, metrics, about, num_failed, ended_ms=ended_ms, models=models)

    def _importance(self, ledger: Ledger) -> Callable[[str], Forest | None]:
        """Return what a model of the search's trials says of its axes, by metric."""
        return partial(axis_importance, self.study, ledger.records)

    @cached_property
    def folder(self) -> Path:
        """Where the report is written here."""
        options = self.options
        is_overridden = bool(options.overrides)
        name = folder_name(self.study, find_study(options.study), options.scale, is_overridden=is_overridden)
        return options.out / name

    def write(self, files: Mapping[str, bytes]) -> Path:
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
            metrics=self.study.report.metrics,
            scale=self.options.scale,
            overrides=tuple(self.options.overrides),
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


class Run:
    """One start of a sweep: a context that ends what `next_executor` opened."""

    def __init__(
        self, sweep: Sweep, journal: Journal, listeners: Sequence[Listener], say: Callable[[str], None]
    ) -> None:
        self.journal, self.ledger = journal, sweep.ledger(journal, listeners)
        folder = RequestFolder(sweep.store.blobs, sweep.study.key, journal.attempt)
        self.requests = Requests(folder, journal, Size(sweep.study.resources.groups), say)
        self.files: dict[str, bytes] = {}
        """The report, path -> content, when nothing is left to run."""
        self._sweep, self._say = sweep, say
        self._num_damaged = self._num_opened = 0
        self._opened = ExitStack()

    def __enter__(self) -> "Run":
        self.requests.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        self.requests.end()

    def next_executor(self) -> Executor | None:
        """Return what runs the missing trials, None when `files` has the report of all of them.

        A sweep that is asked to pause waits here until it is resumed. Raise `Refused` if the cluster cannot
        take the study, or if the store damages what it is given.
        """
        self._opened.close()
        self.ledger.go_on()
        while not self.ledger.has_work():  # if everything is stored Ray is not even started
            files = self._sweep.report_files(self.ledger)
            if files is not None:
                self.requests.end()
                self.files = files
                return None
            self._num_damaged += 1
            if self._num_damaged == REBUILDS:
                way_out = "check the store's disk, then run the same command again"
                rule = f"damaged what was built {REBUILDS} times"
                raise Refused("store", self._sweep.store.blobs.uri, rule, way_out)
        if not self._num_opened:
            for line in self._sweep.precision_lines():
                self._say(line)
        self.requests.wait()
        self._num_opened += 1
        opening = self._sweep.executor(
            self.journal, self.requests.size, self._say, is_first=self._num_opened == 1
        )
        return self._opened.enter_context(self.requests.halting(self._opened.enter_context(opening)))


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

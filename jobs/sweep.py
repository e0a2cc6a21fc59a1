"""Run a study: `python -m jobs.sweep STUDY.yaml`, on a cluster behind `ray job submit --working-dir . --`.

Running the same command again resumes; what is stored is never computed twice.

Exit code 0: every trial finished. 1: some failed. 2: the study cannot be run as written, nothing was started.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, Self

import typer
from rich.console import Console

from jobs.printing import SweepProgress, print_dropped, print_end, print_plan
from orchestrator.artifacts import Artifacts
from orchestrator.datasets import Location
from orchestrator.journal import Journal
from orchestrator.pipeline import Collector, FixedPoints, Points, Source, Task
from orchestrator.plan import Stage
from orchestrator.plan import plan as plan_stages
from orchestrator.points import Dropped, Point
from orchestrator.preflight import Preflight, check_report
from orchestrator.records import DatasetInput, Scalar, SweepRecord, SweepReport, Tracker
from orchestrator.report import note, report_files
from orchestrator.runtime import session
from orchestrator.runtime.json_tracker import JsonTracker
from orchestrator.runtime.mlflow_check import check_tracking
from orchestrator.runtime.mlflow_tracker import MlflowTracker
from orchestrator.runtime.search import search_points
from orchestrator.runtime.stores import check, open_blobs, open_location
from orchestrator.study import Study, StudyError
from orchestrator.study_file import read_study

STUDIES = Path(__file__).parent / "studies"
CLOSE_SECONDS = 1.8  # `ray job stop` kills after three
NAMED = "Study file, or the name of one in jobs/studies."

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def sweep(  # noqa: PLR0913 - options of a command
    study: Annotated[str, typer.Argument(help=NAMED, metavar="STUDY.yaml")],
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. target.seed=3.")
    ] = [],  # noqa: B006 - typer copies it
    scale: Annotated[str | None, typer.Option(help="One of the study's scales, e.g. smoke.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print points, stages and cost, and stop.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for reports and the default store.")] = Path("runs"),
    store: Annotated[
        str | None, typer.Option(envvar="INVERSION_STORE", help="Artifacts: a folder or s3://bucket/prefix.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(envvar="INVERSION_DATA", help="Staged data sets: a folder or s3://bucket/prefix."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; default: sqlite in --out.")
    ] = None,
    ship_later: Annotated[
        bool,
        typer.Option(
            "--ship-later", help="Do without MLflow now; the same command without this flag sends all."
        ),
    ] = False,
) -> None:
    """Sweep a study: train targets, attack them, judge what leaks, and keep the comparison."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        read = read_study(_find(study), overrides=overrides, scale=scale)
        places = session.Places(
            store_uri=store or str((out / "store").absolute()),
            data_uri=data,
            cache=str(Path.home() / ".cache" / "inversion-orchestrator") if data and "://" in data else None,
        )
        run = _Run(read, places, local, console)
        if plan:
            run.print_plan()
            return
        tracker = _tracker(out, tracking_uri, ship_later)
    except (StudyError, ValueError) as error:
        _refuse(error)
    try:
        code = run.execute(tracker, out)
    except StudyError as error:  # the cluster cannot take the study
        _refuse(error)
    sys.exit(code)


class _Run:
    """One start of the command: everything checked at construction, nothing started before `execute`."""

    def __init__(self, study: Study, places: session.Places, local: bool, console: Console) -> None:
        self.study, self.places, self.local, self.console = study, places, local, console
        check_report(study)
        blobs = open_blobs(places.store_uri)
        check(blobs)
        self.store = Artifacts(blobs)
        self.location: Location = open_location(places.data_uri, places.cache)
        if self.location.blobs is not None:
            check(self.location.blobs, option="--data", writes=False)
        self.preflight = Preflight(self.location)
        self.search: Points
        self.dropped: list[Dropped]
        self.search, self.num_points, self.dropped = search_points(study, self.preflight)
        self.profile = session.profile_of(study)
        if local:
            session.local_executor(study, self.store, self.location)

    def plan(self, point: Point) -> dict[str, Stage]:
        """Return the stages of a point."""
        return plan_stages(point.spec, self.preflight.digests, self.profile)

    def print_plan(self) -> None:
        """Print what would run."""
        tasks = [Task(point, self.plan(point)) for point in self.search.ask()]
        print_plan(self.console, self.study, tasks, self.dropped, self.store)

    def execute(self, tracker: Tracker, out: Path) -> int:
        """Run the sweep to its end; return the exit code."""
        objective, is_maximized = self.study.objective
        with Journal(self.store.blobs, self.study.key) as journal:
            watcher = SweepProgress(self.console, objective, is_maximized)
            collector = Collector(self.store, self._describe)
            source = Source(self.search, self.plan, collector, tracker, journal, watcher)
            print_dropped(self.console, self.dropped)
            journal.append("start", study=self.study.study, points=self.num_points, dropped=len(self.dropped))
            tracker.start(self._sweep_record(journal))
            try:
                with watcher, _Interruptible(journal, tracker) as interruptible:
                    self._run(source, interruptible)
            except Exception:  # the store or the cluster failed: nothing stays open, the next start goes on
                tracker.interrupted()
                raise
            return self._report(source, tracker, journal, out)

    def _run(self, source: Source, interruptible: "_Interruptible") -> None:
        if not source.has_work():
            return  # everything is stored: Ray is not even started
        if self.local:
            session.local_executor(self.study, self.store, self.location).run(source)
            return
        with session.ray_executor(self.study, self.places) as executor:
            interruptible.listen()  # Ray has put its own handlers in
            executor.run(source)

    def _report(self, source: Source, tracker: Tracker, journal: Journal, out: Path) -> int:
        counts = Counter(record.status for record in source.records)
        files = report_files(self.study, source.records, self.store)
        folder = out / self.study.study
        for name, content in files.items():
            self.store.blobs.put(f"sweeps/{self.study.key}/report/{name}", content)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        stages = source.stage_counts()
        metrics = {
            f"sweep/trials_{status}": float(counts[status]) for status in ("finished", "failed", "pruned")
        }
        metrics["sweep/stages"] = float(len(source.needed))
        journal.append("finish", **{status: counts[status] for status in counts}, stages=stages)
        print_end(self.console, self.study, source, folder, sorted(files))
        ended = max((record.ended_ms for record in source.records), default=0)
        links = tracker.finish(
            SweepReport(files, metrics, note(self.study, source.records), counts["failed"], ended_ms=ended)
        )
        for line in links:
            self.console.print(line, markup=False, soft_wrap=True)
        return 0 if counts["finished"] + counts["pruned"] == len(source.records) else 1

    def _sweep_record(self, journal: Journal) -> SweepRecord:
        objective, is_maximized = self.study.objective
        starts = [event["time_ms"] for event in journal.events() if event["event"] == "start"]
        return SweepRecord(
            key=self.study.key,
            study=self.study.study,
            about=self.study.about,
            study_yaml=self.study.yaml(),
            axes=self._axes(),
            num_points=self.num_points,
            num_dropped=len(self.dropped),
            objective=objective,
            maximize=is_maximized,
            started_ms=min(starts, default=time.time_ns() // 1_000_000),
        )

    def _axes(self) -> dict[str, list[Scalar]]:
        """Return the swept values, those included that only the base gives to some of the grids."""
        axes = self.study.axes()
        for point in self.search.points if isinstance(self.search, FixedPoints) else ():
            for axis, value in point.axes.items():
                if value not in axes[axis]:
                    axes[axis].append(value)
        return axes

    def _describe(self, name: str) -> DatasetInput:
        about = self.preflight.descriptions[name]
        return DatasetInput(name, about.digest, about.source, "", about.num_images, about.num_classes)


def _find(study: str) -> Path:
    path = Path(study)
    shipped = STUDIES / f"{study}.yaml"
    return shipped if not path.exists() and shipped.exists() else path


def _tracker(out: Path, tracking_uri: str | None, ship_later: bool) -> Tracker:
    out.mkdir(parents=True, exist_ok=True)
    if ship_later:
        return JsonTracker(out / "unshipped")
    uri = tracking_uri or f"sqlite:///{out / 'mlflow.db'}"
    check_tracking(uri)
    return MlflowTracker(uri, artifact_root=out.absolute() / "mlartifacts")


def _refuse(error: Exception) -> NoReturn:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


class _Interruptible:
    """Ends the process soon after SIGTERM or SIGINT: nothing is half-written, so nothing is wound down.

    The closing runs in a thread of its own, because the interrupted one may hold any lock.
    """

    def __init__(self, journal: Journal, tracker: Tracker) -> None:
        self._journal, self._tracker = journal, tracker

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    def listen(self) -> None:
        """Take the signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        code = 128 + number
        threading.Thread(target=self._close, args=(code,), daemon=True).start()
        last = threading.Timer(CLOSE_SECONDS, os._exit, [code])
        last.daemon = True
        last.start()

    def _close(self, code: int) -> None:
        print("interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        self._journal.append("interrupted")
        self._journal.flush()
        self._tracker.interrupted()
        os._exit(code)


if __name__ == "__main__":
    app()

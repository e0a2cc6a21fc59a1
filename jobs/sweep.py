"""Run a study: `python -m jobs.sweep STUDY.yaml`, on a cluster behind `ray job submit --working-dir . --`.

Running the same command again resumes; what is stored is never computed twice.

Exit code 0: every trial finished. 1: some failed. 2: the study cannot be run as written, nothing was started.
"""

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, Self

import typer
from rich.console import Console

from jobs.printing import SweepProgress, print_dropped, print_end, print_plan
from orchestrator.config.base import Scalar
from orchestrator.config.load import read_study
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location
from orchestrator.report.tables import note, report_files
from orchestrator.runtime.http import redact
from orchestrator.runtime.json_tracker import JsonTracker
from orchestrator.runtime.mlflow.check import check_tracking
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.runtime.open_store import NODE_CACHE, check, open_blobs, open_location
from orchestrator.runtime.ray import session
from orchestrator.runtime.search import search_points
from orchestrator.stages.graph import Stage
from orchestrator.stages.graph import plan as plan_stages
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.journal import Journal
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.records import DatasetInput, SweepRecord, SweepReport, Tracker
from orchestrator.sweep.trial import Collector, Executor, FixedPoints, Points, Source, Task
from orchestrator.sweep.validation import Preflight, check_study

STUDIES = Path(__file__).parent / "studies"
RAY_STOP_SECONDS = 3.0  # from the SIGTERM of `ray job stop` to its SIGKILL, unless the head says otherwise
MARGIN_SECONDS = 0.3  # of it for what comes after the workers have saved
NAMED = "Study file, or the name of one in jobs/studies."

logger = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


# The options that every command over a study has.
StudyName = Annotated[str, typer.Argument(help=NAMED, metavar="STUDY.yaml")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. target.seed=3.")
]
Scale = Annotated[str | None, typer.Option(help="One of the study's scales, e.g. smoke.")]
Out = Annotated[Path, typer.Option(help="Folder for reports and the default store.")]
Store = Annotated[
    str | None, typer.Option(envvar="INVERSION_STORE", help="Artifacts: a folder or s3://bucket/prefix.")
]
Data = Annotated[
    str | None,
    typer.Option(envvar="INVERSION_DATA", help="Staged data sets: a folder or s3://bucket/prefix."),
]
TrackingUri = Annotated[
    str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; default: sqlite in --out.")
]
ShipLater = Annotated[
    bool,
    typer.Option("--ship-later", help="Do without MLflow now; the same command without this flag sends all."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="INVERSION_CACHE",
        help="Where a node keeps data sets read from S3; default: ~/.cache/inversion-orchestrator.",
    ),
]
WaitForNodes = Annotated[
    float,
    typer.Option(
        envvar="INVERSION_WAIT_FOR_NODES",
        metavar="MINUTES",
        help="How long stages wait for nodes that an autoscaler adds; 0: what does not fit now is refused.",
    ),
]
RUNS = Path("runs")


@app.command()
def sweep(  # noqa: PLR0913 - options of a command
    study: StudyName,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    scale: Scale = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print points, stages and cost, and stop.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    out: Out = RUNS,
    store: Store = None,
    data: Data = None,
    tracking_uri: TrackingUri = None,
    ship_later: ShipLater = False,
    cache: Cache = None,
    wait_for_nodes: WaitForNodes = 0.0,
) -> None:
    """Sweep a study: train targets, attack them, judge what leaks, and keep the comparison."""
    options = Options(
        study, overrides, scale, out, store, data, tracking_uri, ship_later, cache, wait_for_nodes
    )
    console = start_console()
    try:
        run = Run(options, console, local=local)
        if plan:
            run.print_plan()
            return
        tracker = open_tracker(options)
    except (StudyError, ValueError) as error:
        refuse(error)
    try:
        code = run.execute(tracker)
    except StudyError as error:  # the cluster cannot take the study
        refuse(error)
    sys.exit(code)


@dataclass(frozen=True)
class Options:
    """What a command over a study was given."""

    study: str
    overrides: Sequence[str]
    scale: str | None
    out: Path
    store: str | None
    data: str | None
    tracking_uri: str | None
    ship_later: bool
    cache: Path | None = None
    wait_for_nodes: float = 0.0  # minutes

    def places(self) -> session.Places:
        """Return where artifacts and data sets are."""
        return session.Places(
            store_uri=_absolute(self.store or str(self.out / "store")),
            data_uri=self.data and _absolute(self.data),
            cache=str(self.cache or NODE_CACHE) if self.data and "://" in self.data else None,
        )

    def command(self) -> str:
        """Return the sweep's command over the same study and places, to copy."""
        words = ["python", "-m", "jobs.sweep", self.study]
        named = {"--scale": self.scale, "--store": self.store, "--data": self.data}
        named["--out"] = str(self.out) if self.out != RUNS else None
        named["--tracking-uri"] = self.tracking_uri and redact(self.tracking_uri)
        for flag, value in named.items():
            words += [flag, value] if value else []
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join([*words, "--ship-later"] if self.ship_later else words)


def _absolute(uri: str) -> str:
    """Return a folder's whole path: workers have other working directories."""
    return uri if "://" in uri else str(Path(uri).absolute())


def start_console() -> Console:
    """Set logging up and return where a command prints; as wide as the terminal, if it is one."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


class Run:
    """One start of a command: everything checked at construction, nothing started before `execute`.

    `jobs.report` starts nothing at all: it publishes what the `source` finds, and before that writes nothing.
    """

    def __init__(
        self, options: Options, console: Console, *, local: bool = False, writes: bool = True
    ) -> None:
        study = read_study(_find(options.study), overrides=options.overrides, scale=options.scale)
        self.options, self.study, self.local, self.console = options, study, local, console
        self.places = options.places()
        check_study(study)
        self.store = Artifacts(open_blobs(self.places.store_uri))
        check(self.store.blobs, writes=writes)
        self.location: Location = open_location(self.places.data_uri, self.places.cache)
        if self.location.blobs is not None:
            check(self.location.blobs, option="--data", writes=False)
        self.preflight = Preflight(self.location)
        self.search: Points
        self.dropped: list[Dropped]
        self.search, self.num_points, self.dropped = search_points(study, self.preflight)
        self.profile, self.profiles = session.profile_of(study), session.profiles_of(study)
        if local:
            session.local_executor(study, self.store, self.location)

    def plan(self, point: Point) -> dict[str, Stage]:
        """Return the stages of a point."""
        return plan_stages(point.spec, self.preflight.digests, self.profile, self.profiles)

    def print_plan(self) -> None:
        """Print what would run."""
        tasks = [Task(point, self.plan(point)) for point in self.search.ask()]
        print_plan(self.console, self.study, tasks, self.dropped, self.store)

    def execute(self, tracker: Tracker) -> int:
        """Run the sweep to its end; return the exit code."""
        with Journal(self.store.blobs, self.study.key) as journal:
            watcher = SweepProgress(self.console, *self.study.objective)
            source = self.source(tracker, journal, watcher)
            print_dropped(self.console, self.dropped)
            journal.append("start", study=self.study.study, points=self.num_points, dropped=len(self.dropped))
            tracker.start(self.sweep_record(journal))
            try:
                with watcher, _Interruptible(journal, tracker) as interruptible:
                    self._run(source, interruptible)
            except Exception:  # the store or the cluster failed: nothing stays open, the next start goes on
                tracker.interrupted()
                raise
            return self.publish(source)

    def source(self, tracker: Tracker, journal: Journal, watcher: SweepProgress) -> Source:
        """Return what hands out points and keeps the books."""
        collector = Collector(self.store, self._describe)
        return Source(self.search, self.plan, collector, tracker, journal, watcher)

    def _run(self, source: Source, interruptible: "_Interruptible") -> None:
        if not source.has_work():
            return  # everything is stored: Ray is not even started
        if self.local:
            interruptible.run(session.local_executor(self.study, self.store, self.location), source)
            return
        wait_seconds = 60.0 * self.options.wait_for_nodes
        with session.ray_executor(
            self.study, self.places, wait_seconds=wait_seconds, say=self.say
        ) as executor:
            interruptible.run(executor, source)

    def say(self, line: str) -> None:
        """Print a line for people."""
        self.console.print(line, markup=False, soft_wrap=True)

    def publish(self, source: Source, *, num_missing: int = 0) -> int:
        """Write the report, tell the tracker and people; return the exit code."""
        records = source.records
        counts = Counter(record.status for record in records)
        files = report_files(self.study, records, self.store)
        folder = self._write(files)
        metrics = {
            f"sweep/trials_{status}": float(counts[status]) for status in ("finished", "failed", "pruned")
        }
        metrics["sweep/stages"] = float(len(source.needed))
        told: dict[str, int] = {status: counts[status] for status in counts}
        source.journal.append("finish", **told, stages=source.stage_counts())
        print_end(self.console, self.study, source, folder, files, is_whole=not num_missing)
        num_failed = counts["failed"] + num_missing  # a sweep that is not whole is not shown as finished
        ended = max((record.ended_ms for record in records), default=0)
        about = note(self.study, records)
        if num_missing:
            about += f"\n\n{num_missing} of {self.num_points} points are not stored and not in this report."
        links = source.tracker.finish(SweepReport(files, metrics, about, num_failed, ended_ms=ended))
        for line in links:
            self.console.print(line, markup=False, soft_wrap=True)
        return 0 if counts["finished"] + counts["pruned"] == len(records) + num_missing else 1

    def _write(self, files: Mapping[str, bytes]) -> Path:
        """Put the report into the store and into its folder here; return that folder."""
        folder = self.options.out / self.study.study
        for name, content in files.items():
            self.store.blobs.put(f"sweeps/{self.study.key}/report/{name}", content)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def sweep_record(self, journal: Journal) -> SweepRecord:
        """Return the sweep as trackers take it; it began with its first start."""
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


def open_tracker(options: Options) -> Tracker:
    """Return where the comparison goes; raise ValueError if it cannot go there now."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.ship_later:
        return JsonTracker(options.out / "unshipped")
    uri = options.tracking_uri or f"sqlite:///{options.out / 'mlflow.db'}"
    check_tracking(uri)
    # A server keeps files itself: those on this process's disk it could not show.
    is_server = uri.startswith("http")
    return MlflowTracker(uri, artifact_root=None if is_server else options.out.absolute() / "mlartifacts")


def refuse(error: Exception) -> NoReturn:
    """Print what is wrong, one line for each fault, and exit with 2."""
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


class _Interruptible:
    """Ends the process soon after SIGTERM or SIGINT: running trainings save their state, nothing is lost.

    The closing runs in a thread of its own, because the interrupted one may hold any lock.
    """

    def __init__(self, journal: Journal, tracker: Tracker) -> None:
        self._journal, self._tracker = journal, tracker
        self._executor: Executor | None = None
        self._is_closing = threading.Event()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    def run(self, executor: Executor, source: Source) -> None:
        """Run the source's tasks; after a signal this does not return."""
        self._executor = executor
        self._listen()  # Ray has put its own handlers in
        executor.run(source)
        while self._is_closing.is_set():
            time.sleep(1.0)

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        code, seconds = 128 + number, close_seconds()
        threading.Thread(target=self._close, args=(code, seconds), daemon=True).start()
        last = threading.Timer(seconds, os._exit, [code])
        last.daemon = True
        last.start()

    def _close(self, code: int, seconds: float) -> None:
        print("interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        telling = threading.Thread(target=self._tracker.interrupted, daemon=True)
        telling.start()
        self._journal.append("interrupted")
        self._journal.flush()
        if self._executor is not None:
            try:
                self._executor.halt(seconds - MARGIN_SECONDS)
            except Exception as error:  # the cluster is gone: what was saved before is all there is
                logger.warning("event=halt_failed error=%s", type(error).__name__)
        telling.join()
        self._journal.flush()
        os._exit(code)


def close_seconds() -> float:
    """Return how long this process may take to end; whoever stops a job kills it after the rest."""
    text = os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "")
    allowed = float(text) if text.isdecimal() else RAY_STOP_SECONDS
    return max(allowed - 1.2, 1.0)


if __name__ == "__main__":
    app()

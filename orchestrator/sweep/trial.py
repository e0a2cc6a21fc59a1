"""From points to records: adopt what the store has, run the rest, tell everybody. Imports no torch.

`run_trial` is the one way a trial runs, in this process, in a Tune driver or on a cluster; only its `Edges`
differ. Starting again is resuming: nothing here looks at anything but the store and the sweep's journal.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol

from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.journal import Journal
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.leases import Leases, held
from orchestrator.sweep.points import Point, flatten
from orchestrator.sweep.records import Curve, DatasetInput, Status, Tracker, TrialRecord

logger = logging.getLogger(__name__)

Report = Callable[[Mapping[str, float]], bool]  # progress of a training stage -> False asks it to stop
ENDS: dict[str, Literal["pruned", "left"]] = {"cancelled": "pruned", "left": "left"}
REBUILDS = 3  # times a trial goes back because an input turned out damaged


class Launcher(Protocol):
    """Runs stages somewhere."""

    def build(self, stage: Stage, report: Report) -> bool:
        """Return once the stage is published, whether this call ran it; raise `StageFailed`."""


class Executor(Protocol):
    """Runs trials somewhere, several at a time or one after the other."""

    def run(self, source: "Source") -> None:
        """Ask the source for tasks and tell it how each ended, until it has no more."""

    def halt(self, seconds: float) -> None:
        """From another thread: have running trainings save and end; return after so long at most."""


@dataclass(frozen=True)
class Edges:
    """What a trial needs from outside the science."""

    store: Artifacts
    leases: Leases
    launcher: Launcher
    owner: str  # who holds the leases: one name for all trials of a sweep's driver


@dataclass(frozen=True)
class Task:
    """A point with its planned stages, in order."""

    point: Point
    stages: Mapping[str, Stage]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, before anything is read back from the store."""

    status: Status | Literal["left"]  # left: the sweep was interrupted, so nothing is known yet
    built: Sequence[str] = ()  # keys of the stages that this trial ran
    failed_stage: str | None = None
    error: str | None = None


class Points(Protocol):
    """A search: batches of points out, metrics in."""

    def ask(self) -> list[Point]:
        """Return the next batch; empty when the search is over."""

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Take a batch's metrics in the order it was asked; None for a failed or pruned trial."""


class Watcher(Protocol):
    """Sees a sweep go by (a progress display)."""

    def planned(self, tasks: Sequence[Task], missing: int) -> None:
        """A batch is known: so many of its distinct stages are not stored."""

    def started(self, task: Task) -> None:
        """A trial runs."""

    def ended(self, record: TrialRecord, built: Sequence[str]) -> None:
        """A trial was adopted or ended."""


def run_trial(stages: Iterable[Stage], edges: Edges, report: Report) -> Outcome:
    """Bring every stage of a trial into the store, in order; an error is an outcome, not an exception."""
    built: list[str] = []
    stages = list(stages)
    for attempt in range(1, REBUILDS + 1):
        try:
            for stage in stages:
                if ensure(stage, edges, report):
                    built.append(stage.key)
        except StageFailed as failure:
            if failure.kind == "corrupt" and attempt < REBUILDS:
                logger.warning("event=input_damaged stage=%s action=rebuild", failure.stage)
                continue
            return Outcome(ENDS.get(failure.kind, "failed"), built, failure.stage, failure.message)
        return Outcome("finished", built)
    raise AssertionError("unreachable")


def ensure(stage: Stage, edges: Edges, report: Report) -> bool:
    """Return whether this call ran the stage; one that is stored or built elsewhere is not run again."""

    def is_stored() -> bool:
        return edges.store.find(stage.key) is not None

    if is_stored():
        return False
    with held(edges.leases, stage.key, edges.owner, is_done=is_stored) as is_mine:
        return edges.launcher.build(stage, report) if is_mine else False


class Collector:
    """Reads a trial's record back from the store; shared stages are read once."""

    def __init__(self, store: Artifacts, describe: Callable[[str], DatasetInput]) -> None:
        self.store, self._describe = store, describe
        self._artifacts: dict[str, Artifact] = {}
        self._curves: dict[str, list[Curve]] = {}

    def is_stored(self, key: str) -> bool:
        """Return whether a stage is published."""
        return self._find(key) is not None

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Return those that are published."""
        found = zip(keys, parallel_map(self.is_stored, keys), strict=True)
        return {key for key, is_there in found if is_there}

    def forget(self, key: str) -> None:
        """Look at the store again when the stage is asked for next."""
        self._artifacts.pop(key, None)
        self._curves.pop(key, None)

    def record(self, task: Task, outcome: Outcome) -> TrialRecord:
        """Return what is known of an ended trial."""
        assert outcome.status != "left"
        found = {name: self._find(stage.key) for name, stage in task.stages.items()}
        artifacts = {name: artifact for name, artifact in found.items() if artifact is not None}
        metrics = {name: value for artifact in artifacts.values() for name, value in artifact.metrics.items()}
        is_whole = outcome.status == "finished"
        return TrialRecord(
            key=task.point.key,
            index=task.point.index,
            name=task.point.name,
            params=flatten(task.point.spec.model_dump(mode="json")),
            axes=dict(task.point.axes),
            status=outcome.status,
            stage_keys={name: stage.key for name, stage in task.stages.items()},
            metrics=dict(sorted(metrics.items())),
            costs=_costs(artifacts),
            curves=[curve for artifact in artifacts.values() for curve in self._read_curves(artifact)],
            images=self._read_images(artifacts.values()) if is_whole else {},
            datasets=self._datasets(task),
            failed_stage=outcome.failed_stage,
            error=outcome.error,
            started_ms=min((_started(artifact) for artifact in artifacts.values()), default=_now_ms()),
            ended_ms=max((artifact.created_ms for artifact in artifacts.values()), default=_now_ms()),
        )

    def _find(self, key: str) -> Artifact | None:
        if key not in self._artifacts:
            artifact = self.store.find(key)
            if artifact is None:
                return None
            self._artifacts[key] = artifact
        return self._artifacts[key]

    def _read_curves(self, artifact: Artifact) -> list[Curve]:
        if "curves.json" not in artifact.files:
            return []
        if artifact.key not in self._curves:
            values = json.loads(self.store.read(artifact, "curves.json"))
            curves = [Curve(name, list(enumerate(points, start=1))) for name, points in values.items()]
            self._curves[artifact.key] = curves
        return self._curves[artifact.key]

    def _read_images(self, artifacts: Iterable[Artifact]) -> dict[str, bytes]:
        names = [
            (artifact, name) for artifact in artifacts for name in artifact.files if name.endswith(".png")
        ]
        return {name.removesuffix(".png"): self.store.read(artifact, name) for artifact, name in names}

    def _datasets(self, task: Task) -> list[DatasetInput]:
        roles = {
            role: part["name"] for stage in task.stages.values() for role, part in stage.datasets.items()
        }
        return [replace(self._describe(name), context=role) for role, name in roles.items()]


@dataclass
class Source:
    """Hands out what still has to run, batch by batch, and keeps the books of a sweep."""

    search: Points
    plan: Callable[[Point], Mapping[str, Stage]]
    collector: Collector
    tracker: Tracker
    journal: Journal
    watcher: Watcher
    records: list[TrialRecord] = field(default_factory=list)
    built: set[str] = field(default_factory=set)
    needed: dict[str, str] = field(default_factory=dict)  # stage key -> name, of all points asked so far
    _batch: list[Point] = field(default_factory=list)
    _waiting: set[str] = field(default_factory=set)
    _ready: list[Task] = field(default_factory=list)
    is_halted: bool = False

    def has_work(self) -> bool:
        """Adopt what is stored; return whether anything is left to run, before anything expensive starts."""
        self._ready = self.ask()
        return bool(self._ready)

    def ask(self) -> list[Task]:
        """Return the tasks of the next batch that need running; empty when the search is over or waits, or
        the sweep was interrupted."""
        if self.is_halted:
            return []
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        while not self._waiting:
            self._batch = self.search.ask()
            if not self._batch:
                return []
            tasks = [Task(point, self.plan(point)) for point in self._batch]
            stages = {stage.key: name for task in tasks for name, stage in task.stages.items()}
            self.needed |= stages
            stored = self.collector.stored(list(stages))
            self.watcher.planned(tasks, len(stages) - len(stored))
            self.journal.append("planned", trials=[task.point.key for task in tasks], stages=len(stages))
            todo = list(self._adopt(tasks, stored))
            self._waiting = {task.point.key for task in todo}
            if todo:
                return todo
            self._close_batch()
        return []

    def started(self, task: Task) -> None:
        """Note that a task runs."""
        self.journal.append("started", trial=task.point.key)
        self.watcher.started(task)

    def tell(self, task: Task, outcome: Outcome) -> None:
        """Record how a task ended; the last one of a batch closes it. Interrupted ones leave no record."""
        if outcome.status == "left":
            self.is_halted = True
            return
        self._end(self.collector.record(task, outcome), outcome.built)
        self._waiting.discard(task.point.key)
        if not self._waiting:
            self._close_batch()

    def _adopt(self, tasks: Sequence[Task], stored: set[str]) -> Iterator[Task]:
        """Record at once what an earlier run finished or pruned; yield the other tasks."""

        def read(task: Task) -> TrialRecord | None:
            if any(stage.key not in stored for stage in task.stages.values()):
                return None
            try:
                return self.collector.record(task, Outcome("finished"))
            except Corrupt as error:  # it is out of the store now, so that the trial builds it again
                logger.warning("event=stored_damaged key=%s action=rebuild", error.key)
                self.collector.forget(error.key)
                stored.discard(error.key)
                return None

        for task, record in zip(tasks, parallel_map(read, tasks), strict=True):
            if record is not None:
                self._end(record)
            elif task.point.key in self._pruned:
                self._end(self.collector.record(task, Outcome("pruned")))
            else:
                yield task

    @cached_property
    def _pruned(self) -> set[str]:
        """The trials that earlier starts of this sweep stopped early."""
        ended = [event for event in self.journal.events() if event["event"] == "ended"]
        return {event["trial"] for event in ended if event["status"] == "pruned"}

    def _end(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        self.built |= set(built)
        self.journal.append(
            "ended",
            trial=record.key,
            status=record.status,
            built=list(built),
            stage=record.failed_stage,
            error=record.error,
        )
        self.records.append(record)
        self.tracker.record(record)
        self.watcher.ended(record, built)

    def _close_batch(self) -> None:
        ended = {record.key: record for record in self.records}
        results = [(point, ended[point.key]) for point in self._batch]
        self.search.tell(
            [(point, record.metrics if record.status == "finished" else None) for point, record in results]
        )

    def stage_counts(self) -> dict[str, dict[Literal["run", "reused"], int]]:
        """Return, by stage, how many distinct stages this run computed and how many it found."""
        counts: dict[str, dict[Literal["run", "reused"], int]] = {}
        for key, name in self.needed.items():
            entry = counts.setdefault(name, {"run": 0, "reused": 0})
            if key in self.built:
                entry["run"] += 1
            elif self.collector.is_stored(key):  # one that failed is neither
                entry["reused"] += 1
        return counts


class FixedPoints:
    """A grid or random search: all points at once."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self._waiting = list(points)

    def ask(self) -> list[Point]:
        """Return every point the first time, nothing afterwards."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Learn nothing."""


def _costs(artifacts: Mapping[str, Artifact]) -> dict[str, float]:
    """Sum the costs of a trial's stages; shared stages count in full for each trial that needs them."""
    names = {name for artifact in artifacts.values() for name in artifact.cost}
    return {f"cost/{n}": round(sum(a.cost.get(n, 0.0) for a in artifacts.values()), 3) for n in sorted(names)}


def _started(artifact: Artifact) -> int:
    return artifact.created_ms - round(1000 * artifact.cost.get("wall_seconds", 0.0))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

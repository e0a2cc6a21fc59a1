"""Ledger of one sweep: which trials are planned, adopted, running and ended. Imports no torch.

It adopts what the store has, gives an executor the rest batch by batch, reads each trial's record back from
the store, and notifies listeners: the journal, the tracker, the progress display.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from orchestrator.stages.graph import Stage
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.journal import now_ms
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.points import Point, flatten
from orchestrator.sweep.records import Curve, DatasetInput, StageCounts, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import Outcome, Task

logger = logging.getLogger(__name__)


class Points(Protocol):
    """A search: batches of points out, metrics in."""

    def ask(self) -> list[Point]:
        """Return the next batch; empty when the search is over."""

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Take a batch's metrics in the order it was asked; None for a failed or pruned trial."""


class Listener(Protocol):
    """Is notified of a sweep's events, in their order and from one thread at a time."""

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """A batch is planned; `num_missing` of its distinct stages are not stored."""

    def started(self, task: Task) -> None:
        """A trial runs."""

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """A trial was adopted or ended; `built`: the keys of the stages that it ran."""

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """The sweep is over; return lines to print: links and where to look."""


class Tracker(Listener, Protocol):
    """A listener that keeps the comparison for people; never the truth (that is the store).

    No method waits for a server, `finished` excepted; repeating an event changes nothing.
    """

    def open(self, sweep: SweepRecord) -> None:
        """Open or find the sweep's parent run."""

    def interrupted(self) -> None:
        """Mark the sweep as stopped, within a second; its next start goes on."""

    @property
    def is_complete(self) -> bool:
        """Whether every record was taken, known once the sweep is finished."""


class Executor(Protocol):
    """Runs trials in this process or on a cluster."""

    def run(self, ledger: "Ledger") -> None:
        """Run the ledger's tasks and note how each ended, until it has no more."""

    def halt(self, seconds: float) -> None:
        """From another thread: make running trainings save and end; return after `seconds` at most."""


class Ledger:
    """The state of one sweep in its driver.

    `plan` returns the stages of a point, `describe` a data set by its name, `pruned` the keys of the trials
    that earlier starts stopped early; it is called only if some stage is not stored.
    """

    def __init__(
        self,
        search: Points,
        plan: Callable[[Point], Mapping[str, Stage]],
        store: Artifacts,
        describe: Callable[[str], DatasetInput],
        *,
        pruned: Callable[[], Collection[str]] = tuple,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._search, self._plan, self._list_pruned = search, plan, pruned
        self._stored = _Stored(store, describe)
        self.listeners = list(listeners)
        self.records: list[TrialRecord] = []
        self.built: set[str] = set()  # keys of the stages that this start ran
        self.needed: dict[str, str] = {}  # stage key -> name, of all points asked so far
        self.is_halted = False
        self._batch: list[Point] = []
        self._waiting: set[str] = set()  # trials of the batch that have not ended
        self._ready: list[Task] = []

    def has_work(self) -> bool:
        """Adopt what is stored; return whether anything is left to run, before anything expensive starts."""
        self._ready = self.next_tasks()
        return bool(self._ready)

    def next_tasks(self) -> list[Task]:
        """Return the tasks of the next batch that need running.

        Empty when the search is over or waits for this batch to end, or the sweep was interrupted.
        """
        if self.is_halted:
            return []
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        while not self._waiting:
            self._batch = self._search.ask()
            if not self._batch:
                return []
            if tasks := self._adopt([Task(point, self._plan(point)) for point in self._batch]):
                self._waiting = {task.point.key for task in tasks}
                return tasks
            self._close_batch()
        return []

    def start(self, task: Task) -> None:
        """Note that a task runs."""
        for listener in self.listeners:
            listener.started(task)

    def end(self, task: Task, outcome: Outcome) -> None:
        """Record how a task ended; the last one of a batch closes it. Interrupted ones leave no record."""
        if outcome.status == "left":
            self.is_halted = True
            return
        self._record(self._stored.record(task, outcome), outcome.built)
        self._waiting.discard(task.point.key)
        if not self._waiting:
            self._close_batch()

    def finish(self, report: SweepReport) -> list[str]:
        """Give the listeners the report; return their lines for people."""
        stages = self.stage_counts()
        return [line for listener in self.listeners for line in listener.finished(report, stages)]

    def stage_counts(self) -> StageCounts:
        """Return, by stage, how many distinct stages this start ran and how many it found in the store."""
        counts: dict[str, dict[str, int]] = {}
        for key, name in self.needed.items():
            entry = counts.setdefault(name, {"run": 0, "reused": 0})
            if key in self.built:
                entry["run"] += 1
            elif self._stored.has(key):  # one that failed is neither
                entry["reused"] += 1
        return counts

    def _adopt(self, tasks: Sequence[Task]) -> list[Task]:
        """Record at once what an earlier start finished or pruned; return the other tasks."""
        stages = {stage.key: name for task in tasks for name, stage in task.stages.items()}
        self.needed |= stages
        stored = self._stored.among(list(stages))
        for listener in self.listeners:
            listener.planned(tasks, len(stages) - len(stored))
        records = parallel_map(lambda task: self._read_stored(task, stored), tasks)
        return [task for task, record in zip(tasks, records, strict=True) if not self._adopted(task, record)]

    def _read_stored(self, task: Task, stored: set[str]) -> TrialRecord | None:
        """Return the record of a trial whose stages are all stored and whole."""
        if any(stage.key not in stored for stage in task.stages.values()):
            return None
        try:
            return self._stored.record(task, Outcome("finished"))
        except Corrupt as error:  # it has left the store, so that the trial builds it again
            logger.warning("event=stored_damaged key=%s action=rebuild", error.key)
            self._stored.forget(error.key)
            stored.discard(error.key)
            return None

    def _adopted(self, task: Task, record: TrialRecord | None) -> bool:
        if record is None and task.point.key in self._pruned:
            record = self._stored.record(task, Outcome("pruned"))
        if record is not None:
            self._record(record)
        return record is not None

    @cached_property
    def _pruned(self) -> Collection[str]:
        return self._list_pruned()

    def _record(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        self.built |= set(built)
        self.records.append(record)
        for listener in self.listeners:
            listener.ended(record, built)

    def _close_batch(self) -> None:
        ended = {record.key: record for record in self.records}
        results = [(point, ended[point.key]) for point in self._batch]
        self._search.tell(
            [(point, record.metrics if record.status == "finished" else None) for point, record in results]
        )


class _Stored:
    """Reads trials back from the store; shared stages are read once."""

    def __init__(self, store: Artifacts, describe: Callable[[str], DatasetInput]) -> None:
        self._store, self._describe = store, describe
        self._artifacts: dict[str, Artifact] = {}
        self._curves: dict[str, list[Curve]] = {}

    def has(self, key: str) -> bool:
        """Return whether a stage is published."""
        return self._find(key) is not None

    def among(self, keys: Sequence[str]) -> set[str]:
        """Return those of the keys that are published."""
        return {key for key, is_stored in zip(keys, parallel_map(self.has, keys), strict=True) if is_stored}

    def forget(self, key: str) -> None:
        """Read the stage from the store again when it is needed next."""
        self._artifacts.pop(key, None)
        self._curves.pop(key, None)

    def record(self, task: Task, outcome: Outcome) -> TrialRecord:
        """Return what is known of an ended trial; raise `Corrupt` if a stored file is damaged."""
        assert outcome.status != "left"
        found = [(stage, self._find(stage.key)) for stage in task.stages.values()]
        stored = [(stage, artifact) for stage, artifact in found if artifact is not None]
        artifacts = [artifact for _, artifact in stored]
        metrics = {stage.metric(name): value for stage, one in stored for name, value in one.metrics.items()}
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
            costs=_sum_costs(artifacts),
            curves=[
                replace(curve, name=stage.metric(curve.name))
                for stage, artifact in stored
                for curve in self._read_curves(artifact)
            ],
            images=self._read_images(artifacts) if is_whole else {},
            datasets=self._datasets(task),
            failed_stage=outcome.failed_stage,
            error=outcome.error,
            started_ms=min((_started_ms(artifact) for artifact in artifacts), default=now_ms()),
            ended_ms=max((artifact.created_ms for artifact in artifacts), default=now_ms()),
        )

    def _find(self, key: str) -> Artifact | None:
        if key not in self._artifacts:
            artifact = self._store.find(key)
            if artifact is None:
                return None
            self._artifacts[key] = artifact
        return self._artifacts[key]

    def _read_curves(self, artifact: Artifact) -> list[Curve]:
        if "curves.json" not in artifact.files:
            return []
        if artifact.key not in self._curves:
            values = json.loads(self._store.read(artifact, "curves.json"))
            curves = [Curve(name, list(enumerate(points, start=1))) for name, points in values.items()]
            self._curves[artifact.key] = curves
        return self._curves[artifact.key]

    def _read_images(self, artifacts: Iterable[Artifact]) -> dict[str, bytes]:
        names = ((artifact, name) for artifact in artifacts for name in artifact.files)
        pictures = [(artifact, name) for artifact, name in names if name.endswith(".png")]
        return {name.removesuffix(".png"): self._store.read(artifact, name) for artifact, name in pictures}

    def _datasets(self, task: Task) -> list[DatasetInput]:
        roles = {
            role: part["name"] for stage in task.stages.values() for role, part in stage.datasets.items()
        }
        return [replace(self._describe(name), context=role) for role, name in roles.items()]


def _sum_costs(artifacts: Sequence[Artifact]) -> dict[str, float]:
    """Sum the costs of a trial's stages; shared stages count in full for each trial that needs them."""
    names = {name for artifact in artifacts for name in artifact.cost}
    return {f"cost/{n}": round(sum(a.cost.get(n, 0.0) for a in artifacts), 3) for n in sorted(names)}


def _started_ms(artifact: Artifact) -> int:
    return artifact.created_ms - round(1000 * artifact.cost.get("wall_seconds", 0.0))

"""Ledger of one sweep: which trials are planned, adopted, running and ended. Imports no torch.

It adopts what the store has, gives an executor the rest batch by batch, reads each trial's record back from
the store, and notifies listeners: the journal, the tracker, the progress display.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from orchestrator.stages.graph import Stage
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.listing import verify
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import DatasetInput, StageCounts, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.stored import Incomplete, StoredTrials
from orchestrator.sweep.trial import REBUILDS, Outcome, Task


class Points(Protocol):
    """A search: batches of points out, metrics in."""

    @property
    def ended(self) -> str:
        """Why it asks for no more points, if that is known; empty before that."""

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

    `plan` returns the stages of a point, `describe` a data set by its name, `pruned` the trials that earlier
    starts stopped early, by key; it is called only if some stage is not stored. With `takes_older`
    trials of earlier versions are adopted without the stages that were added since.
    """

    def __init__(
        self,
        search: Points,
        plan: Callable[[Point], Mapping[str, Stage]],
        store: Artifacts,
        describe: Callable[[str], DatasetInput],
        *,
        pruned: Callable[[], Mapping[str, Outcome]] = dict,
        listeners: Sequence[Listener] = (),
        takes_older: bool = False,
    ) -> None:
        self._search, self._plan, self._list_pruned = search, plan, pruned
        self._store, self._stored = store, StoredTrials(store, describe, takes_older=takes_older)
        self.listeners = list(listeners)
        self.records: list[TrialRecord] = []
        self.built: set[str] = set()  # keys of the stages that this start ran
        self.needed: dict[str, str] = {}  # stage key -> name, of all points asked so far
        self.is_halted = False
        self._unbuilt: set[str] = set()  # keys that the store lacked when they were planned, not built since
        self._batch: list[Point] = []
        self._waiting: dict[str, Task] = {}  # trials of the batch that have not ended, by trial key
        self._ready: list[Task] = []
        self._again: list[Task] = []  # finished, but what they need has left the store
        self._tasks: dict[str, Task] = {}  # of the recorded trials, by trial key
        self._rebuilds: Counter[str] = Counter()  # by trial key
        self._built: dict[str, list[str]] = {}  # trial key -> stages that it ran before it was interrupted

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
        if self._again:
            again, self._again = self._again, []
            return again
        while not self._waiting:
            self._batch = self._search.ask()
            if not self._batch:
                return []
            if tasks := self._adopt([Task(point, self._plan(point)) for point in self._batch]):
                self._waiting = {task.point.key: task for task in tasks}
                return tasks
            self._close_batch()
        return []

    def go_on(self) -> None:
        """After an executor has ended: give the next one what that left of the batch."""
        ready = {**self._waiting, **{task.point.key: task for task in (*self._ready, *self._again)}}
        self._ready, self._again, self.is_halted = list(ready.values()), [], False

    def is_built(self, key: str) -> bool:
        """Return whether a planned stage was in the store when it was planned, or was built since."""
        return key not in self._unbuilt

    def start(self, task: Task) -> None:
        """Note that a task runs."""
        for listener in self.listeners:
            listener.started(task)

    def end(self, task: Task, outcome: Outcome) -> None:
        """Record how a task ended; the last one of a batch closes it. Interrupted ones leave no record.

        A finished one whose stored files are damaged runs again, as one that is adopted does.
        """
        self.built |= set(outcome.built)
        self._unbuilt -= set(outcome.built)
        built = list(dict.fromkeys([*self._built.pop(task.point.key, ()), *outcome.built]))
        self._built[task.point.key] = built
        if outcome.status == "left":
            self.is_halted = True
            return
        try:
            record = self._stored.record(task, outcome)
        except Incomplete as lacking:
            self._rebuilds[task.point.key] += 1
            if self._rebuilds[task.point.key] < REBUILDS:
                self._again.append(task)
                self._unbuilt |= {stage.key for stage in lacking.stages}
                return
            stage = lacking.stages[0].label
            error = f"{lacking} after {REBUILDS} runs; check the store's disk"
            record = self._stored.record(task, Outcome("failed", outcome.built, stage, error))
        self._record(task, record, self._built.pop(task.point.key))
        self._waiting.pop(task.point.key, None)
        if self._batch and not self._waiting:
            self._close_batch()

    def reopen(self) -> int:
        """Read every artifact of the finished trials, quarantine the damaged ones, run again what needs them.

        Return how many trials that are: they have no record until then.
        """
        finished = [record for record in self.records if record.status == "finished"]
        keys = list(dict.fromkeys(key for record in finished for key in record.stage_keys.values()))
        whole = {one.key for one in verify(self._store, keys) if not one.faults}
        lost = set(keys) - whole
        self._stored.forget(lost)
        self._unbuilt |= lost
        opened = [record for record in finished if lost & set(record.stage_keys.values())]
        if not opened:
            return 0
        self._again += [self._tasks[record.key] for record in opened]
        self._waiting |= {record.key: self._tasks[record.key] for record in opened}  # should no one take them
        gone = {record.key for record in opened}
        self.records = [record for record in self.records if record.key not in gone]
        for listener in self.listeners:
            listener.planned([self._tasks[record.key] for record in opened], len(lost))
        return len(opened)

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
        self._unbuilt = (self._unbuilt | stages.keys()) - stored  # a damaged one has left `stored`
        return [task for task, record in zip(tasks, records, strict=True) if not self._adopted(task, record)]

    def _read_stored(self, task: Task, stored: set[str]) -> TrialRecord | None:
        """Return the record of a trial whose stages are all stored and whole."""
        if self._stored.lacking(task, stored):
            return None
        try:
            return self._stored.record(task, Outcome("finished"))
        except Incomplete as lacking:
            stored -= {stage.key for stage in lacking.stages}
            return None

    def _adopted(self, task: Task, record: TrialRecord | None) -> bool:
        if record is None and task.point.key in self._pruned:
            record = self._stored.record(task, self._pruned[task.point.key])
        if record is not None:
            self._record(task, record)
        return record is not None

    @cached_property
    def _pruned(self) -> Mapping[str, Outcome]:
        return self._list_pruned()

    def _record(self, task: Task, record: TrialRecord, built: Sequence[str] = ()) -> None:
        self._tasks[record.key] = task
        self.records.append(record)
        for listener in self.listeners:
            listener.ended(record, built)

    def _close_batch(self) -> None:
        ended = {record.key: record for record in self.records}
        results = [(point, ended[point.key]) for point in self._batch]
        self._batch = []
        self._search.tell(
            [(point, record.metrics if record.status == "finished" else None) for point, record in results]
        )

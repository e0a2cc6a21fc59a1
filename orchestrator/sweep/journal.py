"""Journal of a sweep: its events as durable lines, and what the next start reads back from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator.store.journal import Journal
from orchestrator.sweep.records import StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.trial import Outcome, Task


class JournalListener:
    """Implements `Listener`: writes every event into the journal of this start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._statuses: Counter[str] = Counter()

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Write keys and names of a batch's trials, the keys of its stages, and the data sets these read."""
        stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
        datasets = {part["name"] for stage in stages.values() for part in stage.datasets.values()}
        axes = list(tasks[0].point.axes) if tasks else []
        self._journal.append(
            "planned",
            trials=[task.point.key for task in tasks],
            names=[task.point.name for task in tasks],
            axes=axes,
            values=[[task.point.axes[axis] for axis in axes] for task in tasks],
            stages=len(stages),
            needs=list(stages),
            datasets=sorted(datasets),
        )

    def started(self, task: Task) -> None:
        """Write that a trial runs."""
        self._journal.append("started", trial=task.point.key)

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """Write how a trial ended and which stages it ran."""
        self._statuses[record.status] += 1
        self._journal.append(
            "ended",
            trial=record.key,
            status=record.status,
            built=list(built),
            stage=record.failed_stage,
            error=record.error,
        )

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Write how many trials ended in which way and how many stages were run and reused."""
        self._journal.append("finish", **self._statuses, stages=stages)
        return []


@dataclass(frozen=True)
class Known:
    """A stored trial that a search is told of before it asks."""

    values: Mapping[str, Any]  # axis -> value, as in the study's file; axes that are not asked are left out
    objectives: Sequence[float]  # in the study's order


class SearchMemory:
    """What a search was told, in its sweep's journal: told again when the sweep starts again, even if
    the store has changed since. With `writes` false nothing is added."""

    def __init__(self, journal: Journal, *, writes: bool = True) -> None:
        self._journal, self._writes = journal, writes

    @cached_property
    def _events(self) -> Sequence[Mapping[str, Any]]:
        return [event for event in self._journal.events() if event["event"] in ("told", "warm_start")]

    @cached_property
    def told(self) -> dict[str, list[float] | None]:
        """Trial key -> objectives that the search was first told; None: that there are none."""
        events = [event for event in self._events if event["event"] == "told"]
        return {key: values for event in reversed(events) for key, values in event["trials"].items()}

    def tell(self, trials: Mapping[str, list[float] | None]) -> None:
        """Keep what a batch left, before the next one is asked."""
        if self._writes and trials.keys() - self.told.keys():
            self.told.update(trials)
            self._journal.append("told", trials=dict(trials))
            self._journal.flush()

    @property
    def warm_start(self) -> list[Known] | None:
        """The stored trials that the first start began with; None before that."""
        first = next((event for event in self._events if event["event"] == "warm_start"), None)
        return None if first is None else [Known(one["values"], one["objectives"]) for one in first["trials"]]

    def keep_warm_start(self, known: Sequence[Known]) -> None:
        """Keep the stored trials that the search is told of, before it asks."""
        if self._writes:
            trials = [{"values": dict(one.values), "objectives": list(one.objectives)} for one in known]
            self._journal.append("warm_start", trials=trials)
            self._journal.flush()


def read_pruned(journal: Journal) -> dict[str, Outcome]:
    """Return the trials that earlier starts of the sweep stopped early, by their keys."""
    ended = [event for event in journal.events() if event["event"] == "ended"]
    return {
        event["trial"]: Outcome("pruned", failed_stage=event["stage"], error=event["error"])
        for event in ended
        if event["status"] == "pruned"
    }


def read_started_ms(journal: Journal) -> int | None:
    """Return when the sweep was started first, in Unix milliseconds; None if it never was."""
    return min((event["time_ms"] for event in journal.events() if event["event"] == "start"), default=None)

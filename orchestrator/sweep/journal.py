"""Journal of a sweep: its events as durable lines, and what the next start reads back from them."""

from collections import Counter
from collections.abc import Sequence

from orchestrator.store.journal import Journal
from orchestrator.sweep.records import StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task


class JournalListener:
    """Implements `Listener`: writes every event into the journal of this start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._statuses: Counter[str] = Counter()

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Write the keys of a batch's trials and distinct stages, and the data sets that these read."""
        stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
        datasets = {part["name"] for stage in stages.values() for part in stage.datasets.values()}
        self._journal.append(
            "planned",
            trials=[task.point.key for task in tasks],
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


def read_pruned(journal: Journal) -> set[str]:
    """Return the keys of the trials that earlier starts of the sweep stopped early."""
    ended = [event for event in journal.events() if event["event"] == "ended"]
    return {event["trial"] for event in ended if event["status"] == "pruned"}


def read_started_ms(journal: Journal) -> int | None:
    """Return when the sweep was started first, in Unix milliseconds; None if it never was."""
    return min((event["time_ms"] for event in journal.events() if event["event"] == "start"), default=None)

"""One start of a small sweep in this process, and a listener that keeps its events: for the sweep's tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.normalise import normalise
from orchestrator.config.study import Study
from orchestrator.datasets import Location
from orchestrator.report.tables import csv, results_table
from orchestrator.stages.graph import plan
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import JournalListener, read_pruned
from orchestrator.sweep.ledger import Ledger, Points
from orchestrator.sweep.local import LocalExecutor
from orchestrator.sweep.records import DatasetInput, StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.search import fixed_points
from orchestrator.sweep.trial import Task
from orchestrator.sweep.validation import Preflight
from tests import tiny


class Books:
    """Implements `Listener`: keeps what it is notified of."""

    def __init__(self) -> None:
        self.told: list[TrialRecord] = []
        self.missing: list[int] = []
        self.running: list[str] = []
        self.reports: list[SweepReport] = []

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Keep how many stages are not stored."""
        self.missing.append(num_missing)

    def started(self, task: Task) -> None:
        """Keep the name of a trial that runs."""
        self.running.append(task.point.name)

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """Keep a trial."""
        self.told.append(record)

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Keep the report."""
        self.reports.append(report)
        return [f"{sum(count['run'] for count in stages.values())} stages run"]


@dataclass
class Sweep:
    """One start of a sweep over a store, in this process."""

    study: Study
    folder: Path
    books: Books = field(default_factory=Books)

    def __post_init__(self) -> None:
        self.store = Artifacts(DirectoryBlobs(self.folder))
        self.journal = Journal(self.store.blobs, self.study.key)
        self.preflight = Preflight(Location())
        self.search, _ = fixed_points(self.study, self.preflight)
        self.ledger = self.open(self.search, self.books)
        self.executor = LocalExecutor(self.store, Location(), 60.0)

    def open(self, search: Points, books: Books) -> Ledger:
        """Return a ledger over this store."""
        sources = {
            name: DatasetInput(name, about.digest, about.source, "", about.num_images, about.num_classes)
            for name, about in self.preflight.descriptions.items()
        }
        return Ledger(
            search,
            lambda point: plan(normalise(point.spec), self.preflight.digests, tiny.PROFILE),
            self.store,
            sources.__getitem__,
            pruned=lambda: read_pruned(self.journal),
            listeners=[JournalListener(self.journal), books],
        )

    def run(self) -> "Sweep":
        """Run everything that is not stored."""
        if self.ledger.has_work():
            self.executor.run(self.ledger)
        self.journal.close()
        return self

    @property
    def table(self) -> str:
        """The results as CSV."""
        return csv(results_table(self.ledger.records)).decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the journal's events of one kind."""
        return [event for event in self.journal.events() if event["event"] == name]


def flip(store: Path, key: str, file: str) -> None:
    """Turn one bit of a stored file."""
    (path,) = (store / "artifacts" / key[:2] / key).glob(f"*-{file}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)

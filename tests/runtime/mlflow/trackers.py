"""Read back what a tracker holds, whichever it is, in the words of the records."""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from orchestrator.runtime.mlflow.database import PROXIED
from orchestrator.runtime.mlflow.shipping import ALIVE
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.sweep.json_tracker import JsonTracker, read_trials
from orchestrator.sweep.ledger import Tracker
from orchestrator.sweep.records import TrialRecord
from tests.runtime.samples import sample_report, sample_sweep

STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "pruned"}
STAGE = "inversion.stage."
RUNS = "(SELECT run_uuid FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = ?)"
TABLES = {
    "runs": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "params": "run_uuid",
    "tags": "run_uuid",
    "inputs": "destination_id",
}


@dataclass(frozen=True)
class Kept:
    """One trial as a tracker shows it."""

    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    stage_keys: Mapping[str, str]
    images: Sequence[str]
    datasets: Sequence[tuple[str, str, str]]  # name, first 36 characters of the digest, context
    failed_stage: str | None
    error: str | None


def expected(trial: TrialRecord) -> Kept:
    """Return what every tracker should show of a trial."""
    return Kept(
        name=trial.name,
        status=trial.status,
        params={name: str(value) for name, value in {**trial.params, **trial.axes}.items()},
        metrics={**trial.metrics, **trial.costs},
        curves={curve.name: list(curve.values) for curve in trial.curves},
        stage_keys=trial.stage_keys,
        images=sorted(trial.images),
        datasets=sorted((data.name, data.digest[:36], data.context) for data in trial.datasets),
        failed_stage=trial.failed_stage,
        error=trial.error,
    )


@dataclass(frozen=True)
class JsonBench:
    """A folder of JSON lines."""

    root: Path

    def tracker(self) -> Tracker:
        """Return a new tracker object."""
        return JsonTracker(self.root)

    def kept(self, study: str) -> dict[str, Kept]:
        """Return trial key -> what is shown."""
        return {key: self._kept(trial) for key, trial in read_trials(self._folder(study)).items()}

    def everything(self, study: str) -> dict[str, Any]:
        """Return all that is stored."""
        return files(self._folder(study))

    def report(self, study: str) -> dict[str, bytes]:
        """Return the report's files."""
        return files(self._folder(study) / "report")

    def note(self, study: str) -> str:
        """Return the report's text."""
        return str(json.loads((self._folder(study) / "report.json").read_text())["note"])

    def _folder(self, study: str) -> Path:
        return self.root / f"{study}-{sample_sweep(study).key[:12]}"

    def _kept(self, trial: Mapping[str, Any]) -> Kept:
        return Kept(
            name=trial["name"],
            status=trial["status"],
            params={name: str(value) for name, value in {**trial["params"], **trial["axes"]}.items()},
            metrics={**trial["metrics"], **trial["costs"]},
            curves={c["name"]: [(step, value) for step, value in c["values"]] for c in trial["curves"]},
            stage_keys=trial["stage_keys"],
            images=trial["images"],
            datasets=sorted((d["name"], d["digest"][:36], d["context"]) for d in trial["datasets"]),
            failed_stage=trial["failed_stage"],
            error=trial["error"],
        )


@dataclass(frozen=True)
class MlflowBench:
    """An MLflow store, behind a server or not, with its database and artifacts on this machine."""

    uri: str
    database: Path
    artifacts: Path  # the place that `mlflow-artifacts:/` stands for

    @property
    def client(self) -> Any:
        """Return a client of the store."""
        return MlflowClient(tracking_uri=self.uri)

    def tracker(self) -> Tracker:
        """Return a new tracker object."""
        return MlflowTracker(self.uri, patience_seconds=300)  # a busy machine is slow

    def runs(self, study: str, kind: str) -> list[Any]:
        """Return the active runs of a kind, `sweep` or `trial`."""
        experiment = self.client.get_experiment_by_name(study)
        wanted = f"tags.`inversion.kind` = '{kind}'"
        return list(self.client.search_runs([experiment.experiment_id], wanted, max_results=1000))

    def kept(self, study: str) -> dict[str, Kept]:
        """Return trial key -> what is shown; two runs of a trial are a fault."""
        runs = self.runs(study, "trial")
        found = {run.data.tags["inversion.trial"]: self._kept(run) for run in runs}
        assert len(found) == len(runs)
        return found

    def everything(self, study: str) -> dict[str, Any]:
        """Return every row of the experiment, but for the sign of life, and every file."""
        rows: dict[str, Any] = {
            table: [row for row in self.rows(table, study) if ALIVE not in row] for table in TABLES
        }
        return rows | files(self._folder(study))

    def rows(self, table: str, study: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table that belong to a study's runs."""
        with closing(sqlite3.connect(self.database, timeout=30)) as database:
            found = database.execute(f"SELECT * FROM {table} WHERE {TABLES[table]} IN {RUNS}", [study])
            return sorted(found.fetchall(), key=repr)

    def report(self, study: str) -> dict[str, bytes]:
        """Return the report's files."""
        (parent,) = self.runs(study, "sweep")
        return files(self._files(parent) / "report")

    def note(self, study: str) -> str:
        """Return the parent's description below the links to every view."""
        (parent,) = self.runs(study, "sweep")
        links, _, note = str(parent.data.tags["mlflow.note.content"]).partition("\n\n")
        views = json.loads(parent.data.tags["inversion.links"])
        del views["report"]
        assert links == " - ".join(f"[{label}]({link.removeprefix('/')})" for label, link in views.items())
        return note

    def _folder(self, study: str) -> Path:
        location = self.client.get_experiment_by_name(study).artifact_location
        return self.artifacts / location.removeprefix(PROXIED)

    def _files(self, run: Any) -> Path:
        return self.artifacts / run.info.artifact_uri.removeprefix(PROXIED)

    def _kept(self, run: Any) -> Kept:
        tags, client = run.data.tags, self.client
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        curves = {name: points for name, points in history.items() if len(points) > 1}
        pictures = sorted(files(self._files(run) / "images"))
        shown = {path.split("+")[0].replace("~", "/") for path in pictures}
        assert (
            sorted(path.rsplit(".", 1)[1] for path in pictures) == ["png", "webp"] * len(shown) or not shown
        )
        return Kept(
            name=run.info.run_name,
            status=STATUS[run.info.status],
            params=run.data.params,
            metrics={name: value for name, value in run.data.metrics.items() if name not in curves},
            curves={name: sorted((p.step, p.value) for p in points) for name, points in curves.items()},
            stage_keys={n.removeprefix(STAGE): key for n, key in tags.items() if n.startswith(STAGE)},
            images=sorted(shown),
            datasets=sorted(
                (one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs
            ),
            failed_stage=tags.get("failed_stage"),
            error=tags.get("error"),
        )


Bench = JsonBench | MlflowBench


def files(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of every file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def tell(tracker: Tracker, study: str, trials: Sequence[TrialRecord]) -> list[str]:
    """Tell a whole sweep; return the lines for people."""
    tracker.open(sample_sweep(study, num_points=len(trials)))
    for trial in trials:
        tracker.ended(trial)
    return tracker.finished(sample_report(trials), {})


def wait_for(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.02)

"""Sweeps that MLflow has, read back: parent runs with their reports, child runs with their stage keys.

Nothing is written. Importing this module takes seconds, because MLflow does.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from orchestrator.config.base import Refused
from orchestrator.runtime.http import redact
from orchestrator.runtime.mlflow.check import check_tracking, set_environment
from orchestrator.runtime.mlflow.database import folder_of, sqlite_path
from orchestrator.runtime.mlflow.shipping import ALIVE, DEAD_MS, KIND, PAGE, PARENT, SWEEP
from orchestrator.store.journal import now_ms
from orchestrator.store.listing import SweepSummary

STAGE = "inversion.stage."
WAY_OUT = "correct it, or read a store with --store"
ENDED = tuple(f"sweep/trials_{status}" for status in ("finished", "failed", "pruned"))


@dataclass(frozen=True)
class TrackedSweep:
    """A sweep's parent run; implements the API's `Source`."""

    client: MlflowClient
    parent: Run
    uri: str  # without credentials
    database: Path | None  # of a sqlite URI
    note = "stages: all that a trial of MLflow has, those that it found in the store too"

    @property
    def report(self) -> str:
        """Where the report is."""
        return f"{self.uri}, run {self.parent.info.run_id}, report"

    def file(self, name: str) -> bytes | None:
        """Return a file of the parent run, such as `report/summary.csv`; None where it has none.

        Raise `Refused` if MLflow cannot be read.
        """
        if self.database is not None and (here := folder_of(self.database, self.parent.info.artifact_uri)):
            path = here / name
            return path.read_bytes() if path.is_file() else None
        folder, _, _ = name.rpartition("/")
        run_id = self.parent.info.run_id
        with _readable(self.uri), tempfile.TemporaryDirectory() as scratch:
            if not any(one.path == name for one in self.client.list_artifacts(run_id, folder or None)):
                return None
            return Path(self.client.download_artifacts(run_id, name, scratch)).read_bytes()

    def keys(self, trial: str | None = None) -> list[str]:
        """Return the keys of the stages of all trials, or of the trial of that name."""
        chosen = (one for one in self.trials if trial in (None, one.info.run_name))
        return list(dict.fromkeys(key for one in chosen for key, _ in _stages(one)))

    def stages(self, keys: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return key and stage of those of these stages that trials have; MLflow has no code versions."""
        known = dict(pair for one in self.trials for pair in _stages(one))
        return [(key, known[key], "") for key in keys if key in known]

    @cached_property
    def trials(self) -> list[Run]:
        """The child runs; raise `Refused` if MLflow cannot be read."""
        return list(self._children())

    def _children(self) -> Iterator[Run]:
        text = f"tags.`{PARENT}` = '{self.parent.info.run_id}'"
        with _readable(self.uri):
            yield from _search(self.client, [self.parent.info.experiment_id], text)

    def about(self, study: str) -> SweepSummary:
        """Return what a listing has of it."""
        info, data = self.parent.info, self.parent.data
        is_whole = info.status in ("FINISHED", "FAILED") and ENDED[0] in data.metrics
        ended = (int(data.metrics.get(name, 0)) for name in ENDED)
        num_ended = sum(ended) if is_whole else sum(1 for _ in self._children())  # read, but not kept
        return SweepSummary(
            key=data.tags[SWEEP],
            study=study,
            num_points=int(data.metrics.get("sweep/points", 0)),
            num_ended=num_ended,
            status=self._status(),
            last_ms=int(info.end_time or data.tags.get(ALIVE) or info.start_time),
        )

    def _status(self) -> str:
        status = self.parent.info.status
        if status == "RUNNING":
            silent_ms = now_ms() - int(self.parent.data.tags.get(ALIVE, 0))
            return "running" if silent_ms < DEAD_MS else "running or killed"
        failed = int(self.parent.data.metrics.get(ENDED[1], 0))
        words = {"FINISHED": "finished", "KILLED": "interrupted"}
        return words.get(status, f"{failed} failed" if failed else "failed")


def tracked_sweeps(tracking_uri: str) -> list[tuple[TrackedSweep, SweepSummary]]:
    """Return the sweeps of every experiment; raise `Refused` if MLflow is not there or cannot be read."""
    set_environment()
    database = sqlite_path(tracking_uri) if tracking_uri.startswith("sqlite:") else None
    try:
        check_tracking(tracking_uri)
    except Refused as refused:
        raise Refused("--mlflow", refused.value, refused.rule, WAY_OUT) from None
    if database is not None and not database.is_file():
        raise Refused("--mlflow", tracking_uri, "names no file", WAY_OUT)
    client = MlflowClient(tracking_uri=tracking_uri)
    with _readable(redact(tracking_uri)):
        studies = {one.experiment_id: one.name for one in client.search_experiments(max_results=PAGE)}
        parents = list(_search(client, list(studies), f"tags.`{KIND}` = 'sweep'")) if studies else []
    found = [TrackedSweep(client, parent, redact(tracking_uri), database) for parent in parents]
    return [(one, one.about(studies[one.parent.info.experiment_id])) for one in found]


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """Refuse what MLflow, or the connection to it, raises in the block; messages repeat the URI with user and
    password."""
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = redact(" ".join(str(error).split()))[:200]
        raise Refused("--mlflow", uri, f"cannot be read: {reason}", WAY_OUT) from None


def _search(client: MlflowClient, experiments: Sequence[str], text: str) -> Iterator[Run]:
    token: str | None = None
    while True:
        page = client.search_runs(list(experiments), text, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _stages(trial: Run) -> Iterator[tuple[str, str]]:
    """Yield key and stage of a trial's stages."""
    for name, key in trial.data.tags.items():
        if name.startswith(STAGE):
            yield key, name.removeprefix(STAGE)

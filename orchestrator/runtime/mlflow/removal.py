"""Removal of sweeps from MLflow: runs with every picture, report and registered model, deleted ones too.

Behind a SQLite file nothing remains. A server only marks runs as deleted until its own `mlflow gc`; their
files go at once. Importing this module takes seconds, because MLflow does.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store

from orchestrator.runtime.mlflow.database import folder_of, sqlite_path
from orchestrator.runtime.mlflow.registry import unregister
from orchestrator.runtime.mlflow.shipping import SWEEP

PAGE = 1000  # runs per search


@dataclass(frozen=True)
class RemovedRuns:
    """What was, or would be, removed from MLflow."""

    num_runs: int
    sweeps: frozenset[str]  # keys
    is_final: bool  # False where a server keeps the runs' values until its `mlflow gc`


def remove_runs(uri: str, sweeps: Collection[str], dataset: str | None, *, dry_run: bool) -> RemovedRuns:
    """Remove the runs of these sweeps, and of all sweeps with a trial that read the data set."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
    keys = set(sweeps)
    if dataset is not None:
        reading = _search(client, experiments, f"dataset.name = '{dataset}'")
        keys |= {run.data.tags[SWEEP] for run in reading if SWEEP in run.data.tags}
    runs = [run for key in sorted(keys) for run in _search(client, experiments, f"tags.`{SWEEP}` = '{key}'")]
    if not dry_run:
        unregister(uri, keys)
        for run in runs:
            _remove(client, uri, run)
        for experiment in {run.info.experiment_id for run in runs}:
            if not client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1):
                client.delete_experiment(experiment)
    found = frozenset(run.data.tags[SWEEP] for run in runs)
    return RemovedRuns(len(runs), found, is_final=uri.startswith("sqlite:"))


def _search(client: MlflowClient, experiments: list[str], text: str) -> list[Run]:
    runs: list[Run] = []
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, text, ViewType.ALL, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    return runs


def _remove(client: MlflowClient, uri: str, run: Run) -> None:
    """Remove a run's files first: a kill in between leaves the run, so that the command finds it again."""
    run_id, is_file = run.info.run_id, uri.startswith("sqlite:")
    folder = folder_of(sqlite_path(uri), run.info.artifact_uri) if is_file else None
    if folder is not None:
        shutil.rmtree(folder.parent, ignore_errors=True)
    else:
        get_artifact_repository(run.info.artifact_uri, tracking_uri=uri).delete_artifacts()
    if run.info.lifecycle_stage == "active":
        client.delete_run(run_id)
    if is_file:
        _get_store(uri)._hard_delete_run(run_id)

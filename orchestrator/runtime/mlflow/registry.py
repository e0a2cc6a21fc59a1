"""MLflow's model registry: the models of a sweep's best setting, one version of each stage, registered once.

A registered model is called `STUDY-target`, `STUDY-prior` or `STUDY-inverter`; a version is one stage, marked
by its key. Importing this module takes seconds, because MLflow does.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from orchestrator.runtime.mlflow import encoding
from orchestrator.sweep.records import StoredModel, SweepRecord

PAGE = 1000  # versions per search
STAGE_KEY, SWEEP_KEY = "inversion.stage_key", "inversion.sweep"
TAKEN = "RESOURCE_ALREADY_EXISTS"

Upload = Callable[[Run, Mapping[str, bytes]], None]
"""Writes files, by path, to a run's artifacts."""


def register(
    uri: str, sweep: SweepRecord, models: Sequence[StoredModel], runs: Mapping[str, str], upload: Upload
) -> None:
    """Register the models, with their files on the run of a trial that has them; `runs`: trial key -> run id.

    What is registered already is left alone, and a version that a second writer made is deleted.
    """
    client = MlflowClient(uri, registry_uri=uri)
    for model in models:
        if model.trial not in runs:  # MLflow refused the trial
            continue
        name = encoding.key(f"{sweep.study}-{model.role}").replace("/", "-").replace(":", "-")
        _make(client, name, sweep)
        if not _versions(client, name, model.key):
            _add(client, name, sweep, model, client.get_run(runs[model.trial]), upload)
        for extra in _versions(client, name, model.key)[1:]:
            client.delete_model_version(name, extra.version)


def unregister(uri: str, sweeps: Collection[str]) -> None:
    """Delete the versions of these sweeps, and the registered models that they leave empty."""
    client = MlflowClient(uri, registry_uri=uri)
    found = [one for key in sorted(sweeps) for one in _search(client, f"tags.`{SWEEP_KEY}` = '{key}'")]
    for one in found:
        client.delete_model_version(one.name, one.version)
    for name in {one.name for one in found}:
        if not _search(client, f"name = '{name}'"):
            client.delete_registered_model(name)


def _make(client: MlflowClient, name: str, sweep: SweepRecord) -> None:
    try:
        client.create_registered_model(name, description=f"Of the setting of {sweep.study} that leaks most.")
    except MlflowException as error:
        if error.error_code != TAKEN:
            raise


def _add(
    client: MlflowClient, name: str, sweep: SweepRecord, model: StoredModel, run: Run, upload: Upload
) -> None:
    folder = f"models/{model.role}"
    upload(run, {f"{folder}/{file}": model.read(file) for file in model.files})
    tags = {STAGE_KEY: model.key, SWEEP_KEY: sweep.key, "inversion.setting": model.setting}
    tags["inversion.trial"] = run.info.run_name
    run_id = run.info.run_id
    client.create_model_version(name, f"runs:/{run_id}/{folder}", run_id=run_id, tags=tags)


def _versions(client: MlflowClient, name: str, key: str) -> list[ModelVersion]:
    """Return the versions of a stage, the oldest first."""
    found = _search(client, f"name = '{name}' and tags.`{STAGE_KEY}` = '{key}'")
    return sorted(found, key=lambda one: int(one.version))


def _search(client: MlflowClient, text: str) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(text, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found

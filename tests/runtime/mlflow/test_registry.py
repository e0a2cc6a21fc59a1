"""Models in MLflow's registry: marked by their stages, whole, and there once after any number of tries."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from orchestrator.runtime.mlflow import registry as module
from orchestrator.runtime.mlflow.removal import remove_runs
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.sweep.records import StoredModel, TrialRecord
from tests.runtime.samples import sample_report, sample_sweep, sample_trials

pytestmark = pytest.mark.mlflow
TRIALS = sample_trials(2)


def model(role: str, trial: TrialRecord, content: bytes = b"weights") -> StoredModel:
    def read(name: str) -> bytes:
        return name.encode() + content

    key = f"{role}-{trial.index}".ljust(64, "0")
    return StoredModel(role, key, trial.key, "m=1, k=5", [f"{role}.safetensors"], read)


def tell(uri: str, study: str, models: Sequence[StoredModel]) -> list[str]:
    """Tell a sweep that leaves models."""
    tracker = MlflowTracker(uri, patience_seconds=300)
    tracker.open(sample_sweep(study, num_points=2))
    for trial in TRIALS:
        tracker.ended(trial)
    return tracker.finished(replace(sample_report(TRIALS), models=models), {})


def versions(uri: str, name: str) -> list[Any]:
    """Return a registered model's versions, the oldest first."""
    client = MlflowClient(uri, registry_uri=uri)
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda one: int(one.version))


MODELS = [model("target", TRIALS[0]), model("inverter", TRIALS[0]), model("inverter", TRIALS[1])]


def check(uri: str, study: str) -> None:
    """Check what `MODELS` leave."""
    (target,) = versions(uri, f"{study}-target")
    inverters = versions(uri, f"{study}-inverter")
    assert [one.tags["inversion.stage_key"] for one in [target, *inverters]] == [one.key for one in MODELS]
    assert {one.tags["inversion.setting"] for one in inverters} == {"m=1, k=5"}
    assert [one.tags["inversion.trial"] for one in inverters] == [trial.name for trial in TRIALS]
    assert {one.tags["inversion.sweep"] for one in [target, *inverters]} == {sample_sweep(study).key}


def test_a_server_gives_the_models_back_and_has_each_stage_once(mlflow_server: str, tmp_path: Path) -> None:
    tell(mlflow_server, "kept", MODELS)
    check(mlflow_server, "kept")
    for one in versions(mlflow_server, "kept-inverter"):
        place = download_artifacts(
            f"runs:/{one.run_id}/models/inverter",
            dst_path=str(tmp_path / one.version),
            tracking_uri=mlflow_server,
        )
        assert (Path(place) / "inverter.safetensors").read_bytes() == b"inverter.safetensorsweights"
        assert one.source == f"runs:/{one.run_id}/models/inverter"
    tell(mlflow_server, "kept", MODELS)
    tell(mlflow_server, "kept", MODELS[:1])  # another report: it is told whole
    tell(mlflow_server, "kept", MODELS)
    check(mlflow_server, "kept")


def test_behind_a_file_they_are_registered_beside_its_runs_and_removed_with_them(
    mlflow_database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"
    for study in ("one", "two"):
        tell(uri, study, MODELS)
        check(uri, study)
    kept = {path.name for path in (tmp_path / "mlartifacts").rglob("*.safetensors")}
    assert kept == {"target.safetensors", "inverter.safetensors"}
    remove_runs(uri, {sample_sweep("one").key}, None, dry_run=True)
    check(uri, "one")
    remove_runs(uri, {sample_sweep("one").key}, None, dry_run=False)
    client = MlflowClient(uri, registry_uri=uri)
    assert {one.name for one in client.search_registered_models()} == {"two-target", "two-inverter"}
    check(uri, "two")


def test_a_lost_answer_leaves_one_version(
    mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"
    create = MlflowClient.create_model_version
    lost: list[object] = []

    def lose(self: MlflowClient, name: str, source: str, **more: Any) -> object:
        made = create(self, name, source, **more)
        if not lost:
            lost.append(create(self, name, source, **more))  # as a second writer does at the same moment
            raise ConnectionError("no answer")
        return made

    monkeypatch.setattr(module.MlflowClient, "create_model_version", lose)
    lines = tell(uri, "lost", MODELS)
    assert lines[0].startswith("MLflow: start it")
    assert len(lost) == 1
    check(uri, "lost")


def test_a_registry_that_refuses_leaves_a_closed_sweep_and_is_asked_again(
    mlflow_database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"
    (refused, *_) = tell(
        uri, "refused", [replace(MODELS[0], key="k" * 100_001)]
    )  # MLflow's longest tag: 100,000
    assert refused.startswith("MLflow refused the report: ")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("refused")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`inversion.kind` = 'sweep'")
    assert parent.info.status == "FINISHED"
    tell(uri, "refused", MODELS)
    check(uri, "refused")


def test_without_models_nothing_is_registered(mlflow_database: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"
    tell(uri, "none", [])
    assert list(MlflowClient(uri, registry_uri=uri).search_registered_models()) == []

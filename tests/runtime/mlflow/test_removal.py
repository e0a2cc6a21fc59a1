"""Removal from MLflow: the sweep's runs and pictures go, deleted runs too, others stay."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.runtime.mlflow.removal import remove_runs
from orchestrator.sweep.records import TrialRecord
from tests.runtime.mlflow.trackers import MlflowBench, tell
from tests.runtime.samples import sample_sweep, sample_trials

pytestmark = pytest.mark.mlflow


@pytest.fixture(params=["sqlite", "server"])
def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mlflow_server: str,
    mlflow_folder: Path,
    mlflow_database: Path,
) -> MlflowBench:
    """Return an MLflow on a file and behind the session's server."""
    if request.param == "server":
        return MlflowBench(mlflow_server, mlflow_folder / "mlflow.db", mlflow_folder / "artifacts")
    path = Path(shutil.copy(mlflow_database, tmp_path / "mlflow.db"))
    return MlflowBench(f"sqlite:///{path}", path, tmp_path / "mlartifacts")


def over(dataset: str, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials as if they had read that data set."""
    return [replace(one, datasets=[replace(data, name=dataset) for data in one.datasets]) for one in trials]


@pytest.mark.parametrize("by", ["sweep", "dataset"])
def test_runs_go_with_every_picture(by: str, bench: MlflowBench) -> None:
    going, staying, key = f"going-{by}", f"staying-{by}", sample_sweep(f"going-{by}").key
    first, second = over(going, sample_trials(2))
    tell(bench.tracker(), going, [replace(first, metrics={"a/b": 1.0}), second])
    tell(bench.tracker(), going, [first, second])  # replaces the first, whose run is only marked as deleted
    tell(bench.tracker(), staying, over(staying, sample_trials(1)))
    keys, dataset = ([key], None) if by == "sweep" else ([], going)
    before, kept, folder = bench.everything(going), bench.everything(staying), bench._folder(going)
    assert len(list(folder.glob("*/artifacts/images/*.png"))) == 3

    planned = remove_runs(bench.uri, keys, dataset, dry_run=True)
    assert (planned.num_runs, planned.sweeps) == (4, {key})
    assert bench.everything(going) == before
    assert remove_runs(bench.uri, keys, dataset, dry_run=False) == planned
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert bench.everything(staying) == kept
    assert planned.is_final == bench.uri.startswith("sqlite:")
    states = {"deleted" in row for row in bench.rows("runs", going)}
    assert states == (set() if planned.is_final else {True})

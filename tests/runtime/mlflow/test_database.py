"""MLflow's SQLite database: never half-made, its files where the folder is, other schemas refused."""

import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.config.base import Refused
from orchestrator.runtime.mlflow import database as module
from orchestrator.runtime.mlflow.check import check_tracking
from orchestrator.runtime.mlflow.database import PROXIED, check_database, heads, prepare
from orchestrator.runtime.mlflow.shipping import is_permanent
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from tests.runtime.mlflow.trackers import MlflowBench, expected, tell, wait_for
from tests.runtime.samples import sample_trials

pytestmark = pytest.mark.mlflow
TABLES = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'"


def execute(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements; return the rows of the last."""
    with closing(sqlite3.connect(path)) as database, database:
        return [database.execute(statement).fetchall() for statement in statements][-1]


def half_made(path: Path) -> Path:
    """Leave what MLflow leaves that is killed while it makes its tables in place."""
    execute(path, "CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE runs (run_uuid TEXT)")
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_revision_is_that_of_a_new_database(mlflow_database: Path) -> None:
    assert heads() == {str(execute(mlflow_database, "SELECT version_num FROM alembic_version")[0][0])}


def test_a_half_made_database_is_set_aside_and_the_sweep_tracked(tmp_path: Path) -> None:
    path = half_made(tmp_path / "mlflow.db")
    check_tracking(f"sqlite:///{path}")
    bench = MlflowBench(f"sqlite:///{path}", path, tmp_path / "mlartifacts")
    tracker, trials = bench.tracker(), sample_trials(2)
    tell(tracker, "healed", trials)
    assert tracker.is_complete
    assert bench.kept("healed") == {trial.key: expected(trial) for trial in trials}
    (aside,) = tmp_path.glob("mlflow.db.half-made-*")
    assert execute(aside, TABLES) == [(2,)]
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock", "mlartifacts", aside.name}


def test_a_database_that_is_being_made_in_place_is_waited_for(
    mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = half_made(tmp_path / "mlflow.db")
    os.utime(path)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: shutil.copy(mlflow_database, path))
    prepare(path)
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


def test_a_maker_that_is_killed_leaves_no_database_and_two_at_once_make_one(tmp_path: Path) -> None:
    path, context = tmp_path / "mlflow.db", multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", __name__])
    killed = context.Process(target=prepare, args=(path,))
    killed.start()
    part = tmp_path / "mlflow.db.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert not path.exists()
    both = [context.Process(target=prepare, args=(path,)) for _ in range(2)]
    for maker in both:
        maker.start()
    for maker in both:
        maker.join(60)
    assert [maker.exitcode for maker in both] == [0, 0]
    assert execute(path, TABLES) == [(65,)]
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize(
    ("version", "match"),
    [("'451aebb31d03'", "schema 451aebb31d03"), (None, "schema unknown")],
    ids=["older", "without a version"],
)
def test_runs_of_another_schema_are_refused_at_the_start_and_kept(
    version: str | None, match: str, mlflow_database: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(mlflow_database, tmp_path / "mlflow.db"))
    MlflowClient(f"sqlite:///{path}").create_run("0")
    execute(path, "DELETE FROM alembic_version")
    if version:
        execute(path, f"INSERT INTO alembic_version VALUES ({version})")
    before = path.read_bytes()
    with pytest.raises(
        Refused, match=rf"holds 1 runs of another MLflow \({match}\); copy the file, then run"
    ):
        check_tracking(f"sqlite:///{path}")
    tracker = MlflowTracker(f"sqlite:///{path}", patience_seconds=60)
    began = time.monotonic()
    (line,) = tell(tracker, "refused", sample_trials(1))
    assert time.monotonic() - began < 30, "a permanent error was retried"
    assert "did not take 2 of 2 records; it says: tracking_uri=" in line
    assert line.endswith("After that is corrected the same command sends them.")
    assert not tracker.is_complete
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(Refused, match=r"is no SQLite database \(.*\); move it away or name another"):
        check_database(path)


def test_a_full_disk_leaves_nothing_half_made_and_is_no_refusal(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match=r"mlflow\.db\.part: ") as caught:
            prepare(tmp_path / "mlflow.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_permanent(caught.value)
    assert not (tmp_path / "mlflow.db").exists()
    prepare(tmp_path / "mlflow.db")
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


def test_the_folder_of_an_older_sweep_can_be_moved(mlflow_database: Path, tmp_path: Path) -> None:
    """Databases of earlier versions name their files absolutely, by the folder where they were made."""
    old = tmp_path / "old"
    old.mkdir()
    path = Path(shutil.copy(mlflow_database, old / "mlflow.db"))
    location = (old / "mlartifacts" / "moved").as_uri()
    MlflowClient(f"sqlite:///{path}").create_experiment("moved", artifact_location=location)
    elsewhere = MlflowClient(f"sqlite:///{path}").create_experiment("kept", artifact_location="s3://b/kept")
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.get_experiment_by_name("moved")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    client.log_text(run.info.run_id, "a picture", "images/a.png")
    new = shutil.copytree(old, tmp_path / "new")
    shutil.rmtree(old)
    for _ in range(2):
        prepare(new / "mlflow.db")
        moved = MlflowClient(f"sqlite:///{new / 'mlflow.db'}")
        uri = moved.get_run(run.info.run_id).info.artifact_uri
        assert uri == f"{PROXIED}moved/{run.info.run_id}/artifacts"
        assert (new / "mlartifacts" / uri.removeprefix(PROXIED) / "images" / "a.png").exists()
        assert moved.get_experiment(elsewhere).artifact_location == "s3://b/kept"


def test_no_row_of_a_sweep_names_the_folder(mlflow_database: Path, tmp_path: Path) -> None:
    tell(MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}"), "portable", sample_trials(1))
    assert str(tmp_path).encode() not in (tmp_path / "mlflow.db").read_bytes()

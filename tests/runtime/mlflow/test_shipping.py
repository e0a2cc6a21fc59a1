"""What MLflow holds after the sweep was killed, or its server was: every trial once, nothing half done."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.runtime.mlflow import tracker as module
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.sweep.records import TrialRecord
from tests import servers
from tests.runtime.mlflow.trackers import MlflowBench, expected, tell, wait_for
from tests.runtime.samples import sample_report, sample_sweep, sample_trials

RECORD_SECONDS, STALL_SECONDS = 0.05, 1.0  # of a record; of one while a busy machine runs others
REPEATS = "SELECT COUNT(*) AS number FROM metrics GROUP BY run_uuid, key, step"
MOMENTS = [  # how many trials have got how far when the process is killed
    (1, "SELECT COUNT(*) FROM tags WHERE key = 'inversion.trial'"),
    (8, "SELECT COUNT(DISTINCT run_uuid) FROM metrics"),
    (15, "SELECT COUNT(DISTINCT destination_id) FROM inputs"),
]
pytestmark = pytest.mark.mlflow


def ship(uri: str, study: str) -> None:
    """Tell the whole sweep in a process of its own."""
    tell(MlflowTracker(uri), study, sample_trials())


def count(database: Path, query: str) -> int:
    """Return one number from the database, 0 while it has none."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def begun(database: Path) -> int:
    """Return how many trials have a run, whole or not."""
    return count(database, "SELECT COUNT(*) FROM tags WHERE key = 'inversion.trial'")


def whole(database: Path) -> int:
    """Return how many trials are told to the end."""
    return count(database, "SELECT COUNT(*) FROM tags WHERE key = 'inversion.digest'")


def test_a_sweep_killed_three_times_is_replayed_without_a_trace(
    mlflow_database: Path, tmp_path: Path
) -> None:
    database = Path(shutil.copy(mlflow_database, tmp_path / "mlflow.db"))
    bench = MlflowBench(f"sqlite:///{database}", database, tmp_path / "mlartifacts")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["orchestrator.runtime.mlflow.shipping", __name__])
    half_told: list[int] = []
    for number, moment in MOMENTS:
        child = server.Process(target=ship, args=(bench.uri, "killed"))
        child.start()
        wait_for(lambda query=moment, wanted=number: count(database, query) >= wanted)  # type: ignore[misc]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        child.close()
        assert number <= begun(database) < 20
        half_told.append(begun(database) - whole(database))
        assert [run.info.status for run in bench.runs("killed", "sweep")] == ["RUNNING"]
    assert any(half_told), "every kill fell between two trials"

    ship(bench.uri, "killed")
    assert bench.kept("killed") == {trial.key: expected(trial) for trial in sample_trials()}
    assert [run.info.status for run in bench.runs("killed", "sweep")] == ["FINISHED"]
    assert whole(database) == 21
    assert count(database, "SELECT COUNT(*) FROM runs") == 21, "deleted runs were left behind"
    assert count(database, f"SELECT MAX(number) FROM ({REPEATS})") == 1


def tell_at_once(tracker: MlflowTracker, trials: Sequence[TrialRecord]) -> None:
    """Record the trials; fail if a record waits for the server."""
    taken = []
    for trial in trials:
        began = time.perf_counter()
        tracker.ended(trial)
        taken.append(time.perf_counter() - began)
    assert min(taken) < RECORD_SECONDS, taken
    assert max(taken) < STALL_SECONDS, taken


def test_a_server_that_comes_late_and_dies_in_between_gets_everything(
    mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAUSE_SECONDS", 0.5)
    database, trials, port = tmp_path / "mlflow.db", sample_trials(12), servers.free_port()
    shutil.copy(mlflow_database, database)
    bench = MlflowBench(f"http://127.0.0.1:{port}", database, tmp_path / "artifacts")
    tracker = MlflowTracker(bench.uri)
    tracker.open(sample_sweep("outage"))
    tell_at_once(tracker, trials[:7])

    with servers.mlflow(tmp_path, port=port) as server:
        wait_for(lambda: begun(database) >= 3)
        tell_at_once(tracker, trials[7:8])
        os.killpg(server.pid, signal.SIGKILL)
    assert whole(database) < 8, "the server was killed too late"
    tell_at_once(tracker, trials[8:])

    with servers.mlflow(tmp_path, port=port):
        lines = tracker.finished(sample_report(trials), {})
        assert lines[0] == "MLflow:"
        assert bench.kept("outage") == {trial.key: expected(trial) for trial in trials}
        assert [run.info.status for run in bench.runs("outage", "sweep")] == ["FINISHED"]
    assert count(database, "SELECT COUNT(*) FROM runs") == 13


def test_a_dead_server_is_given_up_and_the_way_out_is_said() -> None:
    uri = f"http://127.0.0.1:{servers.free_port()}"
    began = time.monotonic()
    lines = tell(MlflowTracker(uri, patience_seconds=1), "dead", sample_trials(3))
    assert lines == [
        f"MLflow at {uri} did not take 4 of 4 records; running the same command again sends them."
    ]
    assert time.monotonic() - began < 10

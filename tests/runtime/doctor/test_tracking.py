"""Checks of MLflow: servers, hosts, rights, database files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from orchestrator.runtime.doctor import tracking
from orchestrator.runtime.doctor.findings import fail
from tests import servers
from tests.runtime.doctor.faults import answering, listed, only_fault


@pytest.mark.mlflow
def test_a_server_in_order_is_told_and_gets_one_experiment(mlflow_server: str) -> None:
    for _ in range(2):
        found = list(tracking.tracking(mlflow_server))
        assert listed(found) == [("ok", "mlflow"), ("ok", "mlflow auth"), ("ok", "mlflow writes")]
        assert found[0].found == f"{mlflow_server} is MLflow {mlflow.__version__}"
    client = mlflow.MlflowClient(mlflow_server)
    every = client.search_experiments(view_type=mlflow.entities.ViewType.ALL)
    left = [one for one in every if one.name == tracking.PROBE]
    assert [one.lifecycle_stage for one in left] == ["deleted"]


@pytest.mark.mlflow
def test_a_host_name_that_mlflow_does_not_know_is_told(unknown_host: str) -> None:
    fault = only_fault(tracking.tracking(f"http://me:hunter2@{unknown_host}"))
    assert fault == fail(
        "mlflow auth",
        f"refuses the host name {unknown_host} (HTTP 403)",
        f'start it with --allowed-hosts "{unknown_host},localhost:*,127.0.0.1:*"',
    )


def test_a_server_that_wants_a_password_is_told() -> None:
    with answering({"/": (401, "You are not authenticated.")}) as uri:
        found = list(tracking.tracking(uri))
    assert listed(found) == [("ok", "mlflow"), ("ok", "mlflow auth"), ("FAIL", "mlflow writes")]
    assert found[1].found == "needs a password"
    assert found[2].found == "the server refuses these credentials, or got none (HTTP 401)"
    assert found[2].fix == tracking.LOG_IN


def test_a_user_who_may_not_write_is_told() -> None:
    refusal = json.dumps({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})
    answers = {
        "/version": (200, "3.17.2"),
        "/api": (403, refusal),
        "/api/2.0/mlflow/experiments/search": (200, "{}"),
    }
    with answering(answers) as uri:
        fault = only_fault(tracking.tracking(uri))
    assert (fault.name, fault.found) == ("mlflow writes", "this user may not write")
    assert fault.fix == "ask its administrator for the right to create experiments"


@pytest.mark.parametrize(
    ("answer", "found", "fix"),
    [
        ((200, "3.16.1"), "is MLflow 3.16.1", "install mlflow>=3.17.2 where the server runs"),
        ((200, "<html>"), "answers, but not as MLflow does (HTTP 200)", "correct --tracking-uri"),
        ((404, "no"), "answers, but not as MLflow does (HTTP 404)", "correct --tracking-uri"),
    ],
)
def test_a_server_of_another_kind_or_age_fails(answer: tuple[int, str], found: str, fix: str) -> None:
    with answering({"/version": answer, "/api": (401, "")}) as uri:
        fault = next(iter(tracking.tracking(uri)))
    assert (fault.status, fault.found) == ("FAIL", f"{uri} {found}")
    assert fault.fix.startswith(fix)


def test_no_server_is_told_without_the_password() -> None:
    port = servers.free_port()
    fault = only_fault(tracking.tracking(f"http://me:hunter2@127.0.0.1:{port}"))
    assert fault.found.startswith(f"no answer from http://127.0.0.1:{port} (")
    assert fault.fix == tracking.START


def test_a_server_open_to_a_network_is_a_warning() -> None:
    assert tracking._auth("127.0.0.1", 200).status == "ok"
    door = tracking._auth("mlflow.example", 200)
    assert (door.status, door.found) == ("warn", "no authentication")
    assert door.fix.startswith("add a password (--app-name basic-auth)")


def test_a_file_is_judged_as_a_sweep_would_find_it(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert listed(tracking.tracking(f"sqlite:///{path}")) == [("ok", "mlflow"), ("ok", "mlflow room")]
    assert not path.exists()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE runs (id)")
        assert listed(tracking.tracking(f"sqlite:///{path}")) == [("ok", "mlflow"), ("ok", "mlflow room")]
        database.execute("BEGIN IMMEDIATE")
        fault = only_fault(tracking.tracking(f"sqlite:///{path}"))
        assert (fault.status, fault.found) == ("warn", f"{path}: database is locked")
        assert fault.fix == "wait for the sweep or server that writes there"
    path.write_bytes(b"no database at all" * 100)
    fault = only_fault(tracking.tracking(f"sqlite:///{path}"))
    found = f"tracking_uri={path} is no SQLite database (file is not a database)"
    assert (fault.status, fault.found) == ("FAIL", found)
    assert fault.fix == "move it away or name another with --tracking-uri"


@pytest.mark.parametrize("uri", ["ftp://me:hunter2@host", "runs/mlruns"])
def test_a_wrong_tracking_uri_fails(uri: str) -> None:
    fault = only_fault(tracking.tracking(uri))
    assert (fault.status, fault.name) == ("FAIL", "mlflow")
    assert "sqlite:///" in fault.fix

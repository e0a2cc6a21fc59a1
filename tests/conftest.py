"""Fixtures of all tests."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import groups, s3, servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that share a server first."""
    items.sort(key=lambda item: groups.order_of(str(item.path.relative_to(item.config.rootpath))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> groups.ByServer:
    """Return the scheduler of a parallel run."""
    return groups.ByServer(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Let this process's writes reach the disk later: only a power failure, which no test causes, would tell.

    Stores flush every file and folder: thousands of waits of milliseconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real image sets beside the project, or skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real image sets is not on this machine")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Start an S3 server in its own process and point this process and its children at it."""
    with s3.server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        for name, value in {**s3.CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        yield endpoint


@pytest.fixture
def s3_uri(s3_endpoint: str) -> str:
    """Return a store in a fresh bucket."""
    return f"s3://{s3.new_bucket(s3_endpoint)}/store"


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Proxy]:
    """Stand between this process and the S3 server, to lose and break what passes."""
    with s3.Proxy(s3_endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest) -> Blobs:
    """Return an empty store of each kind."""
    if request.param == "directory":
        return DirectoryBlobs(request.getfixturevalue("tmp_path") / "store")
    return open_blobs(request.getfixturevalue("s3_uri"))


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the session's MLflow server keeps `mlflow.db` and `artifacts/`."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def mlflow_server(mlflow_folder: Path) -> Iterator[str]:
    """Start an MLflow server of two processes; yield its address."""
    with servers.mlflow(mlflow_folder) as running:
        made, empty = (sqlite3.connect(mlflow_folder / name) for name in ("mlflow.db", "empty.db"))
        with closing(made), closing(empty):
            made.backup(empty)  # before anything is in it
        yield running.uri


@pytest.fixture
def unknown_host(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return HOST:PORT that leads to the MLflow server by a name which it does not know."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))
    return f"mlflow.example:{mlflow_server.rpartition(':')[2]}"


@pytest.fixture(scope="session")
def mlflow_database(mlflow_server: str, mlflow_folder: Path) -> Path:
    """Return an empty MLflow database to copy: making one takes seconds, and the server has made one."""
    return mlflow_folder / "empty.db"


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Cluster]:
    """Start this session's only Ray cluster: token authentication on, workers know the S3 endpoint."""
    with servers.ray_head(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


@pytest.fixture
def second_node(ray_cluster: servers.Cluster) -> Iterator[None]:
    """Add a node to the cluster for one test."""
    with servers.ray_node(ray_cluster):
        yield

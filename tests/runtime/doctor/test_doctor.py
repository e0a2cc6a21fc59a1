"""The doctor's checks: the finding and the fix for each fault, on servers that really have it.

Spans the modules of runtime/doctor.
"""

import json
import os
import re
import socket
import sqlite3
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

from orchestrator import __version__
from orchestrator.runtime.doctor import bucket, cluster, findings, machine, nodes, tracking
from orchestrator.runtime.doctor.findings import GIB, Finding, fail, ok, run, warn
from orchestrator.runtime.doctor.places import place, probe, seen
from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import s3, servers

ROOT = Path(__file__).resolve().parents[3]
SECRETS = (s3.CREDENTIALS["AWS_SECRET_ACCESS_KEY"], "hunter2")
NAMES = ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the checks."""
    for name in (*NAMES, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def listed(found: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.status, finding.name) for finding in found]


def only_fault(found: Iterable[Finding]) -> Finding:
    """Return the one finding that is not ok; it has a fix, and no finding has a secret."""
    found = list(found)
    assert not any(secret in f"{one.found} {one.fix}" for one in found for secret in SECRETS)
    (fault,) = [finding for finding in found if finding.status != "ok"]
    assert fault.fix
    return fault


def store(uri: str) -> list[Finding]:
    return list(place("--store", uri, writes=True))


def data(uri: str) -> list[Finding]:
    return list(place("--data", uri, writes=False))


@contextmanager
def answering(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Serve a status and a text by the beginning of the path; 404 for the rest."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            starts = [start for start in answers if self.path.startswith(start)]
            status, text = answers[max(starts, key=len)] if starts else (404, "no such page")
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


# Findings


def test_a_check_that_breaks_is_a_failure_without_secrets() -> None:
    def check() -> Iterator[Finding]:
        yield ok("one", "fine")
        raise RuntimeError("cannot reach\nhttp://me:hunter2@host")

    assert list(run("two", check, "mend it")) == [
        ok("one", "fine"),
        fail("two", "RuntimeError: cannot reach http://***@host", "mend it"),
    ]


def test_a_check_that_hangs_is_given_up() -> None:
    started = time.monotonic()

    def hang() -> Iterator[Finding]:
        time.sleep(60)
        yield ok("slow", "at last")

    (finding,) = run("slow", hang, "look there", seconds=0.3)
    assert time.monotonic() - started < 5
    assert finding == Finding("FAIL", "slow", "no answer within 0.3 s", "look there", is_late=True)


def test_no_check_may_take_more_than_15_seconds() -> None:
    assert findings.LIMIT_SECONDS == 15.0


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (0.4, "ok", "its clock agrees within 1 s"),
        (-59.0, "ok", "its clock agrees within 60 s"),
        (61.0, "warn", "its clock is 61 s ahead of this clock"),
        (-301.0, "FAIL", "its clock is 301 s behind this clock"),
    ],
)
def test_clocks(ahead: float, status: str, words: str) -> None:
    finding = findings.clock("clock", ahead, "its clock")
    assert (finding.status, finding.found) == (status, words)
    assert finding.fix == ("" if status == "ok" else "set both clocks by NTP (chrony or systemd-timesyncd)")


@pytest.mark.parametrize(("free", "status"), [(11 * GIB, "ok"), (9 * GIB, "warn"), (GIB // 2, "FAIL")])
def test_room(free: int, status: str) -> None:
    finding = findings.room("room", "/data", free)
    assert (finding.status, bool(finding.fix)) == (status, status != "ok")
    assert finding.found == f"/data has {free / GIB:.1f} GiB free"


# This machine


def test_this_machine_is_in_order() -> None:
    assert listed(machine.installed()) == [("ok", "python"), ("ok", "libraries")]
    (torch,) = machine.accelerators()
    assert (torch.status, torch.found.split()[0]) == ("ok", "sees")


def test_the_least_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = dict(re.match(r"(\w+)[^>]*>=([\d.]+)", line).groups() for line in project["dependencies"])  # type: ignore[union-attr, misc]
    assert machine.MINIMUM.items() <= wanted.items()
    assert project["requires-python"] == f">={'.'.join(map(str, machine.PYTHON))}"


def test_a_missing_or_old_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ({"mlflow": ""}, {"mlflow": "3.17.1"}):
        monkeypatch.setattr(machine, "versions", lambda found=found: {"ray": "2.60.0", **found})
        fault = only_fault(machine.installed())
        assert (fault.name, fault.fix) == ("libraries", machine.INSTALL)
        assert f"mlflow {found['mlflow'] or 'missing'}" in fault.found


def test_a_torch_that_does_not_load_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TORCH", "raise ImportError('libcudart.so.13: cannot open')")
    assert only_fault(machine.accelerators()) == fail(
        "torch", "does not load: ImportError: libcudart.so.13: cannot open", machine.INSTALL
    )


@pytest.mark.parametrize(
    ("number", "than", "is_older"),
    [
        ("2.9", "2.10", True),
        ("2.60.0", "2.60", False),
        ("3.17.2", "3.17.2", False),
        ("2.15.0+cu132", "2.14", False),
        ("3.17.2rc1", "3.17.2", False),
        ("3.16", "3.17.2", True),
    ],
)
def test_versions_are_compared_by_number(number: str, than: str, is_older: bool) -> None:
    assert machine.is_older(number, than) == is_older


# Stores


def test_a_place_in_order_is_told_and_left_as_it_was(blobs: Blobs) -> None:
    blobs.put("digits/manifest.json", b"{}")
    before = blobs.entries("")
    found = store(blobs.uri)
    assert {finding.status for finding in found} == {"ok"}
    assert {"store", "store writes", "store once", "store clock"} <= {finding.name for finding in found}
    assert blobs.entries("") == before
    assert data(blobs.uri)[-1] == ok("data sets", "digits")
    assert blobs.entries("") == before


def test_a_bucket_is_told_with_endpoint_style_and_source(s3_uri: str, s3_endpoint: str) -> None:
    assert store(s3_uri)[0].found == f"{s3_uri} at {s3_endpoint}, path style, credentials from env"


def test_a_place_without_data_sets_is_a_warning(blobs: Blobs) -> None:
    blobs.put("x", b"")
    fault = only_fault(data(blobs.uri))
    assert fault == warn("data sets", "there are none", "stage some: python -m jobs.stage_data SOURCE DEST")


def test_a_wrong_uri_names_the_option() -> None:
    fault = only_fault(store("gs://bucket/x"))
    assert (fault.status, fault.fix) == ("FAIL", "use /dir, file:///dir or s3://bucket/prefix")


def test_a_folder_that_is_not_there_is_made_by_a_sweep_but_not_for_data(tmp_path: Path) -> None:
    found = store(str(tmp_path / "a" / "b"))
    assert {finding.status for finding in found} == {"ok"}
    assert found[0].found.endswith(", made by the first sweep")
    assert list(tmp_path.iterdir()) == []
    fault = only_fault(data(str(tmp_path / "a")))
    assert (fault.status, fault.found) == ("FAIL", f"there is no directory {tmp_path / 'a'}")
    assert fault.fix.startswith("name another with --data")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = only_fault(store(str(tmp_path / "file")))
    assert fault == fail("store", f"{tmp_path / 'file'} is no directory", "name another with --store")


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(DirectoryBlobs, "put", refuse)
    fault = only_fault(store(str(tmp_path)))
    assert fault == fail(
        "store writes", f"cannot write in {tmp_path} (Permission denied)", "name another with --store"
    )


def test_a_folder_that_creates_twice_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", os.replace)
    fault = only_fault(store(str(tmp_path)))
    assert (fault.name, fault.found) == (
        "store once",
        "the file system does not create files once, so writers could overwrite each other",
    )
    assert fault.fix == "use a server that honours it, or another directory, with --store"


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * GIB))
    fault = only_fault(store(str(tmp_path)))
    assert (fault.status, fault.name) == ("warn", "store room")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    (fault,) = machine.cache_room()
    assert (fault.status, fault.name) == ("FAIL", "cache")
    assert fault.fix == "free at least 1 GiB there, or name another place"


def test_a_missing_bucket_fails(s3_endpoint: str) -> None:
    for found, option in (
        (store("s3://no-such-bucket/x"), "--store"),
        (data("s3://no-such-bucket/x"), "--data"),
    ):
        fault = only_fault(found)
        assert (fault.status, fault.name) == ("FAIL", f"{option[2:]} bucket")
        assert fault.found == f"bucket no-such-bucket does not exist at {s3_endpoint}"
        assert fault.fix == f"create it or name another with {option}"


def test_a_server_that_is_away_fails(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hunter2@127.0.0.1:{servers.free_port()}")
    fault = only_fault(store(s3_uri))
    assert (fault.name, fault.fix) == ("store bucket", "start the server or correct AWS_ENDPOINT_URL")
    assert fault.found.startswith("no answer from http://127.0.0.1:")


def test_a_server_that_never_answers_is_given_up(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = list(run("store", lambda: store(s3_uri), "see the network", seconds=1.0))
    assert found[-1].is_late
    assert found[-1].fix == "see the network"


def test_absent_and_impossible_credentials_fail(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "AWS_PROFILE" in only_fault(store(s3_uri)).fix
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert only_fault(store(s3_uri)) == fail(
        "store",
        "no usable credentials (NoCredentialsError)",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    )


def test_wrong_credentials_fail(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.server(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict)
        fault = only_fault(store("s3://some-bucket/x"))
    assert fault.found == f"{strict} refuses the credentials (InvalidAccessKeyId)"
    assert fault.fix == "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def test_a_server_without_conditional_put_fails(proxy: s3.Proxy, s3_uri: str) -> None:
    proxy.faults = [("PUT", "blunt")] * 10
    fault = only_fault(store(s3_uri))
    assert fault.name == "store once"
    assert fault.found == f"{proxy.endpoint} ignores If-None-Match, so writers could overwrite each other"
    assert fault.fix == "use a server that honours it, or another directory, with --store"


def test_a_server_with_several_first_writers_is_a_warning(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_race", lambda client, key: 3)
    fault = only_fault(store(s3_uri))
    assert fault == warn(
        "store once",
        "refuses to create an object again, but accepted 3 of 8 simultaneous writers as the first",
        "harmless while results repeat (processors); on GPUs run one sweep at a time against this server",
    )


@pytest.mark.parametrize(("method", "right"), [("PUT", "s3:PutObject"), ("DELETE", "s3:DeleteObject")])
def test_a_missing_right_is_named(proxy: s3.Proxy, s3_uri: str, method: str, right: str) -> None:
    proxy.faults = [(method, "403")]
    fault = only_fault(store(s3_uri))
    assert (fault.status, fault.name) == ("FAIL", "store writes")
    assert fault.fix == f"grant {right} on the prefix"
    assert open_blobs(s3_uri).names("") == []


def test_an_endpoint_with_another_clock_is_told(
    s3_endpoint: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(s3.Proxy):
        def forward(self, request: BaseHTTPRequestHandler, *, skipped: str = "Expect") -> s3.Answer:
            status, headers, body = super().forward(request, skipped=skipped)
            kept = [(name, value) for name, value in headers if name.lower() != "date"]
            return status, [*kept, ("Date", "Wed, 25 Nov 2020 02:00:00 GMT")], body

    with Late(s3_endpoint) as late:
        monkeypatch.setenv("AWS_ENDPOINT_URL", late.endpoint)
        fault = only_fault(store(s3_uri))
    assert (fault.status, fault.name) == ("FAIL", "store clock")
    assert "s behind this clock" in fault.found
    assert fault.fix.startswith("set both clocks")


# MLflow


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
    assert (fault.status, fault.found) == ("FAIL", f"{path}: file is not a database")
    assert fault.fix == "move that file away, or name another"


@pytest.mark.parametrize("uri", ["ftp://me:hunter2@host", "runs/mlruns"])
def test_a_wrong_tracking_uri_fails(uri: str) -> None:
    fault = only_fault(tracking.tracking(uri))
    assert (fault.status, fault.name) == ("FAIL", "mlflow")
    assert "sqlite:///" in fault.fix


# Ray's job server, from outside


def test_a_job_server_that_asks_for_no_token_is_told() -> None:
    with answering({"/api/version": (200, json.dumps({"ray_version": "2.9.3"}))}) as address:
        opened, version = cluster.job_server(address)
    assert (opened.status, opened.fix) == ("warn", cluster.CLOSE)
    assert opened.found.startswith("the cluster takes jobs without authentication")
    assert (version.status, version.found) == ("FAIL", "2.9.3 there, 2.60.0 here")
    assert version.fix == "install ray==2.9.3 here, or 2.60.0 there"
    opened = cluster._open_to_all("head.example")
    assert (opened.status, opened.fix) == ("FAIL", cluster.CLOSE)


def test_nobody_at_the_job_server_is_told() -> None:
    fault = only_fault(cluster.job_server(f"http://127.0.0.1:{servers.free_port()}"))
    assert (fault.name, fault.fix) == ("ray jobs", cluster.REACH)


def test_a_server_of_another_kind_is_no_job_server() -> None:
    with answering({}) as address:
        fault = only_fault(cluster.job_server(address))
    assert fault.found == f"{address} answers HTTP 404, not as Ray's job server does"
    assert fault.fix == cluster.REACH


# Ray, from inside


def test_nobody_at_the_address_of_the_cluster_is_told(tmp_path: Path) -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    fault = only_fault(cluster.joined(address, str(tmp_path), str(tmp_path)))
    assert fault == fail("ray cluster", f"no answer from {address} (Connection refused)", cluster.JOIN)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_that_a_sweep_cannot_join_is_told(address: str, tmp_path: Path) -> None:
    fault = only_fault(cluster.joined(address, str(tmp_path), str(tmp_path)))
    assert fault == fail("ray cluster", f"RAY_ADDRESS={address} is no address to join", cluster.JOIN)


def answer(**changes: Any) -> dict[str, Any]:
    """Return what a healthy node says."""
    plain = {"seconds": time.time(), "versions": {}, "store": "", "folder": "/cache", "free": 99 * GIB}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("said", "status", "found", "fix"),
    [
        ({"store": "s3://b/x is another place there"}, "FAIL", "store: s3://b/x is another", nodes.SHARED),
        ({"free": 5 * GIB}, "warn", "/cache has 5.0 GiB free", "free 10 GiB there"),
        ({"seconds": 2e9}, "FAIL", "its clock is ", "set both clocks by NTP"),
        ({"seconds": 1e9}, "FAIL", "its clock is ", "set both clocks by NTP"),
        ("none within 12 s", "FAIL", "a small task: none within 12 s", nodes.BUSY),
    ],
)
def test_what_is_wrong_with_a_node_is_told(said: Any, status: str, found: str, fix: str) -> None:
    said = answer(**said) if isinstance(said, dict) else said
    fault = only_fault(nodes._faults("node a", said, time.time() - 1))
    assert (fault.status, fault.name) == (status, "node a")
    assert fault.found.startswith(found)
    assert fault.fix.startswith(fix)
    assert list(nodes._faults("node a", answer(), time.time() - 1)) == []


def test_gpus_that_torch_does_not_see_are_told() -> None:
    assert nodes._gpu_faults("node a", 2.0, 2) == []
    assert nodes._gpu_faults("node a", 2.0, 1) == [
        fail("node a", "declares 2 GPU, torch sees 1", nodes.DRIVER)
    ]
    (fault,) = nodes._gpu_faults("node a", 1.0, "none within 12 s")
    assert fault.found == "declares 1 GPU, torch did not answer: none within 12 s"


def test_versions_that_differ_between_nodes_are_told() -> None:
    same = {"python": "3.11.7", "torch": "2.15.0", "project": "0.1.0"}
    assert nodes._versions({"a": same, "b": same}) == ok(
        "ray versions", "python 3.11.7, torch 2.15.0, project 0.1.0 on every node"
    )
    fault = nodes._versions({"a": same, "b": {**same, "torch": "2.14.1"}, "c": {**same, "project": ""}})
    assert fault == fail(
        "ray versions",
        "torch: 2.15.0 on a and c, 2.14.1 on b; project: 0.1.0 on a and b, missing on c",
        nodes.SAME,
    )
    assert nodes._versions({"a": {**same, "project": ""}}).fix == nodes.SAME


def test_a_node_sees_the_probe_or_says_why_not(blobs: Blobs, tmp_path: Path) -> None:
    with probe(blobs.uri) as placed:
        assert placed is not None
        assert seen(*placed) == ""
        assert (
            seen(str(tmp_path / "elsewhere"), placed.name)
            == f"{tmp_path / 'elsewhere'} is another place there"
        )
    assert blobs.names("") == []
    assert seen(*placed).endswith("is another place there")


def test_a_node_without_credentials_says_so(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe(s3_uri) as placed:
        assert placed is not None
        with monkeypatch.context() as elsewhere:
            elsewhere.delenv("AWS_ACCESS_KEY_ID")
            elsewhere.delenv("AWS_SECRET_ACCESS_KEY")
            assert seen(*placed).startswith("no usable credentials (NoCredentialsError)")


def test_a_node_without_the_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe(str(tmp_path)) as placed:
        whole = nodes.facts(placed, str(tmp_path / "cache" / "deep"))
        assert (whole["store"], whole["versions"]["project"]) == ("", __version__)
        assert whole["folder"] == str(tmp_path)
        monkeypatch.setitem(sys.modules, "orchestrator", None)
        bare = nodes.facts(placed, str(tmp_path))
    assert bare["versions"]["project"] == ""
    assert bare["store"].startswith("not checked: ")


def test_nodes_at_one_address_have_names_of_their_own() -> None:
    found = [
        {"NodeManagerAddress": address, "NodeID": f"{number}" * 8} for number, address in enumerate("aab")
    ]
    assert list(nodes.by_label(found)) == ["a/000000", "a/111111", "b"]

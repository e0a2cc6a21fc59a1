"""Checks of a bucket: the finding and the fix for each fault, on servers that really have it."""

import socket
from http.server import BaseHTTPRequestHandler

import pytest

from orchestrator.runtime.doctor import bucket
from orchestrator.runtime.doctor.findings import fail, run, warn
from orchestrator.runtime.open_store import open_blobs
from tests import s3, servers
from tests.runtime.doctor.faults import data, only_fault, store


def test_a_bucket_is_told_with_endpoint_style_and_source(s3_uri: str, s3_endpoint: str) -> None:
    assert store(s3_uri)[0].found == f"{s3_uri} at {s3_endpoint}, path style, credentials from env"


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

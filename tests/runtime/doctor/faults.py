"""Helpers of the doctor's tests: servers that answer as told, and the one fault among findings."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.doctor.findings import Finding
from orchestrator.runtime.doctor.places import place
from tests import s3

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

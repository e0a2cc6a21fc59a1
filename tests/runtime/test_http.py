"""Checks over HTTP: an answer's beginning and status, or the reason for none, never a password."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.runtime.http import get, redact


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200 if self.path == "/long" else 403
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"x" * 9999 if status == 200 else self.headers.get("X-Token", "none").encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a server on the loopback interface."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_beginning_of_an_answer_with_its_status(address: str) -> None:
    text, status = get(f"{address}/long")
    assert (set(text), len(text), status) == ({"x"}, 500, 200)


def test_an_error_status_is_an_answer_and_headers_are_sent(address: str) -> None:
    assert get(f"{address}/", {"X-Token": "abc"}) == ("abc", 403)


def test_no_answer_is_a_reason_and_status_0() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nothing listens
        text, status = get(f"http://127.0.0.1:{closed.getsockname()[1]}/")
    assert status == 0
    assert "refused" in text
    assert get("no address")[1] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at http://someone:hidden@host/x", "at http://***@host/x"),
        ("s3://a:b@c@host, then ftp://d@e", "s3://***@host, then ftp://***@e"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_user_and_password_are_hidden(text: str, expected: str) -> None:
    assert redact(text) == expected

"""An S3 server in its own process, and a fault-injecting proxy in front of it."""

import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret-never-printed",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Ends with its standard input, so that it never outlives the tests.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer

running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
running.start()
print(running.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def server(**env: str) -> Iterator[str]:
    """Run the server until the block ends; yield its endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **env},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "the S3 server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def new_bucket(endpoint: str) -> str:
    """Create a bucket and return its name."""
    bucket = f"bucket-{uuid4().hex[:12]}"
    with urlopen(Request(f"{endpoint}/{bucket}", method="PUT"), timeout=30):
        return bucket


class Proxy:
    """Forwards to an endpoint; each entry of `faults` (method, fault) is spent on the next such request.

    lost: forwarded, but the answer never comes back; cut: half of the body; flip: one bit of it is turned;
    drip: the body comes a byte at a time; slow: at 4 MB/s; blunt: forwarded without its condition; whole:
    forwarded without its range; reset: the connection ends before anything is forwarded; 503, 409, 403:
    answered here, not forwarded.
    """

    def __init__(self, endpoint: str) -> None:
        self.faults: list[tuple[str, str]] = []
        self.seen: list[str] = []  # methods, in order
        self.asked: list[tuple[str, str, str]] = []  # method, path and query, range
        self.on_request: Callable[[str, str], None] = lambda method, path: None
        self.turn = threading.Lock()
        self._outage = ("", 0.0)  # fault of every request, and until when on the monotonic clock
        self._upstream = urlsplit(endpoint).netloc
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, fault: str, seconds: float) -> None:
        """Give every request of the next seconds this fault."""
        self._outage = (fault, time.monotonic() + seconds)

    def fault(self, method: str, path: str, wanted: str) -> str:
        """Return the fault for this request, or an empty string."""
        self.seen.append(method)
        self.asked.append((method, path, wanted))
        self.on_request(method, path)
        if time.monotonic() < self._outage[1]:
            return self._outage[0]
        if self.faults and self.faults[0][0] == method:
            return self.faults.pop(0)[1]
        return ""

    def forward(self, request: BaseHTTPRequestHandler, *, skipped: str = "Expect") -> Answer:
        """Ask the server behind, without one header."""
        length = int(request.headers.get("Content-Length") or 0)
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            body = request.rfile.read(length)
            headers = {name: value for name, value in request.headers.items() if name != skipped}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True  # the client had enough

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        fault = self.proxy.fault(self.command, self.path, self.headers.get("Range") or "")
        if fault == "reset":
            self._reset()
            return
        if fault.isdigit():
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(_refusal(int(fault)), fault)
            return
        skipped = {"blunt": "If-None-Match", "whole": "Range"}.get(fault, "Expect")
        # The server looks first and writes later, so that two at once could both be the first.
        is_conditional = "If-None-Match" in self.headers
        with self.proxy.turn if is_conditional else nullcontext():
            answer = self.proxy.forward(self, skipped=skipped)
        if fault == "lost":
            self.close_connection = True
            return
        self._send(answer, fault)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _send(self, answer: Answer, fault: str) -> None:
        status, headers, body = answer
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.close_connection = fault in ("cut", "drip")
        for piece in _broken(body, fault):
            self.wfile.write(piece)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass


def _refusal(status: int) -> Answer:
    code = {503: "SlowDown", 409: "ConditionalRequestConflict", 403: "AccessDenied"}[status]
    return status, [], f"<Error><Code>{code}</Code></Error>".encode()


def _broken(body: bytes, fault: str) -> Iterator[bytes]:
    if fault == "cut":
        yield body[: len(body) // 2]
    elif fault == "flip":
        yield bytes([body[0] ^ 1]) + body[1:]
    elif fault == "drip":
        for position in range(len(body)):
            yield body[position : position + 1]
            time.sleep(0.05)
    elif fault == "slow":
        for position in range(0, len(body), 200_000):
            yield body[position : position + 200_000]
            time.sleep(0.05)
    else:
        yield body

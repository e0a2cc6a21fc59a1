"""Preemption: where a notice comes from, and that Ray drains the node."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.ray.preemption import ACTION_PATH, TOKEN_PATH, spot_seconds
from tests import servers

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "session-token"


@contextmanager
def metadata(answer: dict[str, str] | None) -> Iterator[str]:
    """Serve EC2's metadata, version 2: a token first, then the notice or 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            assert self.path == TOKEN_PATH
            assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self._send(200, TOKEN)

        def do_GET(self) -> None:
            assert self.path == ACTION_PATH
            if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
                self._send(401, "")
            elif answer is None:
                self._send(404, "")
            else:
                self._send(200, json.dumps(answer))

        def _send(self, status: int, body: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def in_seconds(number: float) -> str:
    """Return a time as EC2 writes it."""
    return (datetime.now(UTC) + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_ec2_is_asked_how_long_the_instance_has() -> None:
    with metadata({"action": "terminate", "time": in_seconds(120)}) as url:
        seconds = spot_seconds(url)
    assert seconds == pytest.approx(120, abs=3)
    with metadata({"action": "stop", "time": in_seconds(-5)}) as url:
        assert spot_seconds(url) == 0.0


def test_no_notice_and_no_answer_are_no_notice(caplog: pytest.LogCaptureFixture) -> None:
    with metadata(None) as url:
        assert spot_seconds(url) is None
    assert not caplog.records
    assert spot_seconds(f"http://127.0.0.1:{servers.free_port()}") is None
    with metadata({"action": "terminate", "time": "soon"}) as url:
        assert spot_seconds(url) is None
    assert [record.getMessage() for record in caplog.records] == [
        "event=metadata_unread error=URLError",
        "event=metadata_unread error=ValueError",
    ]


def notice(*options: str, **env: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "jobs.notice", *options]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, env={**os.environ, **env}, text=True, **streams)  # type: ignore[call-overload]


def test_a_sigterm_counts_as_a_notice_and_a_deaf_ray_is_said() -> None:
    watcher = notice(
        "--metadata-url", "", RAY_ADDRESS=f"127.0.0.1:{servers.free_port()}", RAY_AUTH_MODE="disabled"
    )
    time.sleep(3)
    assert watcher.poll() is None
    watcher.send_signal(signal.SIGTERM)
    out, err = watcher.communicate(timeout=90)
    assert out == "this node ends in 25 s; draining it in Ray\n"
    (line,) = err.splitlines()
    assert line.startswith("error: ray did not take the notice: ")
    assert line.endswith("; check RAY_ADDRESS and RAY_AUTH_MODE.")
    assert watcher.returncode == 1


DRAINING = """
import ray
ray.init(log_to_driver=False)
print(" ".join(ray._private.state.state.get_draining_nodes()))
"""


WORKERS = """
import ray
ray.init(log_to_driver=False)
nodes = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" not in node["Resources"]]
print(" ".join(node["NodeID"] for node in nodes))
"""


def asked(code: str, cluster: servers.Cluster) -> list[str]:
    """Return the words that a driver prints."""
    env = {**os.environ, **cluster.env}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.ray
@pytest.mark.usefixtures("second_node")
def test_ray_empties_the_node_that_gets_a_notice(ray_cluster: servers.Cluster) -> None:
    second = asked(WORKERS, ray_cluster)[-1]
    with metadata({"action": "terminate", "time": in_seconds(100)}) as url:
        watcher = notice("--metadata-url", url, "--poll", "0.2", "--node-id", second, **ray_cluster.env)
        out, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, err
    assert "draining it in Ray" in out
    end = time.monotonic() + 60
    while second in servers.alive(ray_cluster):  # a node without work ends soon
        if second in asked(DRAINING, ray_cluster):
            break
        assert time.monotonic() < end, "Ray did not take the notice"

"""Real servers for tests, each in its own processes on the loopback address: a Ray head and MLflow."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
STARTS = 3  # a busy machine may miss Ray's own start deadlines


@dataclass(frozen=True)
class Cluster:
    """A Ray head and the environment that its clients need."""

    address: str  # host:port of the GCS
    dashboard: str  # http://host:port of the job server
    env: Mapping[str, str]


@dataclass(frozen=True)
class MlflowServer:
    """An MLflow server and the process group that it runs in."""

    uri: str
    pid: int


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def ray_head(folder: Path, *, num_cpus: int = 2) -> Iterator[Cluster]:
    """Run `ray start --head` with token authentication until the block ends."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    env["PATH"] = f"{BIN}:{env['PATH']}"  # jobs run the head's `python`
    env.pop("RAY_ADDRESS", None)
    for attempt in range(1, STARTS + 1):
        port, dashboard = free_port(), free_port()
        command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
        command += [f"--port={port}", f"--num-cpus={num_cpus}", "--disable-usage-stats"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--temp-dir=/tmp/ray-{secrets.token_hex(4)}"]  # socket paths have a length limit
        with (folder / f"head-{attempt}.log").open("wb") as log:
            head = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            if _answers(f"http://127.0.0.1:{dashboard}/api/version", head, 90, token.read_text()):
                yield Cluster(
                    address=f"127.0.0.1:{port}",
                    dashboard=f"http://127.0.0.1:{dashboard}",
                    env={
                        "RAY_AUTH_MODE": "token",
                        "RAY_AUTH_TOKEN_PATH": str(token),
                        "RAY_ADDRESS": f"127.0.0.1:{port}",
                        "PATH": env["PATH"],
                    },
                )
                return
        finally:
            _end(head)
    raise RuntimeError(f"the Ray head did not start: {(folder / f'head-{STARTS}.log').read_text()[-2000:]}")


@contextmanager
def mlflow(folder: Path, *, port: int | None = None) -> Iterator[MlflowServer]:
    """Run `mlflow server` on `folder/mlflow.db`, which may be there already, until the block ends."""
    port = port or free_port()
    env = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        if not _answers(f"{uri}/health", process, 120):
            raise RuntimeError(f"MLflow did not start: {(folder / 'server.log').read_text()[-2000:]}")
        yield MlflowServer(uri, process.pid)
    finally:
        _end(process)


def _answers(url: str, process: subprocess.Popen[bytes], seconds: float, token: str | None = None) -> bool:
    """Wait until the address answers; False once the process has ended or time is up."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=3):
                return True
        except OSError:
            time.sleep(0.25)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything it started: they share its session."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue

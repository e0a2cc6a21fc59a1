"""Real servers for tests, each in its own processes on the loopback address: a Ray head and MLflow.

A server ends with the process that started it, however that ends: Ctrl-C, a timeout or SIGKILL.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

BIN = Path(sys.executable).parent
# Runs a command in its own process group and ends the group when its standard input closes: by then the
# process that started it is gone. SIGTERM reaches the group; the guard stays until the command has ended,
# then ends what that left.
_GUARD = """
import os, signal, subprocess, sys, threading
signal.signal(signal.SIGTERM, lambda number, frame: None)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    threading.Timer(5, os.killpg, (0, signal.SIGKILL)).start()
threading.Thread(target=watch, daemon=True).start()
child.wait()
os.killpg(0, signal.SIGKILL)
"""
STARTS = 3  # a busy machine may miss Ray's own start deadlines


@dataclass(frozen=True)
class Cluster:
    """A Ray head and the environment that its clients need."""

    address: str  # host:port of the GCS
    dashboard: str  # http://host:port of the job server
    folder: Path  # logs
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]
    scratch: Path  # Ray's sessions, with the logs of its workers


@dataclass(frozen=True)
class MlflowServer:
    """An MLflow server and the process group that it runs in."""

    uri: str
    pid: int


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def ray_head(
    folder: Path, *, cpus: int = 1, extra: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Cluster]:
    """Run a Ray head with token authentication until the block ends; jobs have the `extra` environment."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **extra}
    env["PATH"] = f"{BIN}:{env['PATH']}"  # jobs run the head's `python`
    env.pop("RAY_ADDRESS", None)
    for attempt in range(1, STARTS + 1):
        port, dashboard, agent = free_port(), free_port(), free_port()
        address, job_server = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        options = [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        options += [f"--dashboard-agent-listen-port={agent}"]
        scratch = f"/tmp/ray-{secrets.token_hex(4)}"  # socket paths have a length limit
        options += [f"--temp-dir={scratch}"]
        head = _ray_node(folder / f"head-{attempt}.log", env, cpus, "--head", *options)
        try:
            is_up = _answers(f"{job_server}/api/version", head, 90, token.read_text())
            # The agent starts the jobs, and joins after the rest.
            agent_url = f"http://127.0.0.1:{agent}/api/local_raylet_healthz"
            if is_up and _answers(agent_url, head, 60, token.read_text()):
                yield Cluster(
                    address=address,
                    dashboard=job_server,
                    folder=folder,
                    env={name: env[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "PATH")}
                    | {"RAY_ADDRESS": address, **extra},
                    process=head,
                    scratch=Path(scratch),
                )
                return
        finally:
            end(head)
            for used in Path("/tmp").glob(f"{Path(scratch).name}*"):
                shutil.rmtree(used, ignore_errors=True)
    raise RuntimeError(f"the Ray head did not start: {(folder / f'head-{STARTS}.log').read_text()[-2000:]}")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that do not run while the block does: what they do cannot be over before it is."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def ray_node(cluster: Cluster, cpus: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Add a node with a raylet of its own until the block ends; yield the process that started it."""
    before = alive(cluster)  # those that ended just now may be among them
    node = start_node(cluster, cpus)
    try:
        _wait(lambda: bool(alive(cluster) - before), cluster)
        yield node
    finally:
        end(node)


def start_node(cluster: Cluster, cpus: int = 1) -> subprocess.Popen[bytes]:
    """Start a node; it joins some seconds later."""
    env = {**os.environ, **cluster.env}
    name = secrets.token_hex(3)
    # A folder of its own, as on a machine of its own: nodes would tread on each other's copy of a job.
    scratch = cluster.scratch.with_name(f"{cluster.scratch.name}-{name}")
    options = [f"--address={cluster.address}", f"--temp-dir={scratch}"]
    return _ray_node(cluster.folder / f"node-{name}.log", env, cpus, *options)


def wait_for_nodes(cluster: Cluster, number: int) -> None:
    """Wait until that number of nodes is alive, the head included."""
    _wait(lambda: num_alive(cluster) >= number, cluster)


def _wait(condition: Callable[[], bool], cluster: Cluster, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(
                f"no Ray node joined; {num_alive(cluster)} are alive; logs in {cluster.folder}"
            )
        time.sleep(0.5)


def ask(cluster: Cluster, path: str) -> Any:
    """Return what the job server answers to a GET."""
    token = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(cluster.dashboard + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def alive(cluster: Cluster) -> set[str]:
    """Return the ids of the nodes that the cluster counts as alive."""
    nodes = ask(cluster, "/nodes?view=summary")["data"]["summary"]
    return {node["raylet"]["nodeId"] for node in nodes if node["raylet"].get("state") == "ALIVE"}


def num_alive(cluster: Cluster) -> int:
    """Return how many nodes the cluster counts as alive."""
    return len(alive(cluster))


def _ray_node(log: Path, env: Mapping[str, str], cpus: int, *options: str) -> subprocess.Popen[bytes]:
    command = [str(BIN / "ray"), "start", "--block", f"--num-cpus={cpus}", "--disable-usage-stats", *options]
    # Several raylets on a host must not share Ray's fixed range of worker ports.
    command += ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
    command += ["--include-log-monitor=false"]  # copies workers' logs to drivers, which do not read them
    env = {
        **env,
        "RAY_worker_maximum_startup_concurrency": "16",  # Ray warns of more processes than CPUs
        "RAY_worker_niceness": "0",  # Ray's 15 lets the other tests' processes go first
        "REPORTER_UPDATE_INTERVAL_MS": "60000",  # figures for the dashboard, which no test reads
    }
    return guarded(command, env, log)


def guarded(command: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, which ends with this process; log its output."""
    words = [sys.executable, "-S", "-c", _GUARD, *command]
    with log.open("wb") as file:
        return subprocess.Popen(
            words, env=env, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
        )


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
    process = guarded(command, env, folder / "server.log")
    uri = f"http://127.0.0.1:{port}"
    try:
        if not _answers(f"{uri}/health", process, 120):
            raise RuntimeError(f"MLflow did not start: {(folder / 'server.log').read_text()[-2000:]}")
        yield MlflowServer(uri, process.pid)
    finally:
        end(process)


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


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything it started: they share its session."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    if process.stdin is not None:
        process.stdin.close()

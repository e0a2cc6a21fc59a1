"""A whole cluster on this machine for drills: a head, worker nodes, an S3 server and MLflow, all processes.

Clients reach S3 through a proxy that can lose and break what passes. The head runs jobs and no training.
"""

import os
import re
import signal
import sqlite3
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from tests import s3, servers
from tests.sweeps import ROOT

NUM_NODES = 3
MEND_SECONDS = 240.0
STOP_SECONDS = 30  # from SIGTERM to SIGKILL, as the recipes under cluster/ set it
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# What may be killed, by a word in its command line.
ROLES = {
    "train worker": "ray::RayTrainWorker",
    "train controller": "ray::TrainController",
    "trial driver": "ray::ImplicitFunc",
    "broker": "ray::Broker",
    "leases": "ray::LocalLeases",
    "sweep driver": "-m jobs.sweep",
}
REPEATS = "SELECT COUNT(*) AS number FROM metrics GROUP BY run_uuid, key, step"
EPOCH = re.compile(r"(\S+ \S+) \S+ \S+ event=epoch_ended epoch=(\d+) of=")
TAKEN = re.compile(r"event=stage_taken stage=(\w+) key=(\w+) group=\S+ rank=(\d+)")


@dataclass
class Work:
    """The epochs that workers ran, and how long each took that followed another one."""

    epochs: Counter[tuple[str, int]] = field(default_factory=Counter)  # (stage key, epoch) -> times
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by stage key
    taken: Counter[str] = field(default_factory=Counter)  # stage key -> times that a group took it


@dataclass
class Rig:
    """The running servers; made by `rig`."""

    folder: Path
    cluster: servers.Cluster
    proxy: s3.Proxy
    bucket: str
    num_nodes: int
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    mlflow: servers.MlflowServer | None = None
    _mlflow: ExitStack = field(default_factory=ExitStack)
    _mlflow_port: int = field(default_factory=servers.free_port)

    @property
    def client(self) -> dict[str, str]:
        """The environment of whoever submits jobs."""
        env = {**os.environ, **self.cluster.env}
        env.pop("RAY_ADDRESS")
        return env | {"RAY_API_SERVER_ADDRESS": self.cluster.dashboard}

    def store(self, name: str) -> tuple[str, Artifacts]:
        """Return a store's URI and the store, reached without the proxy's faults where none are on."""
        blobs: Blobs = S3Blobs(self.bucket, name)
        return f"s3://{self.bucket}/{name}", Artifacts(blobs)

    def start_mlflow(self) -> None:
        """Start MLflow, again on the same database."""
        self.mlflow = self._mlflow.enter_context(servers.mlflow(self.folder, port=self._mlflow_port))

    def kill_mlflow(self) -> None:
        """Kill -9 the server with everything it started."""
        assert self.mlflow is not None
        os.killpg(self.mlflow.pid, signal.SIGKILL)

    @property
    def tracking_uri(self) -> str:
        """Where MLflow answers, when it runs."""
        return f"http://127.0.0.1:{self._mlflow_port}"

    def submit(self, study: Path, store: str, *options: str) -> str:
        """Submit a sweep with `ray job submit`; return the job's id."""
        job = f"sweep-{uuid.uuid4().hex[:8]}"
        words = [str(servers.BIN / "ray"), "job", "submit", "--no-wait", "--submission-id", job]
        words += ["--working-dir", str(ROOT)]
        words += ["--", "python", "-m", "jobs.sweep", str(study), "--store", store]
        words += ["--tracking-uri", self.tracking_uri, *options]
        done = subprocess.run(
            words, env=self.client, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return job

    def status(self, job: str) -> str:
        """Return what Ray says of the job."""
        return str(servers.ask(self.cluster, f"/api/jobs/{job}")["status"])

    def logs(self, job: str) -> str:
        """Return what the job printed."""
        return str(servers.ask(self.cluster, f"/api/jobs/{job}/logs")["logs"])

    def wait(self, job: str, seconds: float = 600) -> str:
        """Return the job's end."""
        self.until(lambda: self.status(job) in ENDED, f"job {job} ends", seconds, pause=1.0)
        return self.status(job)

    def until(
        self, condition: Callable[[], bool], what: str, seconds: float = 300, *, pause: float = 0.4
    ) -> None:
        """Return once the condition holds; look after each `pause`: the servers that answer take CPU time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {seconds:g} s")
            time.sleep(pause)

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the processes of this cluster in that role, by id."""
        if role == "raylet":
            trainers = {worker.pid for worker in self.processes("train worker")}
            each = [_below(node.pid) for node in self.nodes]
            # Nodes that train come first.
            each.sort(key=lambda below: not trainers & {process.pid for process in below})
            return [process for below in each for process in below if _name(process) == "raylet"]
        word = ROLES[role]
        found = [p for pid in self._roots() for p in _below(pid) if word in _line(p)]
        if role == "sweep driver":  # the shell that the job's supervisor starts has the same words
            found = [p for p in found if "python" in _name(p)]
        return sorted(found, key=lambda one: one.pid)

    def kill(self, role: str, number: int = 0) -> int:
        """Kill -9 one process in that role; return its id. Of a raylet the whole node goes."""
        self.until(lambda: len(self.processes(role)) > number, f"a {role} runs")
        process = self.processes(role)[number]
        process.send_signal(signal.SIGKILL)
        return process.pid

    def node_of(self, process: psutil.Process) -> subprocess.Popen[bytes]:
        """Return the node that a process belongs to."""
        return next(node for node in self.nodes if process in _below(node.pid))

    def end_nodes(self) -> None:
        """End all worker nodes."""
        for node in self.nodes:
            servers.end(node)

    def restart_nodes(self) -> None:
        """Start as many nodes as are missing, one after the other: a busy machine may need several tries.

        The head may count a killed node as alive for a while, so processes are what is looked at.
        """
        end = time.monotonic() + MEND_SECONDS
        while True:
            alive = [node for node in self.nodes if node.poll() is None and _has_raylet(node)]
            for node in self.nodes:
                if node not in alive:
                    servers.end(node)
            self.nodes = alive
            if len(alive) == self.num_nodes:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{len(alive)} nodes instead of {self.num_nodes}; logs in {self.folder}")
            self.nodes.append(servers.start_node(self.cluster))
            with suppress(TimeoutError):
                self.until(lambda: self.nodes[-1].poll() is not None or _has_raylet(self.nodes[-1]), "", 45)
            time.sleep(2)

    def work(self) -> Work:
        """Return what all workers have trained so far, from their logs."""
        return work_of(self.worker_logs())

    def worker_logs(self) -> list[str]:
        """Return what each worker process wrote to its own log."""
        return worker_logs(self.cluster)

    def _roots(self) -> list[int]:
        return [self.cluster.process.pid, *(node.pid for node in self.nodes)]


def written(cluster: servers.Cluster) -> dict[Path, int]:
    """Return how many bytes each log of a cluster's worker processes has by now."""
    scratch = cluster.scratch
    files = scratch.parent.glob(f"{scratch.name}*/session_2*/logs/worker-*.err")
    return {file: file.stat().st_size for file in files}


def worker_logs(cluster: servers.Cluster, before: Mapping[Path, int] = MappingProxyType({})) -> list[str]:
    """Return what each worker process of a cluster's nodes wrote to its own log; `before`: bytes left out,
    those of earlier sweeps on a cluster that several tests use."""
    return [file.read_bytes()[before.get(file, 0) :].decode(errors="replace") for file in written(cluster)]


def work_of(logs: Iterable[str]) -> Work:
    """Return what workers have trained and taken, from their logs."""
    work = Work()
    for log in logs:
        key, before = "", None
        for line in log.splitlines():
            if found := TAKEN.search(line):
                key, before = found[2] if found[3] == "0" else "", None
                work.taken[key] += found[3] == "0"
            elif (found := EPOCH.match(line)) and key:
                now = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f")
                work.epochs[key, int(found[2])] += 1
                if before is not None:
                    work.seconds.setdefault(key, []).append((now - before).total_seconds())
                before = now
    return work


@contextmanager
def rig(folder: Path, num_nodes: int = NUM_NODES) -> Iterator[Rig]:
    """Run everything until the block ends; this process's own S3 clients use the proxy too."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3.server())
        proxy = stack.enter_context(s3.Proxy(endpoint))
        extra = {
            **s3.CREDENTIALS,
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        }
        stack.enter_context(_environment(extra))
        cluster = stack.enter_context(servers.ray_head(folder, cpus=0, extra=extra))
        running = Rig(folder, cluster, proxy, s3.new_bucket(endpoint), num_nodes)
        stack.callback(lambda: running.end_nodes())
        running.start_mlflow()
        stack.enter_context(running._mlflow)
        running.restart_nodes()
        servers.wait_for_nodes(cluster, num_nodes + 1)
        yield running


def tracked(rig: Rig, study: str) -> dict[str, Any]:
    """Return what MLflow's database holds of a study: statuses, trials and points tracked twice."""
    select = (
        "SELECT r.run_uuid, r.status, k.value, t.value FROM runs r JOIN experiments e "
        "ON r.experiment_id = e.experiment_id "
        "JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'inversion.kind' "
        "LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'inversion.trial' "
        "WHERE e.name = ? AND r.lifecycle_stage = 'active'"
    )
    with closing(sqlite3.connect(rig.folder / "mlflow.db", timeout=60)) as connection:
        rows = connection.execute(select, (study,)).fetchall()
        most = connection.execute(f"SELECT MAX(number) FROM ({REPEATS})").fetchone()[0]
    return {
        "sweeps": [status for _, status, kind, _ in rows if kind == "sweep"],
        "trials": Counter(status for _, status, kind, _ in rows if kind == "trial"),
        "distinct": len({trial for _, _, kind, trial in rows if kind == "trial"}),
        "most_points_a_step": most,
    }


def table(store: Artifacts, study: str) -> bytes:
    """Return the results of the store's sweep of that study; raise if there are several."""
    found = []
    for name in store.blobs.names("sweeps/"):
        if name.endswith("report/results.csv"):
            yaml = store.blobs.get(name.replace("results.csv", "study.yaml")) or b""
            if f"study: {study}\n".encode() in yaml:
                found.append(store.blobs.get(name) or b"")
    (one,) = found
    return one


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _has_raylet(node: subprocess.Popen[bytes]) -> bool:
    return any(_name(process) == "raylet" for process in _below(node.pid))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

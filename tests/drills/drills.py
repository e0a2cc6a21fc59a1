"""Fault drills on a whole cluster: `python -m tests.drills.drills [NAME ...]` prints a table with figures.

Every drill runs the same small study, does one harm to it, and ends with the same table as an undisturbed run
in one process, every trial tracked in MLflow once, nothing left running and at most one checkpoint interval
of work done twice for each kill.
"""

import argparse
import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestrator.store.artifacts import Artifacts
from tests import servers, sweeps
from tests.drills.rig import Rig, rig, table, tracked
from tests.sweeps import ROOT, TRIALS, events, run_locally

CHECKPOINT_SECONDS = 0.5
SAVING_SECONDS = 1.0  # on a busy machine: one epoch to its end, and its state into the store
STOPS_BOTH = ("sweep driver", "broker")  # whose death both groups feel


def write_study(folder: Path, name: str, seeds: int = 1) -> Path:
    """Write the drill's study under a name of its own, so that each drill has an MLflow experiment."""
    resources = f"{{checkpoint_seconds: {CHECKPOINT_SECONDS}, groups: 2}}"
    more = f"  seed: {list(range(seeds))}\nresources: {resources}\n"
    return sweeps.write_study(folder, name, short=4, epochs=12, attack_epochs=60, more=more)


@dataclass
class Drill:
    """One sweep on the rig, watched from outside."""

    rig: Rig
    name: str
    folder: Path
    reference: bytes  # the table of an undisturbed run
    seeds: int = 1
    store_uri: str = ""
    store: Artifacts = field(init=False)
    study: Path = field(init=False)
    jobs: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # keys of stages that have to be built again
    before: Counter[tuple[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.study = write_study(self.folder, self.name, self.seeds)
        self.store_uri, self.store = self.rig.store(self.name)
        self.before = self.rig.work().epochs  # by the drills that came first: their stages have the same keys

    def submit(self, *options: str) -> str:
        """Submit the sweep, the same command each time."""
        self.jobs.append(self.rig.submit(self.study, self.store_uri, *options))
        return self.jobs[-1]

    def reach(self, artifacts: int) -> None:
        """Wait until `artifacts` stages are published."""
        job = self.jobs[-1]

        def is_there() -> bool:
            if len(self.store.keys()) >= artifacts:
                return True
            status = self.rig.status(job)
            assert status in ("PENDING", "RUNNING"), f"{job} {status} too early: {self.rig.logs(job)[-3000:]}"
            return False

        self.rig.until(is_there, f"{artifacts} stages of {self.name} are published")

    def training(self) -> None:
        """Wait until a training has left a checkpoint: the next kill falls into it."""
        self.rig.until(lambda: bool(self.store.blobs.names("checkpoints/")), "a training leaves a checkpoint")

    def kill(self, role: str) -> None:
        """Kill -9 one process in that role."""
        self.rig.kill(role)
        self.killed.append(role)

    def end(self, want: str = "SUCCEEDED") -> None:
        """Wait for the last job's end."""
        status = self.rig.wait(self.jobs[-1])
        assert status == want, f"{status} instead of {want}: {self.rig.logs(self.jobs[-1])[-4000:]}"

    def redone(self) -> tuple[int, float]:
        """Return how many epochs were run more than once, and how many seconds of training they were."""
        work = self.rig.work()
        again: Counter[str] = Counter()
        for (key, _), times in (work.epochs - self.before).items():
            if key not in self.damaged:
                again[key] += times - 1
        seconds = sum(times * statistics.mean(work.seconds.get(key, [0.0])) for key, times in again.items())
        return again.total(), seconds

    def check(self) -> None:
        """Hold the sweep against everything that must be so after any harm."""
        assert table(self.store, self.name) == self.reference, "another table"
        self.rig.until(
            lambda: tracked(self.rig, self.name)["sweeps"] == ["FINISHED"], "MLflow is up to date", 60
        )
        mlflow = tracked(self.rig, self.name)
        trials = TRIALS * self.seeds
        assert (mlflow["trials"], mlflow["distinct"]) == ({"FINISHED": trials}, trials), mlflow
        assert mlflow["most_points_a_step"] == 1, mlflow
        left = self.store.blobs.names("checkpoints/")  # of a worker that outlived its raylet for a moment
        assert all(self.store.find(Path(name).stem) for name in left), "a stage is unfinished"
        assert not left or "raylet" in self.killed, "a checkpoint was left"
        assert not self.store.blobs.names("conflicts/"), "two runs of a stage gave different bytes"
        stopped = sum(2 if role in STOPS_BOTH else 1 for role in self.killed)
        epochs, seconds = self.redone()
        assert seconds <= stopped * (CHECKPOINT_SECONDS + SAVING_SECONDS), f"{epochs} epochs, {seconds:.2f} s"


def kill_one(role: str) -> Callable[[Drill], None]:
    """Return a drill that kills one process in the middle of a training."""

    def act(drill: Drill) -> None:
        drill.submit()
        drill.reach(3)
        drill.training()
        drill.kill(role)
        if role == "raylet":
            drill.rig.restart_nodes()
        drill.end()

    return act


def kill_early(drill: Drill) -> None:
    """Kill controllers while their groups start, again and again: what they had reserved must come free."""
    drill.submit()
    for _ in range(4):
        drill.kill("train controller")
        time.sleep(6)
    drill.end()


def kill_driver(drill: Drill) -> None:
    """Kill the sweep's own process, then submit the same command again."""
    drill.submit()
    drill.reach(3)
    drill.training()
    before = {key: drill.store.find(key) for key in drill.store.keys()}  # noqa: SIM118 - a store is no dict
    drill.kill("sweep driver")
    drill.end("FAILED")
    drill.submit()
    drill.end()
    assert all(drill.store.find(key) == artifact for key, artifact in before.items()), "a stage was repeated"


def stop_job(drill: Drill) -> None:
    """`ray job stop`: SIGTERM, SIGKILL 30 s later. No epoch is run again, though none was saved before."""
    options = ["--set", "resources.checkpoint_seconds=600"]
    drill.submit(*options)
    drill.reach(6)
    began = time.monotonic()
    words = ["ray", "job", "stop", drill.jobs[-1]]
    subprocess.run(words, env=drill.rig.client, capture_output=True, check=True, timeout=60)
    drill.end("STOPPED")
    print(f"    stopped within {time.monotonic() - began:.1f} s")
    assert tracked(drill.rig, drill.name)["sweeps"] == ["KILLED"]
    assert events(drill.store, "interrupted"), "the journal does not say that the sweep was interrupted"
    assert "interrupted; the same command goes on from here" in drill.rig.logs(drill.jobs[-1])
    drill.submit(*options)
    drill.end()
    assert drill.redone()[0] == 0, "a training was not saved"


def end_node(drill: Drill) -> None:
    """A node gets SIGTERM and SIGKILL 30 s later, as a pod that is taken away: its training moves before."""
    drill.submit()
    drill.reach(3)
    drill.training()
    worker = drill.rig.processes("train worker")[0]
    node = drill.rig.node_of(worker)
    began = time.monotonic()
    psutil.Process(node.pid).children()[0].send_signal(signal.SIGTERM)  # its guard keeps SIGTERM to itself
    drill.rig.until(lambda: not worker.is_running(), "the worker leaves", 30)
    print(f"    the worker had saved and left {time.monotonic() - began:.1f} s after the notice")
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.wait(30 - (time.monotonic() - began))
    servers.end(node)
    drill.rig.restart_nodes()
    drill.end()


def mlflow_down(drill: Drill) -> None:
    """MLflow dies in mid-sweep and comes back after 60 s."""
    drill.submit()
    drill.reach(6)
    drill.rig.kill_mlflow()
    time.sleep(60)
    drill.rig.start_mlflow()
    drill.end()


def s3_down(drill: Drill) -> None:
    """S3 answers 503 for 15 s and resets every connection for 15 s."""
    drill.submit()
    drill.reach(5)
    for fault in ("503", "reset"):
        drill.rig.proxy.fail(fault, 15.0)
        time.sleep(15.0)
    drill.end()


def bad_bytes(drill: Drill) -> None:
    """Bodies arrive cut and with a flipped bit; an artifact rots at rest."""
    drill.submit()
    drill.reach(4)
    drill.rig.proxy.faults += [("GET", "cut"), ("GET", "flip"), ("GET", "cut"), ("GET", "flip")]
    rotten = next(key for key in drill.store.keys())  # noqa: SIM118
    artifact = drill.store.find(rotten)
    assert artifact is not None
    drill.damaged.append(rotten)
    file = max(artifact.files.values(), key=lambda one: one.size)
    data = bytearray(drill.store.blobs.get(file.object) or b"")
    data[len(data) // 2] ^= 1
    drill.store.blobs.put(file.object, bytes(data))
    drill.end()
    drill.submit()  # whoever reads the rotten file takes it out of the way; it is built again
    drill.end()


def two_sweeps(drill: Drill) -> None:
    """Two sweeps that share stages run at the same time on one store."""
    other = write_study(drill.folder, f"{drill.name}-other")
    text = other.read_text().replace("release.truncation: [1, 3]", "release.truncation: [1, 2, 3]")
    other.write_text(text)
    drill.submit()
    second = drill.rig.submit(other, drill.store_uri)
    drill.end()
    assert drill.rig.wait(second) == "SUCCEEDED", drill.rig.logs(second)[-3000:]
    built = [key for event in events(drill.store, "ended") for key in event["built"]]
    assert len(built) == len(set(built)), "a shared stage was built twice"
    assert set(built) == set(drill.store.keys())
    assert drill.redone()[0] == 0


def bad_data(drill: Drill) -> None:
    """A set on S3 whose shards arrive with a flipped bit and cut, read through a node cache without room."""
    data = f"{drill.store_uri}-data"
    words = [sys.executable, "-m", "jobs.stage_data", "digits", data, "--name", "numbers"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    options = ["--set", "data.dataset=numbers", "--set", "data.split=default", "--data", data]
    drill.reference = run_locally(drill.study, drill.folder / "numbers", *options)
    left = ["cut", "flip", "cut", "flip"]

    def harm(method: str, path: str) -> None:
        if method == "GET" and "/images-" in path and left:
            drill.rig.proxy.faults.insert(0, ("GET", left.pop()))

    with full_disk(drill.folder / "cache") as cache:
        drill.rig.proxy.on_request = harm
        drill.submit(*options, "--cache", str(cache))
        drill.end()
        drill.rig.proxy.on_request = lambda method, path: None
        assert not left, "no shard was read"
        assert any("event=cache_full" in log for log in drill.rig.worker_logs()), "the cache had room"


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system without room for a shard."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def nan_loss(drill: Drill) -> None:
    """Half of the trials have a step size at which the loss is soon no number."""
    drill.submit()
    drill.end()
    study = drill.folder / f"{drill.name}-diverging.yaml"
    text = drill.study.read_text().replace(f"study: {drill.name}", f"study: {study.stem}")
    study.write_text(text.replace("sweep:", "sweep:\n  target.recipe.learning_rate: [0.001, 1.0e+30]"))
    job = drill.rig.submit(study, drill.store_uri)
    assert drill.rig.wait(job) == "FAILED"
    printed = drill.rig.logs(job)
    assert printed.count("failed in stage target: the training loss is") == TRIALS, printed[-3000:]
    assert "in epoch 1 of 12, batch" in printed
    assert f"trials: {TRIALS} finished, {TRIALS} failed, 0 pruned" in printed
    (mlflow,) = [tracked(drill.rig, study.stem)["trials"]]
    assert mlflow == {"FINISHED": TRIALS, "FAILED": TRIALS}


DRILLS: dict[str, Callable[[Drill], None]] = {
    "kill-train-worker": kill_one("train worker"),
    "kill-trial-driver": kill_one("trial driver"),
    "kill-raylet": kill_one("raylet"),
    "kill-train-controller": kill_one("train controller"),
    "kill-starting-groups": kill_early,
    "kill-broker": kill_one("broker"),
    "kill-leases": kill_one("leases"),
    "kill-sweep-driver": kill_driver,
    "stop-job": stop_job,
    "node-sigterm-30s": end_node,
    "mlflow-down-60s": mlflow_down,
    "s3-down-30s": s3_down,
    "bad-bytes": bad_bytes,
    "bad-data-full-cache": bad_data,
    "nan-loss": nan_loss,
    "two-sweeps": two_sweeps,
}


def run(names: Sequence[str], folder: Path) -> list[str]:
    """Run drills one after the other on one rig; return those that failed."""
    reference = run_locally(write_study(folder, "reference"), folder / "reference")
    failed = []
    with rig(folder) as running:
        print(f"{'drill':24}{'kills':>6}{'epochs redone':>15}{'their s':>9}{'all s':>7}", flush=True)
        for name in names:
            drill, began = Drill(running, name, folder, reference), time.monotonic()
            try:
                DRILLS[name](drill)
                drill.check()
                words = "same table"
            except (AssertionError, TimeoutError, ValueError) as error:
                words = f"FAILED: {error}"
                failed.append(name)
            spent = time.monotonic() - began
            epochs, seconds = drill.redone()
            print(f"{name:24}{len(drill.killed):6}{epochs:15}{seconds:9.2f}{spent:7.0f}  {words}", flush=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *DRILLS], help="drills; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drills-") as scratch:
        sys.exit(bool(run(arguments.names or list(DRILLS), Path(scratch))))

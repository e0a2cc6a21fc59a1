"""Sweeps on a real Ray head with token authentication, S3 over HTTP and MLflow; faults are real kills."""

import csv
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow.entities import Run

from orchestrator.config.base import Refused
from orchestrator.runtime.matrix_units import units_here
from orchestrator.runtime.open_store import open_blobs
from orchestrator.runtime.ray.connect import job_config, num_drivers, start_ray
from orchestrator.store.artifacts import Artifact, Artifacts
from tests.servers import Cluster, ray_node
from tests.sweeps import ROOT, command, events, run, run_locally, table, write_study

TWO_TRIALS = ["--set", "sweep={auxiliary.kind: [distinct], target.budget: [block2]}", "--ship-later"]

FURTHER_JUDGE = (
    "judges.classifiers={b: {model: {name: ami-digit, width: 0.0625}, seed: 7, images: auxiliary, "
    "recipe: {epochs: 2, batch_size: 32, learning_rate: 0.001}}}"
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.mark.parametrize("is_installed", [True, False])
def test_workers_import_this_package_and_nothing_of_the_working_directory(
    is_installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if is_installed:
        monkeypatch.setattr("site.getsitepackages", lambda: [str(ROOT)])
    config = job_config()
    config._py_driver_sys_path.extend(["/a/bin", str(tmp_path)])  # as Ray does: script and working directory
    sent = list(config._get_proto_job_config().py_driver_sys_path)
    assert sent == ["/a/bin", *([] if is_installed else [str(ROOT)])]


def runs(uri: str, study: str) -> tuple[list[Run], list[Run]]:
    """Return the parents and the children of a study's experiment."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [one for one in found if one.data.tags["inversion.kind"] == "sweep"]
    return parents, [one for one in found if one.data.tags["inversion.kind"] == "trial"]


@pytest.fixture(scope="module")
def env(ray_cluster: Cluster) -> dict[str, str]:
    return {**os.environ, **ray_cluster.env}


@dataclass(frozen=True)
class Killed:
    """A sweep whose driver was killed, then a worker of its second start, which ended."""

    study: Path
    out: Path
    before: Mapping[str, Artifact | None]  # of the first start
    exit_code: int
    printed: str  # by the second start

    @property
    def store(self) -> Artifacts:
        return Artifacts(open_blobs(str(self.out / "store")))

    @property
    def groups(self) -> dict[str, Any]:
        """The second start's event of its worker groups."""
        return events(self.store, "groups")[-1]


@pytest.fixture(scope="module")
def killed(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    study, out = write_study(folder, "killed", epochs=8, attack_epochs=20), folder / "out"
    store = Artifacts(open_blobs(str(out / "store")))
    driver = subprocess.Popen(command(study, out), cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    wait_for_artifacts(store, 4, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {key: store.find(key) for key in store.keys()}  # noqa: SIM118

    again = subprocess.Popen(command(study, out), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    wait_for_artifacts(store, len(before) + 2, again)
    kill_a_worker()
    printed, _ = again.communicate(timeout=380)
    return Killed(study, out, before, again.returncode, printed)


def test_a_killed_driver_and_a_killed_worker_leave_no_trace(killed: Killed, tmp_path: Path) -> None:
    assert killed.exit_code == 0, killed.printed
    assert table(killed.out, killed.study) == run_locally(killed.study, tmp_path / "undisturbed")
    repeated = [key for key, artifact in killed.before.items() if killed.store.find(key) != artifact]
    assert not repeated, "a finished stage was repeated"
    starts = killed.groups["starts"]
    assert sum(starts.values()) > len(starts), "no worker group was started again: the kill missed"
    assert not killed.store.blobs.names("checkpoints/")
    parents, children = runs(f"sqlite:///{killed.out / 'mlflow.db'}", "killed")
    assert [one.info.status for one in parents] == ["FINISHED"]
    assert Counter(one.data.tags["inversion.trial"] for one in children).most_common(1)[0][1] == 1
    assert [one.info.status for one in children] == ["FINISHED"] * 8


def test_stored_points_cost_next_to_nothing_and_groups_fit_the_slots(
    killed: Killed, env: dict[str, str]
) -> None:
    assert len(killed.groups["starts"]) <= int(killed.groups["slots"]) <= 2
    kept = table(killed.out, killed.study)
    assert len(list(csv.DictReader(kept.decode().splitlines()))) == 8
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = run(command(killed.study, killed.out, "--ship-later"), env)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert again.returncode == 0
    assert table(killed.out, killed.study) == kept
    assert "stages run/reused: 0/" in again.stdout
    assert (now.ru_utime + now.ru_stime) - (spent.ru_utime + spent.ru_stime) < 2.0 * 8


def test_a_stage_waits_for_each_group_but_no_more_than_two() -> None:
    assert [num_drivers(groups) for groups in (1, 2, 3, 16)] == [2, 4, 5, 18]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_folder_for_temporary_files_is_refused_with_the_setting_that_helps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("TMPDIR", "RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(other, raising=False)
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv(name, str(long))
    match = rf"^{name}={long} is too long: .* limit; set RAY_TMPDIR to a short folder, such as /tmp\.$"
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Refused, match=match):
            start_ray()
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray leaves its own


def test_two_pools_that_do_not_fit_wait_for_a_node_and_take_turns_on_it(
    ray_cluster: Cluster, env: dict[str, str], tmp_path: Path
) -> None:
    study = write_study(tmp_path, "wide")
    settings = ("threads=2", "stages.judge.threads=3", "stages.judge.precision=bfloat16")
    wide = [word for setting in settings for word in ("--set", f"resources.{setting}")]
    wide += [*TWO_TRIALS, "--set", FURTHER_JUDGE, "--set", "target.model.width=0.25"]
    refused = run(command(study, tmp_path / "out", *wide), env)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "error: resources.workers=1 need 1 x (2 CPU), but the cluster has 1 x (1 CPU); lower resources, add "
        "nodes, or pass --wait-for-nodes MINUTES where an autoscaler will."
    )
    words = [*command(study, tmp_path / "out", *wide), "--wait-for-nodes", "5"]
    waiting = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    line = next(line for line in waiting.stdout if "waiting for nodes" in line)
    assert re.search(r"stages need 1 x \([23] CPU\); the cluster has 1 x \(1 CPU\); ", line)
    assert line.endswith(" min until they fail.\n")
    with ray_node(ray_cluster, cpus=3):
        printed, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, printed
    assert "trials: 2 finished, 0 failed, 0 pruned" in printed
    store = Artifacts(open_blobs(str(tmp_path / "out" / "store")))
    (groups,) = events(store, "groups")
    assert len(dict(groups["starts"])) >= 2
    found = [artifact for key in store.keys() if (artifact := store.find(key))]  # noqa: SIM118
    (precision,) = events(store, "precision")
    assert (precision["device"], precision["are_there"]) == ("cpu", units_here("cpu").are_there)
    wide_ones = {"pretrain", "target"} if precision["are_there"] else set()
    assert {a.stage for a in found if a.profile["precision"] == "bfloat16"} == {"judge", *wide_ones}
    assert {(a.stage == "judge", a.profile["threads"]) for a in found} == {(True, 3), (False, 2)}
    stages = [a.stage for a in found]
    assert (stages.count("judge"), stages.count("judgement")) == (2, 2)  # one judges again what is stored
    assert table(tmp_path / "out", study) == run_locally(study, tmp_path / "local", *wide)


@pytest.mark.usefixtures("second_node")
def test_two_workers_on_two_nodes_search_with_optuna_and_asha(env: dict[str, str], tmp_path: Path) -> None:
    search = """
search:
  algorithm: optuna
  samples: 6
  batch: 3
  objectives: {inversion/mse_test: minimize, inversion/ssim_test: maximize}
  scheduler: {grace_epochs: 2, reduction_factor: 2}
"""
    study = write_study(tmp_path, "searched", attack_epochs=12, more=search)
    words = command(study, tmp_path / "out", "--set", "resources.workers=2", "--ship-later")
    done = run(words, env)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Artifacts(open_blobs(str(tmp_path / "out" / "store")))
    (groups,) = events(store, "groups")
    assert list(dict(groups["starts"]).values()) == [1], "one group of two workers"
    targets = [a for key in store.keys() if (a := store.find(key)) and a.stage == "target"]  # noqa: SIM118
    assert {artifact.profile["workers"] for artifact in targets} == {2}
    assert all(artifact.metrics["target/accuracy"] > 0.8 for artifact in targets)
    rows = list(csv.DictReader(table(tmp_path / "out", study).decode().splitlines()))
    status = Counter(row["status"] for row in rows)
    assert status["finished"] >= 1
    assert status["pruned"] >= 1
    assert sum(status.values()) == 6
    assert next((tmp_path / "out").glob("searched*/pareto.csv")).exists()


LEASES = """
import sys, time, ray
from orchestrator.runtime.ray.leases import RayLeases
ray.init(log_to_driver=False)
leases = RayLeases("s3://bucket/store")
owner = sys.argv[1]
first = leases.acquire("stage", owner, 6.0)
again = leases.acquire("stage", owner, 6.0)
leases.release("stage", "somebody else")
if owner == "second":
    while not leases.acquire("stage", owner, 60.0):
        time.sleep(0.2)
print(first, again, leases.acquire("stage", "third", 1.0), flush=True)
"""


def test_a_dead_sweeps_lease_is_taken_over_by_another(env: dict[str, str]) -> None:
    first = run([sys.executable, "-c", LEASES, "first"], env)
    assert first.stdout.split() == ["True", "True", "False"], first.stderr
    # The first process ended without releasing: its lease runs out by itself.
    second = run([sys.executable, "-c", LEASES, "second"], env)
    assert second.stdout.split()[-1] == "False", second.stderr


def wait_for_artifacts(store: Artifacts, count: int, process: subprocess.Popen) -> None:
    """Wait until so many stages are published while the process runs."""
    end = time.monotonic() + 200
    while len(store.keys()) < count:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < end, "the sweep published nothing"
        time.sleep(0.05)


def kill_a_worker() -> None:
    """Kill -9 one Ray Train worker of this cluster."""
    workers = [
        p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])
    ]
    assert workers, "no Ray Train worker runs"
    workers[0].kill()

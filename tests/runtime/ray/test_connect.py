"""Sweeps on a real Ray head with token authentication, S3 over HTTP and MLflow; faults are real kills."""

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.entities import Run

from orchestrator.config.base import Refused
from orchestrator.runtime.open_store import open_blobs
from orchestrator.runtime.ray.connect import start_ray
from orchestrator.store.artifacts import Artifacts
from tests.servers import Cluster, ray_node
from tests.sweeps import ROOT, command, events, run, run_locally, table, write_study

TWO_TRIALS = ["--set", "sweep={auxiliary.kind: [distinct], target.budget: [block2]}", "--ship-later"]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def stage_names(store: Artifacts) -> Counter[str]:
    found = [store.find(key) for key in store.keys()]  # noqa: SIM118 - a store is no dict
    return Counter(artifact.stage for artifact in found if artifact)


def runs(uri: str, study: str) -> tuple[list[Run], list[Run]]:
    """Return the parents and the children of a study's experiment."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [one for one in found if one.data.tags["inversion.kind"] == "sweep"]
    return parents, [one for one in found if one.data.tags["inversion.kind"] == "trial"]


@pytest.fixture
def env(ray_cluster: Cluster) -> dict[str, str]:
    return {**os.environ, **ray_cluster.env}


@pytest.mark.mlflow
def test_a_submitted_job_equals_the_local_run(
    ray_cluster: Cluster, env: dict[str, str], s3_uri: str, mlflow_server: str, tmp_path: Path
) -> None:
    study = write_study(tmp_path, "submitted")
    data = f"{s3_uri}-data"
    staged = run([sys.executable, "-m", "jobs.stage_data", "digits", data, "--name", "numbers"], env)
    assert staged.returncode == 0, staged.stderr
    options = ["--set", "data.dataset=numbers", "--set", "data.split=default", "--data", data]

    copy = (
        ROOT / "jobs" / "studies" / f"test-{tmp_path.name}.yaml"
    )  # what is submitted travels in the working dir
    copy.write_bytes(study.read_bytes())
    try:
        submit = [
            str(Path(sys.executable).parent / "ray"),
            "job",
            "submit",
            "--address",
            ray_cluster.dashboard,
        ]
        submit += ["--working-dir", ".", "--", "python", "-m", "jobs.sweep", f"jobs/studies/{copy.name}"]
        submit += [*options, "--store", s3_uri, "--tracking-uri", mlflow_server]
        done = run(submit, {name: value for name, value in env.items() if name != "RAY_ADDRESS"})
    finally:
        copy.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    store = Artifacts(open_blobs(s3_uri))
    (name,) = [n for n in store.blobs.names("sweeps/") if n.endswith("report/results.csv")]
    assert store.blobs.get(name) == run_locally(study, tmp_path / "local", *options)

    parents, children = runs(mlflow_server, "submitted")
    assert [one.info.status for one in parents] == ["FINISHED"]
    assert [one.info.status for one in children] == ["FINISHED"] * 8
    # Each distinct classifier was trained once: two budgets, one public network, one judge.
    assert {n: stage_names(store)[n] for n in ("pretrain", "target", "judge")} == {
        "pretrain": 1,
        "target": 2,
        "judge": 1,
    }
    assert "testing-secret-never-printed" not in done.stdout + done.stderr


def test_a_killed_driver_and_a_killed_worker_leave_no_trace(env: dict[str, str], tmp_path: Path) -> None:
    study = write_study(tmp_path, "killed", epochs=8, attack_epochs=20)
    want = run_locally(study, tmp_path / "undisturbed")
    out = tmp_path / "out"
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
    assert again.returncode == 0, printed

    assert table(out, study) == want
    assert all(store.find(key) == artifact for key, artifact in before.items()), (
        "a finished stage was repeated"
    )
    starts = events(store, "groups")[-1]["starts"]
    assert isinstance(starts, dict)
    assert sum(starts.values()) > len(starts), "no worker group was started again: the kill missed"
    assert not store.blobs.names("checkpoints/")
    parents, children = runs(f"sqlite:///{out / 'mlflow.db'}", "killed")
    assert [one.info.status for one in parents] == ["FINISHED"]
    assert Counter(one.data.tags["inversion.trial"] for one in children).most_common(1)[0][1] == 1
    assert [one.info.status for one in children] == ["FINISHED"] * 8


def test_stored_points_cost_next_to_nothing_and_groups_fit_the_slots(
    env: dict[str, str], tmp_path: Path
) -> None:
    study = write_study(tmp_path, "stored")
    out = tmp_path / "out"
    first = run(command(study, out, "--ship-later"), env)
    assert first.returncode == 0, first.stdout + first.stderr
    store = Artifacts(open_blobs(str(out / "store")))
    (groups,) = events(store, "groups")
    assert isinstance(groups["starts"], dict)
    assert len(groups["starts"]) <= int(str(groups["slots"])) <= 2
    assert len(list(csv.DictReader(table(out, study).decode().splitlines()))) == 8

    kept = table(out, study)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    second = run(command(study, out, "--ship-later"), env)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert second.returncode == 0
    assert table(out, study) == kept
    assert "stages run/reused: 0/" in second.stdout
    assert (now.ru_utime + now.ru_stime) - (spent.ru_utime + spent.ru_stime) < 2.0 * 8


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


def test_what_does_not_fit_is_refused_or_waits_for_a_node_that_joins(
    ray_cluster: Cluster, env: dict[str, str], tmp_path: Path
) -> None:
    study = write_study(tmp_path, "wide")
    wide = ["--set", "resources.threads=2", *TWO_TRIALS]
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
    assert "stages need 1 x (2 CPU); the cluster has 1 x (1 CPU); " in line
    assert line.endswith(" min until they fail.\n")
    with ray_node(ray_cluster, cpus=2):
        printed, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, printed
    assert "trials: 2 finished, 0 failed, 0 pruned" in printed


def test_two_pools_take_turns_on_one_cpu(env: dict[str, str], tmp_path: Path) -> None:
    study = write_study(tmp_path, "pools")
    options = ["--set", "resources.stages.judge.precision=bfloat16", *TWO_TRIALS]
    done = run(command(study, tmp_path / "out", *options), env)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Artifacts(open_blobs(str(tmp_path / "out" / "store")))
    (groups,) = events(store, "groups")
    assert len(dict(groups["starts"])) >= 2
    found = [artifact for key in store.keys() if (artifact := store.find(key))]  # noqa: SIM118
    assert {a.stage for a in found if a.profile["precision"] == "bfloat16"} == {"judge"}
    assert table(tmp_path / "out", study) == run_locally(study, tmp_path / "local", *options)


@pytest.mark.usefixtures("second_node")
def test_two_workers_on_two_nodes_train_one_network_together(env: dict[str, str], tmp_path: Path) -> None:
    study = write_study(tmp_path, "together")
    options = ["--set", "resources.workers=2", "--set", "sweep.auxiliary.kind=[same-heldout]", "--ship-later"]
    done = run(command(study, tmp_path / "out", *options), env)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Artifacts(open_blobs(str(tmp_path / "out" / "store")))
    (groups,) = events(store, "groups")
    assert list(dict(groups["starts"]).values()) == [1]
    targets = [a for key in store.keys() if (a := store.find(key)) and a.stage == "target"]  # noqa: SIM118
    assert [artifact.profile["workers"] for artifact in targets] == [2, 2]
    assert all(artifact.metrics["target/accuracy"] > 0.8 for artifact in targets)


def test_optuna_with_asha_stops_some_and_finishes_the_rest(env: dict[str, str], tmp_path: Path) -> None:
    search = """
search:
  algorithm: optuna
  samples: 6
  batch: 3
  objectives: {inversion/mse_test: minimize, inversion/ssim_test: maximize}
  scheduler: {grace_epochs: 2, reduction_factor: 2}
"""
    study = write_study(tmp_path, "searched", attack_epochs=12, more=search)
    done = run(command(study, tmp_path / "out", "--ship-later"), env)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader(table(tmp_path / "out", study).decode().splitlines()))
    status = Counter(row["status"] for row in rows)
    assert status["finished"] >= 1
    assert status["pruned"] >= 1
    assert sum(status.values()) == 6
    assert (tmp_path / "out" / "searched" / "pareto.csv").exists()


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

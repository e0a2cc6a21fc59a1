"""Spans modules: failures on a cluster of processes that every change must survive; see `tests.drills`."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.store.blobs import Blobs
from tests import s3, servers
from tests.drills.drills import DRILLS, Drill, stop_job, write_study
from tests.drills.rig import Rig, rig, table, tracked
from tests.sweeps import ROOT, run_locally

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.timeout(900)]
DEMO = Path(__file__).resolve().parents[2] / "jobs" / "studies" / "demo.yaml"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig")) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("reference")
    return run_locally(write_study(folder, "reference"), folder / "out")


def test_the_doctor_finds_a_whole_cluster_in_order(running: Rig) -> None:
    uri, _ = running.store("doctor")
    env = {**os.environ, **running.cluster.env, "RAY_API_SERVER_ADDRESS": running.cluster.dashboard}
    words = [sys.executable, "-m", "jobs.doctor", "--store", uri, "--tracking-uri", running.tracking_uri]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["21 checks: 0 failed, 0 warnings"], done.stdout + done.stderr
    assert done.returncode == 0
    assert not any(secret in done.stdout + done.stderr for secret in secrets_of(running))
    (joined,) = [line for line in lines if line.startswith("ok    ray cluster")]
    assert joined.split("    ")[-1].strip().startswith("4 nodes with 3 CPU, 0 GPU, ")
    told = [line for line in lines if line.startswith("ok    node ")]
    assert len(told) == 4
    assert all(line.endswith("; room, clock, store in order") for line in told)
    (same,) = [line for line in lines if line.startswith("ok    ray versions")]
    assert same.endswith(f"project {__version__} on every node")


@pytest.mark.parametrize(
    ("options", "seeds", "trials", "stages"),
    [
        pytest.param(["--scale", "smoke"], 1, 12, 70, id="smoke"),
        pytest.param([], 3, 96, 530, id="full", marks=pytest.mark.slow),
    ],
)
def test_the_demo_as_a_job_on_four_nodes_equals_the_local_run(
    options: list[str], seeds: int, trials: int, stages: int, running: Rig, tmp_path: Path
) -> None:
    name = f"demo-{stages}"  # an MLflow experiment of its own for each scale
    study = tmp_path / f"{name}.yaml"
    study.write_text(DEMO.read_text().replace("study: demo", f"study: {name}"))
    uri, store = running.store(name)
    data = f"{uri}-data"
    words = [sys.executable, "-m", "jobs.stage_data", "digits", data, "--name", "numbers"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    staged = ("data.dataset=numbers", "data.split=default", "auxiliary.size=100")
    options = [*options, "--data", data, *(word for one in staged for word in ("--set", one))]
    job = running.submit(study, uri, *options)
    assert running.wait(job, 1800) == "SUCCEEDED", running.logs(job)
    assert table(store, name) == run_locally(study, tmp_path / "local", *options)
    mlflow = tracked(running, name)
    assert mlflow == {
        "sweeps": ["FINISHED"],
        "trials": {"FINISHED": trials},
        "distinct": trials,
        "most_points_a_step": 1,
    }
    found = [store.find(key) for key in store.keys()]  # noqa: SIM118 - a store is no dict
    built = Counter(artifact.stage for artifact in found if artifact)
    assert built.total() == stages
    # Each distinct classifier was trained once: a target for each of its k, budget and seed, one judge.
    assert [built[name] for name in ("target", "judge")] == [4 * seeds, 1]
    printed = running.logs(job)
    assert f"{trials} trials, {stages} stages to run" in printed
    assert f"{trials}/{trials} trials" in printed
    assert "\x1b" not in printed, "a job's log is no terminal"
    assert_no_secret(running, store.blobs, job)


def secrets_of(running: Rig) -> list[str]:
    """Return the planted secrets: the cluster's token and the key of the S3 server."""
    token = Path(running.cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    return [token, s3.CREDENTIALS["AWS_SECRET_ACCESS_KEY"]]


def assert_no_secret(running: Rig, blobs: Blobs, job: str) -> None:
    """Look for the planted secrets in everything that a sweep leaves."""
    planted = [secret.encode() for secret in secrets_of(running)]
    left = {name: blobs.get(name) or b"" for name in blobs.names("")}
    left["job"] = repr(servers.ask(running.cluster, f"/api/jobs/{job}")).encode()
    left["log"] = running.logs(job).encode()
    folders = [
        running.folder,
        *running.cluster.scratch.parent.glob(f"{running.cluster.scratch.name}*/session_2*/logs"),
    ]
    for folder in folders:
        left |= {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    del left[running.cluster.env["RAY_AUTH_TOKEN_PATH"]]
    assert len(left) > 100
    found = [name for name, data in left.items() if any(secret in data for secret in planted)]
    assert not found


def test_a_sweep_whose_processes_die_ends_with_the_same_table(
    running: Rig, reference: bytes, tmp_path: Path
) -> None:
    drill = Drill(running, "killed", tmp_path, reference)
    drill.submit()
    drill.reach(3)
    for role in ("train worker", "trial driver", "raylet"):
        drill.training()
        drill.kill(role)
    running.restart_nodes()
    drill.reach(6)
    drill.kill("sweep driver")
    drill.end("FAILED")
    drill.submit()
    drill.end()
    drill.check()


def test_a_stopped_job_leaves_nothing_open_and_goes_on(
    running: Rig, reference: bytes, tmp_path: Path
) -> None:
    drill = Drill(running, "stopped", tmp_path, reference)
    stop_job(drill)
    drill.check()


@pytest.mark.slow
@pytest.mark.parametrize("name", DRILLS)
def test_every_drill(
    name: str, running: Rig, reference: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("minutes for each drill; run with -m slow")
    drill = Drill(running, name, tmp_path, reference)
    DRILLS[name](drill)
    drill.check()

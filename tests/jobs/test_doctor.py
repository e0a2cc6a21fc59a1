"""`python -m jobs.doctor` as people call it: without a cluster, on a real one, as a submitted job."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from jobs.doctor import app
from orchestrator.runtime.doctor import cluster
from orchestrator.runtime.doctor.findings import fail
from tests import s3, servers
from tests.runtime.doctor.faults import SECRETS, listed, only_fault, quiet

__all__ = ["quiet"]  # a fixture of these tests too

ROOT = Path(__file__).resolve().parents[2]

Env = dict[str, str]


@pytest.mark.ray
def test_a_token_is_missing_wrong_readable_or_right(
    ray_cluster: servers.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = only_fault(cluster.job_server(ray_cluster.dashboard))
    assert fault == fail("ray token", "this client sends none: RAY_AUTH_MODE=(unset)", cluster.TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    fault = only_fault(cluster.job_server(ray_cluster.dashboard))
    assert fault == fail("ray token", f"{tmp_path / 'token'} holds none", cluster.TOKEN)
    (tmp_path / "token").write_text("hunter2" * 10)
    fault = only_fault(cluster.job_server(ray_cluster.dashboard))
    assert fault == fail(
        "ray token", f"the token of {tmp_path / 'token'} is refused (HTTP 403)", cluster.TOKEN
    )
    (tmp_path / "token").write_text(Path(ray_cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text())
    (tmp_path / "token").chmod(0o644)
    fault = only_fault(cluster.job_server(ray_cluster.dashboard))
    assert fault.fix == f"chmod 600 {tmp_path / 'token'}"
    (tmp_path / "token").chmod(0o600)
    assert listed(cluster.job_server(ray_cluster.dashboard)) == [
        ("ok", "ray jobs"),
        ("ok", "ray token"),
        ("ok", "ray version"),
    ]


@pytest.mark.ray
def test_a_server_that_is_no_cluster_does_not_hold_up(
    ray_cluster: servers.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "JOINED_SECONDS", 6.0)
    started = time.monotonic()
    address = ray_cluster.dashboard.removeprefix("http://")
    (fault,) = cluster.joined(address, str(tmp_path), str(tmp_path))
    assert time.monotonic() - started < 12
    assert (fault.status, fault.name, fault.fix) == ("FAIL", "ray cluster", cluster.JOIN)


def doctor(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments))


def test_without_a_cluster_it_warns_and_passes(tmp_path: Path) -> None:
    result = doctor("--out", str(tmp_path / "runs"))
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok    python         Python 3.")
    assert lines[-3:] == [
        "warn  ray            no cluster named; sweeps start Ray on this machine",
        "      fix: export RAY_API_SERVER_ADDRESS=http://HEAD:8265, or give --ray-address, if there is a "
        "cluster",
        "12 checks: 0 failed, 1 warnings",
    ]
    assert not (tmp_path / "runs").exists()


def test_every_check_runs_although_others_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, port in (("AWS_ENDPOINT_URL", 1), ("MLFLOW_TRACKING_URI", 2), ("RAY_API_SERVER_ADDRESS", 3)):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INVERSION_STORE", "s3://bucket/store")
    monkeypatch.setenv("INVERSION_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:4")
    result = doctor()
    assert result.exit_code == 1, (result.output, result.exception)
    lines = result.stdout.splitlines()
    failed = [line.split("  ")[1].strip() for line in lines if line.startswith("FAIL")]
    assert failed == ["store bucket", "data", "mlflow", "ray jobs", "ray cluster"]
    fixes = [lines[index + 1] for index, line in enumerate(lines) if line.startswith("FAIL")]
    assert all(fix.startswith("      fix: ") for fix in fixes)
    assert lines[-1].endswith(" 5 failed, 0 warnings")
    assert not any(secret in result.output for secret in SECRETS)


def command(env: Env, *arguments: str) -> list[str]:
    """Run the command in a process of its own; return its lines."""
    words = [sys.executable, "-m", "jobs.doctor", *arguments]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    return [*done.stdout.splitlines(), f"exit {done.returncode}"]


@pytest.fixture
def env(ray_cluster: servers.Cluster) -> Env:
    return {**os.environ, **ray_cluster.env, "RAY_API_SERVER_ADDRESS": ray_cluster.dashboard}


@pytest.mark.ray
def test_a_cluster_is_not_joined_with_a_wrong_token(env: Env, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2" * 10)
    (tmp_path / "token").chmod(0o600)
    wrong = {**env, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    lines = command(wrong, "--out", str(tmp_path / "runs"))
    assert lines[-1] == "exit 1"
    (at,) = [index for index, line in enumerate(lines) if line.startswith("FAIL  ray cluster")]
    assert lines[at].endswith(f" {env['RAY_ADDRESS']} refuses this client's token, or got none")
    assert lines[at + 1] == f"      fix: {cluster.TOKEN}"
    assert any(line.startswith("warn  store          none named; what a job writes") for line in lines)


@pytest.mark.ray
def test_it_runs_as_a_submitted_job(ray_cluster: servers.Cluster, env: Env, s3_uri: str) -> None:
    submit = [str(servers.BIN / "ray"), "job", "submit", "--address", ray_cluster.dashboard]
    submit += ["--working-dir", ".", "--", "python", "-m", "jobs.doctor", "--store", s3_uri]
    outside = {name: value for name, value in env.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        submit, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok +ray cluster +1 nodes with 1 CPU", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +node .*; room, clock, store in order$", done.stdout, re.MULTILINE)
    assert "0 failed, 0 warnings" in done.stdout


LOOK = """
import sys
from orchestrator.runtime.doctor import nodes
nodes.TASKS_SECONDS = 15.0
nodes.main(*sys.argv[1:])
"""


@pytest.mark.ray
def test_a_node_that_does_not_answer_is_named(ray_cluster: servers.Cluster, env: Env, tmp_path: Path) -> None:
    with servers.ray_node(ray_cluster) as node:
        raylets = [
            one.pid for one in psutil.Process(node.pid).children(recursive=True) if one.name() == "raylet"
        ]
        words = [sys.executable, "-c", LOOK, env["RAY_ADDRESS"], str(tmp_path), str(tmp_path)]
        with servers.stopped(raylets):
            done = subprocess.run(
                words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
            )
    assert len(raylets) == 1
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"status"')]
    (late,) = [one for one in found if one["status"] == "FAIL"]
    assert re.fullmatch(r"node [0-9.]+/[0-9a-f]{6}", late["name"])
    assert late["found"] == "a small task: none within 15 s"
    assert sum(one["name"].startswith("node ") for one in found) == 2
    assert cluster.TASKS_SECONDS < cluster.NODES_SECONDS < cluster.JOINED_SECONDS


def test_the_help_is_text() -> None:
    words = [sys.executable, "-m", "jobs.doctor", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    for flag in ("--store", "--data", "--tracking-uri", "--ray-address", "--job-server"):
        assert flag in done.stdout

"""The files under cluster/: schemas, pins and secrets; the one-host script for real with `-m slow`."""

import copy
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
SCRIPT = CLUSTER / "one-host.sh"
PORTS = ("RAY_PORT", "DASHBOARD_PORT", "AGENT_PORT", "MLFLOW_PORT", "S3_PORT")
SECRET = re.compile(r"(AKIA[0-9A-Z]{16}|aws_secret_access_key|BEGIN [A-Z ]*PRIVATE KEY)", re.IGNORECASE)


def pinned(package: str) -> str:
    """Return the version that the lock file pins."""
    found = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def aws() -> dict[str, Any]:
    """Return cluster/aws.yaml."""
    content: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="ascii"))
    return content


def kuberay() -> dict[str, dict[str, Any]]:
    """Return the documents of cluster/kuberay.yaml by kind."""
    text = (CLUSTER / "kuberay.yaml").read_text(encoding="ascii")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_aws_passes_rays_own_schema() -> None:
    validate_config(prepare_config(aws()))


def test_rays_schema_notices_a_wrong_field() -> None:
    config = aws()
    config["max_worker"] = config.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(copy.deepcopy(config)))


def test_aws_nodes_are_what_ec2_takes() -> None:
    service = botocore.session.get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    for name, node in aws()["available_node_types"].items():
        wanted = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
        faults = ParamValidator().validate(wanted, shape)
        assert not faults.has_errors(), f"{name}: {faults.generate_report()}"


def test_aws_has_an_on_demand_head_and_spot_workers_without_keys() -> None:
    config = aws()
    nodes = config["available_node_types"]
    head = nodes.pop(config["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert [node["node_config"]["InstanceMarketOptions"] for node in nodes.values()] == [
        {"MarketType": "spot"}
    ]
    for node in (head, *nodes.values()):
        assert node["node_config"]["IamInstanceProfile"]
    assert "ssh_private_key" not in config["auth"]


def test_aws_starts_ray_with_the_token_on_every_node() -> None:
    config = aws()
    token = "/home/ray/inversion/ray_token"
    assert token in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_images_have_the_pinned_ray() -> None:
    versions = [
        found
        for file in ("aws.yaml", "kuberay.yaml", "Dockerfile")
        for found in re.findall(
            r"(?:rayproject/ray|inversion-orchestrator):(\d+\.\d+\.\d+)", (CLUSTER / file).read_text()
        )
    ]
    versions.append(kuberay()["RayCluster"]["spec"]["rayVersion"])
    assert set(versions) == {pinned("ray")}
    assert len(versions) >= 6


def test_installers_are_those_of_the_makefile() -> None:
    version = re.search(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    for file in ("aws.yaml", "Dockerfile"):
        assert f"uv=={version[1]}" in (CLUSTER / file).read_text()


def test_kuberay_asks_for_the_token_and_takes_secrets_by_reference() -> None:
    spec = kuberay()["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for container in (one for group in groups for one in group["template"]["spec"]["containers"]):
        assert {"secretRef": {"name": "inversion-s3"}} in container["envFrom"]
        assert {"configMapRef": {"name": kuberay()["ConfigMap"]["metadata"]["name"]}} in container["envFrom"]
        assert "env" not in container
        assert container["resources"]["limits"] == container["resources"]["requests"]
    for group in spec["workerGroupSpecs"]:
        assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert SECRET.search(path.read_text(encoding="ascii").replace("AWS_SECRET_ACCESS_KEY=", "")) is None


def one_host(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with its files in `folder`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    env |= {"ONE_HOST_DIR": str(folder), **environment}
    return subprocess.run(
        ["bash", str(SCRIPT), *words], env=env, cwd=folder.parent, capture_output=True, text=True, timeout=300
    )


def test_one_host_says_how_it_is_used(tmp_path: Path) -> None:
    ran = one_host(folder=tmp_path / "one")
    assert ran.returncode == 2
    assert "usage: cluster/one-host.sh start|status|stop" in ran.stderr


def test_one_host_stop_and_status_without_a_start(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    assert one_host("stop", folder=folder).returncode == 0
    assert one_host("status", folder=folder).stdout.split(", ")[0].startswith("ray: does not run")


def test_one_host_does_not_stop_a_stranger(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:  # the process id in the file was given to another process since
        (folder / "ray.pid").write_text(f"{stranger.pid}\nMon Jan  1 00:00:00 2001\n")
        assert one_host("stop", folder=folder).returncode == 0
        assert stranger.poll() is None
        assert not (folder / "ray.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_one_host_names_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        others = dict(zip(PORTS, map(str, free_ports()), strict=True))
        ran = one_host("start", folder=tmp_path / "one", **others | {"MLFLOW_PORT": port})
    assert ran.returncode == 2
    assert f"MLFLOW_PORT={port} is taken on 127.0.0.1; set MLFLOW_PORT to a free port." in ran.stderr
    assert not (tmp_path / "one").exists()


def free_ports() -> Iterator[int]:
    """Return as many free ports as the script has servers."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return iter(ports)


@pytest.mark.slow
@pytest.mark.ray
def test_one_host_starts_takes_a_job_and_stops(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("starts a second Ray: half a minute; run with -m slow")
    folder = tmp_path / "one"
    ports = dict(zip(PORTS, map(str, free_ports()), strict=True))
    started = one_host("start", folder=folder, **ports)
    try:
        assert started.returncode == 0, started.stderr
        assert (folder / "ray_token").stat().st_mode & 0o777 == 0o600
        token = (folder / "ray_token").read_text()
        assert token not in started.stdout
        sweep = "python -m jobs.sweep demo --scale smoke --plan"
        words = f"source env.sh && ray job submit --working-dir '{ROOT}' -- {sweep}"
        job = subprocess.run(["bash", "-c", words], cwd=folder, capture_output=True, text=True, timeout=300)
        assert job.returncode == 0, job.stderr
        assert "study demo: 12 points" in job.stdout
        assert token not in job.stdout
    finally:
        stopped = one_host("stop", folder=folder)
    assert stopped.stdout.splitlines() == ["stopped: ray", "stopped: mlflow", "stopped: s3"]
    assert not (folder / "ray_token").exists()

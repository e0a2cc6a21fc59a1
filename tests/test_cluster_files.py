"""Spans files: schemas, pins and secrets of cluster/; the one-host script for real with `-m slow`."""

import copy
import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import check_jsonschema
import jsonschema
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

from orchestrator.runtime.doctor.gpu import DRIVERS

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


def documents(file: str) -> dict[str, dict[str, Any]]:
    """Return the documents of a Kubernetes file by kind."""
    text = (CLUSTER / file).read_text(encoding="ascii")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def compose() -> dict[str, Any]:
    """Return cluster/compose.yaml."""
    content: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text(encoding="ascii"))
    return content


def check_compose(content: dict[str, Any]) -> None:
    """Raise unless the Compose specification's own schema takes it."""
    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(content, json.loads(vendored.read_text()))


def check_ray(document: dict[str, Any]) -> None:
    """Raise unless the document is a RayCluster or RayJob with pods that Kubernetes takes."""
    schema = yaml.safe_load((ROOT / "tests" / "schemas" / "ray.io.yaml").read_text(encoding="ascii"))
    jsonschema.validate(document, schema)
    for template in templates(document["spec"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod templates of a RayCluster or a RayJob."""
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]] if "headGroupSpec" in spec else []
    own = [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    return [group["template"] for group in groups] + own


KUBERNETES = ("kuberay.yaml", "kuberay-job.yaml", "kubernetes-mlflow.yaml")


@pytest.mark.parametrize("file", KUBERNETES)
def test_kubernetes_takes_every_document(file: str) -> None:
    found = documents(file)
    assert found
    for document in found.values():
        if document["apiVersion"] == "ray.io/v1":
            check_ray(document)
        else:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_schemas_notice_a_wrong_field() -> None:
    cluster = documents("kuberay.yaml")["RayCluster"]
    wrong = copy.deepcopy(cluster)
    wrong["spec"]["authOption"] = wrong["spec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        check_ray(wrong)
    wrong = copy.deepcopy(cluster)
    wrong["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="resource"):
        check_ray(wrong)
    service = copy.deepcopy(documents("kubernetes-mlflow.yaml")["Service"])
    service["spec"]["port"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError, match="port"):
        kubernetes_validate.validate(service, kubernetes_validate.latest_version(), strict=True)


def test_compose_passes_its_specification() -> None:
    check_compose(compose())
    wrong = compose()
    wrong["services"]["ray-head"]["port"] = wrong["services"]["ray-head"].pop("ports")
    with pytest.raises(jsonschema.ValidationError, match="port"):
        check_compose(wrong)


def test_compose_publishes_on_loopback_and_takes_secrets_from_files() -> None:
    content = compose()
    ports = [port for service in content["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        assert content["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert "ray_token" in content["services"][name]["secrets"]
    assert all(secret["file"].startswith("secrets/") for secret in content["secrets"].values())
    assert "/cluster/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "/cluster/secrets/" in (ROOT / ".rayignore").read_text().splitlines()
    used = {secret for service in content["services"].values() for secret in service.get("secrets", [])}
    assert used == set(content["secrets"])


def test_compose_closes_what_asks_for_no_password() -> None:
    services = compose()["services"]
    s3 = services["s3"]["command"]
    # SeaweedFS's master, volumes and filer have no authentication; its telemetry is on by default.
    assert "-ip.bind=127.0.0.1 " in s3
    assert "-s3.ip.bind=0.0.0.0 " in s3
    assert "-master.telemetry=false" in s3
    mlflow = services["mlflow"]
    assert '--allowed-hosts "mlflow:5000,' in mlflow["command"][-1]
    assert mlflow["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert mlflow["environment"]["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert services["ray-head"]["environment"]["RAY_JOB_STOP_WAIT_TIME_S"] == "30"


def test_a_jobs_working_directory_is_small_and_holds_no_secrets(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=False)
    assert package.stat().st_size < 5_000_000
    names = set(zipfile.ZipFile(package).namelist())
    assert {"jobs/sweep.py", "jobs/studies/demo.yaml", "cluster/one-host.sh"} <= names
    left_out = (".venv/", "runs/", "data/", "docs/", "tests/", "cluster/secrets/")
    assert not {name for name in names if name.startswith(left_out)}


def test_an_image_is_built_without_secrets_and_results() -> None:
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="ascii").splitlines()
    shown = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*"
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert {word for words in copied for word in words.split()} == shown


def test_compose_secrets_are_made_once_and_for_one_user(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_text((CLUSTER / "secrets.sh").read_text())
    first = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    assert all((tmp_path / "secrets" / name).stat().st_mode & 0o077 == 0 for name in made)
    assert len(made["ray_token"]) == 96
    (identity,) = json.loads(made["s3_identities.json"])["identities"]
    assert identity["credentials"][0]["secretKey"] in made["aws_credentials"]
    assert not any(secret in first.stdout for secret in made.values())
    subprocess.run(["bash", str(script)], capture_output=True, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


@pytest.mark.parametrize("script", ["one-host.sh", "secrets.sh"])
def test_shell_scripts_are_clean(script: str) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run(
        [str(shellcheck), str(CLUSTER / script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_recipe_is_clean_and_has_both_targets() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    words = [str(hadolint), str(CLUSTER / "Dockerfile")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {service["build"]["target"] for service in compose()["services"].values() if "build" in service}
    assert set(stages) == wanted == {"ray", "mlflow"}


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
    for name, node in nodes.items():
        market = {"MarketType": "spot"} if name.startswith("spot-") else None
        assert node["node_config"].get("InstanceMarketOptions") == market
    for node in (head, *nodes.values()):
        assert node["node_config"]["IamInstanceProfile"]
    assert "ssh_private_key" not in config["auth"]


@pytest.mark.parametrize(
    ("failed", "chosen"),
    [([], "spot-g6"), (["spot-g6"], "spot-g5"), (["spot-g6", "spot-g5"], "on-demand-g5")],
)
def test_rays_autoscaler_takes_spot_nodes_first_and_falls_back(failed: list[str], chosen: str) -> None:
    kinds = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=node.get("min_workers", 0),
            max_worker_nodes=node.get("max_workers", 0),
            resources=node["resources"],
            priority=node.get("priority", 0),
        )
        for name, node in aws()["available_node_types"].items()
    }
    stage = ResourceRequestUtil.make({"CPU": 4, "GPU": 1})
    wanted = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=kinds,
        resource_requests=[ResourceRequestByCount(request=stage, count=1)],
        recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(wanted)
    assert [(launch.instance_type, launch.count) for launch in reply.to_launch] == [(chosen, 1)]


def test_aws_starts_ray_with_the_token_on_every_node() -> None:
    config = aws()
    token = "/home/ray/inversion/ray_token"
    assert token in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        joins = [one for one in commands if "ray start" in one or "jobs.notice" in one]
        assert all(f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}" in command for command in joins)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]
    assert "python -m jobs.notice" in config["worker_start_ray_commands"][-1]


def test_aws_has_an_image_with_the_driver_that_the_locks_cuda_needs() -> None:
    major = int(pinned("cuda-toolkit").partition(".")[0])
    assert re.search(rf"^nvidia-cudnn-cu{major}==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    needed = DRIVERS[major]
    text = (CLUSTER / "aws.yaml").read_text()
    assert f"brings CUDA {major}, which needs driver {needed} or later" in text
    assert f"-ge {needed} ||" in text
    # By AWS's release notes it has driver 580 or later since December 2025.
    images = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/"
    parameter = f"{images}base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    nodes = aws()["available_node_types"].values()
    assert {node["node_config"]["ImageId"] for node in nodes} == {parameter}
    assert f"driver {needed} or later" in (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize(
    ("driver", "passes"), [("580.95.05", True), ("595.71.05", True), ("535.183.01", False), ("", True)]
)
def test_aws_nodes_with_an_older_driver_do_not_join(driver: str, passes: bool, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n[ -n '{driver}' ] && echo {driver}\n")
    tool.chmod(0o700)
    check = aws()["initialization_commands"][-1]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ran = subprocess.run(["bash", "-c", check], env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) == passes
    assert ("older than 580, which CUDA 13 needs" in ran.stderr) != passes


def test_aws_runs_the_projects_image_and_mlflow_on_the_head() -> None:
    config = aws()
    assert re.search(r"/inversion-orchestrator:[\d.]+$", config["docker"]["image"])
    start, server = config["head_start_ray_commands"][1:]
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:5000" in start
    assert "mlflow server --host 127.0.0.1 --port 5000" in server
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false" in server


def test_images_have_the_pinned_ray() -> None:
    versions = [
        found
        for file in ("aws.yaml", "compose.yaml", "kuberay.yaml", "kuberay-job.yaml", "Dockerfile")
        for found in re.findall(
            r"(?:rayproject/ray|inversion-orchestrator):(\d+\.\d+\.\d+)", (CLUSTER / file).read_text()
        )
    ]
    versions.append(documents("kuberay.yaml")["RayCluster"]["spec"]["rayVersion"])
    assert set(versions) == {pinned("ray")}
    assert len(versions) >= 9
    for file in ("compose.yaml", "kubernetes-mlflow.yaml", "Dockerfile"):
        found = re.findall(r"inversion-mlflow:(\d+\.\d+\.\d+)", (CLUSTER / file).read_text())
        assert set(found) == {pinned("mlflow")}, file


def test_installers_are_those_of_the_makefile() -> None:
    version = re.search(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uv=={version[1]}" in (CLUSTER / "Dockerfile").read_text()


def test_mlflow_has_credentials_of_its_own_and_no_door_but_its_port() -> None:
    found = documents("kubernetes-mlflow.yaml")
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert [one["secretRef"]["name"] for one in container["envFrom"]] == ["inversion-mlflow"]
    assert {"name": "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "value": "false"} in container["env"]
    assert {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"} in container["env"]
    service = found["Service"]["metadata"]["name"]
    assert any(word.startswith(f"--allowed-hosts={service}:5000,") for word in container["args"])
    places = documents("kuberay.yaml")["ConfigMap"]["data"]
    assert places["MLFLOW_TRACKING_URI"] == f"http://{service}:5000"
    assert [rule["ports"] for rule in found["NetworkPolicy"]["spec"]["ingress"]] == [[{"port": 5000}]]


def test_kuberay_asks_for_the_token_and_takes_secrets_by_reference() -> None:
    found = documents("kuberay.yaml")
    spec = found["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for container in (one for group in groups for one in group["template"]["spec"]["containers"]):
        assert {"secretRef": {"name": "inversion-s3"}} in container["envFrom"]
        assert {"configMapRef": {"name": found["ConfigMap"]["metadata"]["name"]}} in container["envFrom"]
        assert "env" not in container
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["securityContext"]["runAsNonRoot"]
    for group in spec["workerGroupSpecs"]:
        assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 30
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    labels = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert all(group["template"]["metadata"]["labels"] == labels for group in groups)
    ingress = found["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": labels}} in ingress
    submitter = documents("kuberay-job.yaml")["RayJob"]["spec"]["submitterPodTemplate"]
    assert submitter["metadata"]["labels"] == labels  # else the policy keeps it from the job server
    spot, on_demand = spec["workerGroupSpecs"]
    assert spot["priority"] > on_demand["priority"]
    settings = found["ConfigMap"]["data"]
    assert {"INVERSION_STORE", "MLFLOW_TRACKING_URI", "RAY_JOB_STOP_WAIT_TIME_S"} <= settings.keys()


@pytest.mark.parametrize(
    "path", sorted(path for path in CLUSTER.iterdir() if path.is_file()), ids=lambda path: path.name
)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert (
        SECRET.search(
            path.read_text(encoding="ascii")
            .replace("AWS_SECRET_ACCESS_KEY=", "")
            .replace("aws_secret_access_key = %s", "")
        )
        is None
    )


def one_host(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with its files in `folder`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    # Ray's niceness of 15 would let the other tests' processes go first.
    env |= {"ONE_HOST_DIR": str(folder), "RAY_worker_niceness": "0", **environment}
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


@pytest.mark.ray
def test_one_host_starts_takes_a_job_and_stops(tmp_path: Path) -> None:
    words = ["make", "--no-print-directory", "-n", "cluster", "cluster-stop"]
    planned = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert planned.stdout.splitlines()[-2:] == ["cluster/one-host.sh start", "cluster/one-host.sh stop"]
    folder = tmp_path / "one"
    ports = dict(zip(PORTS, map(str, free_ports()), strict=True))
    started = one_host("start", folder=folder, **ports)
    try:
        assert started.returncode == 0, started.stderr
        assert (folder / "ray_token").stat().st_mode & 0o777 == 0o600
        token = (folder / "ray_token").read_text()
        assert token not in started.stdout
        line = f"source env.sh && ray job submit --working-dir '{ROOT}' -- python -m jobs.doctor"
        job = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=300)
        assert job.returncode == 0, job.stdout + job.stderr
        assert "0 failed" in job.stdout
        assert token not in job.stdout
    finally:
        stopped = one_host("stop", folder=folder)
    ended = ["worker-1", "worker-2", "worker-3", "ray", "mlflow", "s3"]
    assert stopped.stdout.splitlines() == [f"stopped: {name}" for name in ended]
    assert not (folder / "ray_token").exists()

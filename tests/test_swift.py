"""Spans modules: the store on OpenStack Swift: the requirements that other tests check on a mock."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from typer.testing import CliRunner

from jobs import store as store_job
from orchestrator.runtime.doctor.places import place
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.gc import collect
from tests import swift, tiny
from tests.jobs import test_store
from tests.store import (
    test_artifacts,
    test_blobs,
    test_gc,
    test_listing,
)
from tests.store.test_artifacts import FILES, KEY, artifact
from tests.store.test_gc import begin_upload

ROOT = Path(__file__).resolve().parents[1]
PYTHON = swift.interpreter()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="no Swift: name a Python that has it in SWIFT_PYTHON"),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Swift, and point this process and its children at it."""
    assert PYTHON is not None
    with (
        swift.server(PYTHON, tmp_path_factory.mktemp("swift")) as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        point_at(address, patch)
        yield address


def point_at(address: str, patch: pytest.MonkeyPatch) -> None:
    """Give clients of this process the server's address and credentials, and no others."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "INVERSION_STORE"):
        patch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        patch.setenv(name, os.devnull)
    for name, value in swift.environment(address).items():
        patch.setenv(name, value)


@pytest.fixture
def bucket(endpoint: str) -> S3Blobs:
    """Return an empty store in a fresh bucket."""
    name = f"bucket-{os.urandom(6).hex()}"
    boto3.client("s3", config=Config(s3={"addressing_style": "path"})).create_bucket(Bucket=name)
    return S3Blobs(name, "store")


# Swift looks before it creates, so two writers of one name may both be told that they were first.
ONE_WINNER = (
    "test_sixteen_writers_of_one_name_have_one_winner",
    "test_sixteen_publishers_agree_on_one_artifact",
)
GIVEN = {"blobs", "bucket", "artifacts", "caplog", "monkeypatch"}
SUITES = [test_blobs, test_artifacts, test_gc, test_listing, test_store]


def contracts() -> Iterator[object]:
    """Yield the tests of other modules that ask for nothing but a store, with their parameters."""
    for module in SUITES:
        for name, test in vars(module).items():
            if not name.startswith("test_") or name in ONE_WINNER:
                continue
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            cases = expanded(*marks[0].args) if marks else [{}]
            wanted = set(inspect.signature(test).parameters)
            if (
                len(marks) <= 1
                and wanted - set(cases[0]) <= GIVEN
                and wanted & {"blobs", "bucket", "artifacts"}
            ):
                yield from (pytest.param(module, test, case, id=name.removeprefix("test_")) for case in cases)


def expanded(names: str | Sequence[str], values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the arguments of each case of a parametrized test."""
    if isinstance(names, str):
        return [{names: value} for value in values]
    return [dict(zip(names, value, strict=True)) for value in values]


@pytest.mark.parametrize(("module", "test", "case"), list(contracts()))
def test_what_holds_for_other_stores_holds_here(
    module: ModuleType,
    test: Callable[..., None],
    case: dict[str, Any],
    bucket: S3Blobs,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {"blobs": bucket, "bucket": bucket, "caplog": caplog, "monkeypatch": monkeypatch}
    wanted = inspect.signature(test).parameters
    if "artifacts" in wanted:
        given["artifacts"] = getattr(module, "filled", Artifacts)(bucket)
    test(**case, **{name: given[name] for name in wanted if name in given})


@pytest.mark.parametrize("size", [(16 << 20) + 1, 40 << 20])
def test_large_objects_go_in_parts_and_come_back(bucket: S3Blobs, size: int) -> None:
    data = os.urandom(size)
    assert bucket.put("large", data)
    assert bucket.get("large") == data
    assert [(one.name, one.size) for one in bucket.entries("")] == [("large", size)]
    assert not bucket.put("large", data[1:], overwrite=False)
    assert bucket.put("large", data, overwrite=False), "the same bytes are taken for ours"
    assert bucket.put("large", data[1:])
    assert bucket.get("large") == data[1:]
    assert bucket.unfinished() == []


def test_sixteen_publishers_of_equal_files_leave_one_whole_artifact(bucket: S3Blobs) -> None:
    """However many are told that they were first: names hold the bytes' digests, and the bytes are equal."""
    store = Artifacts(bucket)
    with ThreadPoolExecutor(16) as threads:
        for number in range(8):
            key = f"{number:02d}" * 32

            def publish(n: int, key: str = key) -> Artifact:
                return store.publish(artifact(key, created_ms=n), FILES)

            results = list(threads.map(publish, range(16)))
            print("manifests told:", len({result.created_ms for result in results}))
            found = store.find(key)
            assert found is not None
            assert {name: store.read(found, name) for name in found.files} == FILES
            assert all(result.files == found.files for result in results)
    assert bucket.names("conflicts/") == []


def test_a_store_outlives_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PYTHON is not None
    for is_first in (True, False):
        with swift.server(PYTHON, tmp_path) as address:
            point_at(address, monkeypatch)
            if is_first:
                made = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
                made.create_bucket(Bucket="kept")
                Artifacts(S3Blobs("kept", "")).publish(artifact(), FILES)
            else:
                told = CliRunner().invoke(store_job.app, ["verify", "--store", "s3://kept"])
                assert "verified 1 artifacts, 3 files, 10.2 kB: 0 damaged" in told.stdout


def test_uploads_have_their_own_age(bucket: S3Blobs) -> None:
    begin_upload(bucket, f"artifacts/ab/{KEY}/0123456789ab-model", 5 << 20)
    store = Artifacts(bucket)
    assert collect(store, older_than_seconds=3600).garbage == ()
    assert [one.kind for one in collect(store, older_than_seconds=0).garbage] == ["upload"]


DOCTOR = ("", " bucket", " clock", " writes", " once")


def test_the_doctor_finds_it_in_order(bucket: S3Blobs) -> None:
    found = list(place("--store", bucket.uri, writes=True))
    assert [finding.name for finding in found] == [f"store{part}" for part in DOCTOR], found
    *others, once = found
    assert {finding.status for finding in others} == {"ok"}
    assert once.status == "ok" or "simultaneous writers as the first" in once.found, once


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_refused(bucket: S3Blobs, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "lab:wrong")
    fault = list(place("--store", bucket.uri, writes=True))[-1]
    assert (fault.status, fault.name) == ("FAIL", "store bucket")
    assert "refuses the credentials (" in fault.found
    assert fault.fix == "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    result = CliRunner().invoke(store_job.app, ["ls", "--store", bucket.uri])
    assert result.exit_code == 2
    assert "refuses the credentials" in result.stderr
    assert swift.CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in result.stderr + fault.found


def test_a_sweep_has_the_table_that_it_has_on_a_directory(bucket: S3Blobs, tmp_path: Path) -> None:
    study = tiny.write(tmp_path / "tiny.yaml", {"release.truncation": [1, 3]})
    tables = []
    for name, uri in (("swift", bucket.uri), ("directory", str(tmp_path / "store"))):
        words = [sys.executable, "-m", "jobs.sweep", str(study), "--local", "--ship-later"]
        words += ["--store", uri, "--out", str(tmp_path / name)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        tables.append((tmp_path / name / "tiny" / "results.csv").read_bytes())
    assert tables[0] == tables[1]
    for command in (["verify"], ["gc"]):
        result = CliRunner().invoke(store_job.app, [*command, "--store", bucket.uri])
        assert result.exit_code == 0, result.output

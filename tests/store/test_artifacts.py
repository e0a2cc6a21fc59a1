"""Artifacts over both stores: whole or absent, verified, first publisher wins, damage is rebuilt."""

import json
import logging
import math
import multiprocessing
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt, ReadOnce
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import s3

KEY = "ab" * 32
FILES = {"weights.safetensors": bytes(range(256)) * 40, "curves/loss.json": b"[1.0,0.5]", "empty": b""}


def artifact(key: str = KEY, **changes: object) -> Artifact:
    plain = Artifact(
        key=key,
        stage="target",
        version=2,
        spec={"target": {"classes": 10, "pretrain": None}},
        inputs={"pretrain": "cd" * 32},
        metrics={"target/accuracy": 0.1 + 0.2, "target/psnr": math.inf, "target/count": 3},
        cost={"wall_seconds": 1.5},
        profile={"device": "cpu", "threads": 1},
        code_version="0.1.0",
        created_ms=1_700_000_000_000,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def artifacts(blobs: Blobs) -> Artifacts:
    return Artifacts(blobs)


def test_what_is_published_is_found_and_read(artifacts: Artifacts) -> None:
    assert artifacts.find(KEY) is None
    published = artifacts.publish(artifact(), FILES)
    found = artifacts.find(KEY)
    assert found == published
    assert {name: artifacts.read(published, name) for name in published.files} == FILES
    assert artifacts.keys() == [KEY]
    assert published.files["empty"].size == 0
    assert published.files["empty"].object == f"artifacts/ab/{KEY}/e3b0c44298fc-empty"


def test_a_manifest_is_read_once_and_a_damaged_file_is_found_all_the_same(artifacts: Artifacts) -> None:
    published = artifacts.publish(artifact(), FILES)
    once = ReadOnce(artifacts.blobs)
    assert (once.find(KEY), once.find("ef" * 32)) == (published, None)
    artifacts.blobs.put(published.files["empty"].object, b"not empty")
    artifacts.blobs.remove(f"artifacts/ab/{KEY}/manifest.json")
    found = once.find(KEY)
    assert found == published
    with pytest.raises(Corrupt, match="want 0 bytes"):
        once.read(found, "empty")


def test_the_manifest_is_canonical_json_that_comes_back() -> None:
    one = artifact(spec={"b": 1, "a": {"d": 1, "c": 2}}, metrics={"y": math.nan, "x": -math.inf, "n": 3})
    other = artifact(spec={"a": {"c": 2, "d": 1}, "b": 1}, metrics={"n": 3, "x": -math.inf, "y": math.nan})
    assert one.to_json() == other.to_json()
    back = Artifact.from_json(one.to_json())
    assert math.isnan(back.metrics.pop("y"))
    assert back == replace(one, metrics={"x": -math.inf, "n": 3.0})
    assert json.loads(one.to_json())["metrics"] == {"n": 3, "x": "-Infinity", "y": "NaN"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expecting value"),
        ("[]", "manifest must be a JSON object"),
        ("{}", "manifest differs from the digest it carries"),
        (artifact().to_json().replace("0.30000000000000004", "0.90000000000000004"), "manifest differs from"),
        (artifact().to_json()[:-1], "delimiter"),
    ],
)
def test_a_manifest_that_was_touched_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Artifact.from_json(text)


@pytest.mark.parametrize("key", ["", "a", "a/b", "../../x", "a b", "x" * 129])
def test_a_key_that_is_no_key_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^artifact key .* use a stage's key"):
        Artifacts(DirectoryBlobs(tmp_path)).find(key)


def test_publishing_again_returns_the_first(artifacts: Artifacts, caplog: pytest.LogCaptureFixture) -> None:
    first = artifacts.publish(artifact(), FILES)
    later = artifact(cost={"wall_seconds": 9.0}, created_ms=1_800_000_000_000)
    assert artifacts.publish(later, FILES) == first
    assert artifacts.blobs.names("conflicts/") == []
    assert caplog.text == ""


def test_other_bytes_under_one_key_are_a_recorded_conflict(
    artifacts: Artifacts, caplog: pytest.LogCaptureFixture
) -> None:
    first = artifacts.publish(artifact(), FILES)
    other = {**FILES, "empty": b"not empty"}
    assert artifacts.publish(artifact(), other) == first
    (record,) = artifacts.blobs.names("conflicts/")
    assert Artifact.from_json(artifacts.blobs.get(record) or b"").files["empty"].size == 9
    assert f"event=publish_conflict key={KEY} stage=target where={record}" in caplog.text
    assert artifacts.read(first, "empty") == b""


def test_sixteen_publishers_agree_on_one_artifact(artifacts: Artifacts) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda n: artifacts.publish(artifact(created_ms=n), FILES), range(16)))
    assert {result.created_ms for result in results} == {results[0].created_ms}
    assert artifacts.find(KEY) == results[0]
    assert artifacts.blobs.names("conflicts/") == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_file_damaged_at_rest_is_quarantined_and_rebuilt(artifacts: Artifacts, damage: str) -> None:
    published = artifacts.publish(artifact(), FILES)
    file = published.files["weights.safetensors"]
    _damage(artifacts.blobs, file.object, damage)
    with pytest.raises(Corrupt, match=f"want 10240 bytes sha256 {file.sha256}, got .*run again") as caught:
        artifacts.read(published, file.name)
    assert caught.value.key == KEY
    assert caught.value.file == file.name
    assert artifacts.blobs.names("quarantine/") == [caught.value.quarantined]
    assert artifacts.find(KEY) is None
    assert artifacts.keys() == []
    rebuilt = artifacts.publish(artifact(created_ms=5), FILES)
    assert artifacts.find(KEY) == rebuilt
    assert artifacts.read(rebuilt, file.name) == FILES[file.name]


def _damage(blobs: Blobs, name: str, how: str) -> None:
    data = blobs.get(name)
    assert data
    if how == "remove":
        blobs.remove(name)
    elif how == "cut":
        blobs.put(name, data[:-1])
    else:
        blobs.put(name, data[:77] + bytes([data[77] ^ 1]) + data[78:])


def test_a_late_reader_does_not_quarantine_the_rebuilt_artifact(tmp_path: Path) -> None:
    artifacts = Artifacts(DirectoryBlobs(tmp_path))
    old = artifacts.publish(artifact(), {"f": b"old"})
    artifacts.blobs.remove(f"artifacts/ab/{KEY}/manifest.json")
    artifacts.blobs.remove(old.files["f"].object)
    new = artifacts.publish(artifact(), {"f": b"new"})
    with pytest.raises(Corrupt, match="got nothing"):
        artifacts.read(old, "f")
    assert artifacts.find(KEY) == new


@pytest.mark.parametrize("position", [0, 1, 60, 200, -70, -1])
def test_a_manifest_damaged_at_rest_counts_as_absent(
    artifacts: Artifacts, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    artifacts.publish(artifact(), FILES)
    name = f"artifacts/ab/{KEY}/manifest.json"
    data = bytearray(artifacts.blobs.get(name) or b"")
    data[position] ^= 1
    artifacts.blobs.put(name, bytes(data))
    assert artifacts.find(KEY) is None
    (quarantined,) = artifacts.blobs.names("quarantine/")
    assert artifacts.blobs.get(quarantined) == bytes(data)
    assert f"event=manifest_quarantined key={KEY} where={quarantined}" in caplog.text
    assert artifacts.publish(artifact(), FILES) == artifacts.find(KEY)


def test_a_manifest_of_another_key_counts_as_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifacts = Artifacts(DirectoryBlobs(tmp_path))
    other = artifacts.publish(artifact("ef" * 32), FILES)
    artifacts.blobs.put(f"artifacts/ab/{KEY}/manifest.json", other.to_json().encode())
    assert artifacts.find(KEY) is None
    assert "has key=efef" in caplog.text
    foreign = replace(other, key=KEY)
    artifacts.blobs.put(f"artifacts/ab/{KEY}/manifest.json", foreign.to_json().encode())
    assert artifacts.find(KEY) is None
    assert "names an object of another artifact" in caplog.text
    assert artifacts.find("ef" * 32) == other


def test_a_bit_flipped_on_the_way_is_fetched_again(
    s3_endpoint: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with s3.Proxy(s3_endpoint) as proxy, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        artifacts = Artifacts(open_blobs(s3_uri))
        published = artifacts.publish(artifact(), FILES)
        proxy.faults = [("GET", "flip")] * 2
        assert artifacts.read(published, "weights.safetensors") == FILES["weights.safetensors"]
        assert proxy.faults == []
        proxy.faults = [("GET", "flip")] * 2
        assert artifacts.find(KEY) == published
    assert artifacts.blobs.uri == s3_uri


def test_a_lost_answer_to_the_manifest_is_no_conflict(
    s3_endpoint: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        artifacts = Artifacts(open_blobs(s3_uri))
        proxy.faults = [("PUT", "lost")] * 2  # of the file, then of the manifest
        published = artifacts.publish(artifact(), {"f": b"x"})
        assert proxy.seen.count("PUT") == 4
        assert artifacts.find(KEY) == published
        assert artifacts.blobs.names("conflicts/") == []


def test_corrupt_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(Corrupt(KEY, "f", "1", "2", "quarantine/x")))
    assert (error.key, error.file, error.want, error.got, error.quarantined) == (
        KEY,
        "f",
        "1",
        "2",
        "quarantine/x",
    )
    assert "run again to rebuild the stage" in str(error)


def _publish_for_ever(path: str, attempt: int) -> None:
    artifacts = Artifacts(DirectoryBlobs(path))
    for number in range(1_000_000):
        files = {f"{name}.bin": os.urandom(1 << 16) for name in "abc"}
        artifacts.publish(artifact(f"{attempt:02d}{number:062d}"), files)


def kill_publishers(folder: Path, number: int) -> None:
    """Kill so many publishers one after the other, each soon after its first artifact."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    when = random.Random(0)
    for attempt in range(number):
        publisher = processes.Process(target=_publish_for_ever, args=(str(folder), attempt))
        publisher.start()
        deadline = time.monotonic() + 30
        while not any(folder.glob(f"artifacts/{attempt:02d}/*/manifest.json")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(when.uniform(0.0, 0.03))
        publisher.kill()
        publisher.join()
        assert publisher.exitcode == -9


def test_forty_kills_while_publishing_leave_no_half_artifact(tmp_path: Path) -> None:
    kill_publishers(tmp_path, 40)
    artifacts = Artifacts(DirectoryBlobs(tmp_path))
    keys = artifacts.keys()
    for key in keys:
        found = artifacts.find(key)
        assert found is not None
        assert [len(artifacts.read(found, name)) for name in found.files] == [1 << 16] * 3
    begun = {file.parent for file in tmp_path.glob("artifacts/*/*/*")}
    assert len(begun) > len(keys) >= 40, "no kill hit a publisher at work"
    assert not (tmp_path / "quarantine").exists()

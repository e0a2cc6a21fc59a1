"""What nobody needs goes, what anybody may need stays: kills, and publishes at every step."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.runtime.open_store import open_blobs
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.store import gc
from orchestrator.store.artifacts import Artifacts, Corrupt
from orchestrator.store.blobs import Blobs, Entry, Unfinished
from orchestrator.store.directory import IGNORE_FILES, DirectoryBlobs
from orchestrator.store.gc import Collected, collect
from tests.store.test_artifacts import FILES, KEY, artifact, kill_publishers

ROOT = Path(__file__).resolve().parents[2]
OTHER = "ef" * 32
ONE = {"weights.safetensors": FILES["weights.safetensors"]}
DAY = 24 * 3600.0


@pytest.fixture
def artifacts(blobs: Blobs) -> Artifacts:
    return Artifacts(blobs)


def names(collected: Collected) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in collected.garbage]


def parts(store: Artifacts, key: str = KEY) -> list[str]:
    return [name for name in store.blobs.names(f"artifacts/{key[:2]}/{key}/") if "manifest" not in name]


def leave_parts(store: Artifacts, key: str = KEY, files: Mapping[str, bytes] = FILES) -> list[str]:
    """Leave what a publish that died before its manifest leaves; return the names."""
    store.publish(artifact(key), files)
    store.blobs.remove(f"artifacts/{key[:2]}/{key}/manifest.json")
    return parts(store, key)


def age(folder: Path, seconds: float = 2 * DAY) -> None:
    """Make every file of a directory old."""
    for file in (file for file in folder.rglob("*") if file.is_file()):
        os.utime(file, (time.time() - seconds,) * 2)


def assert_whole(store: Artifacts, key: str = KEY, files: Mapping[str, bytes] = FILES) -> None:
    found = store.find(key)
    assert found is not None
    assert {name: store.read(found, name) for name in found.files} == files


def test_parts_that_no_manifest_names_go_and_nothing_else(artifacts: Artifacts) -> None:
    kept = artifacts.publish(artifact(OTHER), FILES)
    others = ["sweeps/s/journal/1.jsonl", "sweeps/s/report/results.csv", "quarantine/k/0-manifest.json"]
    others += ["conflicts/k/0-manifest.json", "probe", "artifacts/zz/readme", "artifacts/note-of-mine"]
    for name in others:
        artifacts.blobs.put(name, b"kept")
    left = leave_parts(artifacts)
    collected = collect(artifacts, older_than_seconds=0)
    assert names(collected) == [("part", name) for name in left]
    assert sum(one.size for one in collected.garbage) == sum(map(len, FILES.values()))
    assert {one.fault for one in collected.garbage} == {""}
    wanted = [*others, f"artifacts/ef/{OTHER}/manifest.json", *(one.object for one in kept.files.values())]
    assert artifacts.blobs.names("") == sorted(wanted)
    assert_whole(artifacts, OTHER)
    assert collect(artifacts, older_than_seconds=0) == Collected((), (), 0)


def test_a_dry_run_says_the_same_and_removes_nothing(artifacts: Artifacts) -> None:
    left = leave_parts(artifacts)
    artifacts.publish(artifact(OTHER), FILES)
    artifacts.blobs.put(f"checkpoints/{OTHER}.safetensors", b"state")
    before = artifacts.blobs.entries("")
    planned = collect(artifacts, older_than_seconds=0, dry_run=True)
    assert artifacts.blobs.entries("") == before
    assert names(planned) == [
        *(("part", name) for name in left),
        ("checkpoint", f"checkpoints/{OTHER}.safetensors"),
    ]
    assert collect(artifacts, older_than_seconds=0) == planned


def test_what_is_young_stays(artifacts: Artifacts) -> None:
    left = leave_parts(artifacts)
    artifacts.publish(artifact(OTHER), FILES)
    artifacts.blobs.put(f"checkpoints/{OTHER}.safetensors", b"state")
    collected = collect(artifacts, older_than_seconds=3600)
    assert collected == Collected((), (), num_young=len(left))
    assert parts(artifacts) == left


def test_one_young_file_protects_the_old_ones_beside_it(tmp_path: Path) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    left = leave_parts(store)
    age(tmp_path)
    store.blobs.put(left[0], store.blobs.get(left[0]) or b"")  # the first put of a new publish
    assert collect(store, older_than_seconds=DAY) == Collected((), (), num_young=len(left))
    store.publish(artifact(), FILES)
    assert_whole(store)


def test_only_checkpoints_of_published_stages_go(artifacts: Artifacts) -> None:
    artifacts.publish(artifact(OTHER), FILES)
    running, done = f"checkpoints/{KEY}.safetensors", f"checkpoints/{OTHER}.safetensors"
    for name in (running, done, "checkpoints/notes.txt"):
        artifacts.blobs.put(name, b"state")
    assert names(collect(artifacts, older_than_seconds=0)) == [("checkpoint", done)]
    assert artifacts.blobs.names("checkpoints/") == [running, "checkpoints/notes.txt"]


def test_files_of_a_quarantined_and_rebuilt_artifact_go(artifacts: Artifacts) -> None:
    old = artifacts.publish(artifact(), {**FILES, "once": b"only in the first run"})
    artifacts.blobs.put(old.files["empty"].object, b"damage")
    with pytest.raises(Corrupt, match="run again"):
        artifacts.read(old, "empty")
    artifacts.publish(artifact(), FILES)
    collected = collect(artifacts, older_than_seconds=0)
    assert names(collected) == [("part", old.files["once"].object)]
    assert_whole(artifacts)
    assert artifacts.blobs.names("quarantine/")


def test_files_beside_a_manifest_that_cannot_be_read_stay(artifacts: Artifacts) -> None:
    artifacts.publish(artifact(), FILES)
    manifest = f"artifacts/ab/{KEY}/manifest.json"
    artifacts.blobs.put(manifest, b"{}")
    assert collect(artifacts, older_than_seconds=0) == Collected((), (KEY,), 0)
    assert len(parts(artifacts)) == 3
    assert artifacts.blobs.get(manifest) == b"{}"


def test_the_stores_clock_counts_and_leaves_no_trace(blobs: Blobs) -> None:
    assert abs(gc.store_clock_ms(blobs) - time.time() * 1000) < 60_000
    assert blobs.names("") == []


class Slow(DirectoryBlobs):
    """A directory on a server whose clock is a day behind; what it lists says so."""

    def entries(self, prefix: str) -> list[Entry]:
        found = super().entries(prefix)
        return [Entry(one.name, one.size, one.modified_ms - round(1000 * DAY)) for one in found]


def test_a_store_with_another_clock_loses_nothing_young(tmp_path: Path) -> None:
    store = Artifacts(Slow(tmp_path))
    left = leave_parts(store)
    assert collect(store, older_than_seconds=3600) == Collected((), (), num_young=len(left))


def test_a_removal_that_fails_is_told_and_the_rest_goes(tmp_path: Path) -> None:
    class Stubborn(DirectoryBlobs):
        def remove(self, name: str) -> None:
            if name.endswith("-empty"):
                raise PermissionError(13, "Permission denied")
            super().remove(name)

    store = Artifacts(Stubborn(tmp_path))
    left = leave_parts(store)
    faults = {one.name: one.fault for one in collect(store, older_than_seconds=0).garbage}
    assert list(faults) == left
    assert [fault for fault in faults.values() if fault] == ["PermissionError: [Errno 13] Permission denied"]
    assert [name.endswith("-empty") for name in parts(store)] == [True]


class Stepping:
    """A store that calls `at(n)` before its n-th operation, as another process may come in between."""

    def __init__(self, blobs: Blobs, at: Callable[[int], None]) -> None:
        self.blobs, self.at, self.num_steps = blobs, at, 0
        self.uri = blobs.uri

    def __getattr__(self, name: str) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            self.at(self.num_steps)
            self.num_steps += 1
            return getattr(self.blobs, name)(*arguments, **options)

        return step


def collect_with(blobs: Blobs, at: Callable[[int], None]) -> int:
    """Collect garbage with something at every step; return how many steps there were."""
    stepping = Stepping(blobs, at)
    collect(Artifacts(stepping), older_than_seconds=3600)  # type: ignore[arg-type]
    return stepping.num_steps


def old_parts(folder: Path) -> DirectoryBlobs:
    """Return a store in which a publish of KEY died two days ago."""
    blobs = DirectoryBlobs(folder)
    leave_parts(Artifacts(blobs), KEY, ONE)
    age(folder)
    return blobs


def test_a_publish_between_any_two_steps_is_whole(tmp_path: Path) -> None:
    num_steps = collect_with(old_parts(tmp_path / "first"), lambda step: None)
    assert num_steps > 8
    assert parts(Artifacts(DirectoryBlobs(tmp_path / "first"))) == []
    for when in range(num_steps):
        blobs = old_parts(tmp_path / str(when))
        publisher = Artifacts(blobs)

        def publish(step: int) -> None:
            if step == when:  # noqa: B023
                publisher.publish(artifact(), ONE)  # noqa: B023

        collect_with(blobs, publish)
        assert_whole(publisher, KEY, ONE)


def test_a_part_that_an_old_manifest_names_meanwhile_is_never_gone(tmp_path: Path) -> None:
    """As when a store is copied here with its times: nothing is young."""
    blobs = old_parts(tmp_path)
    (name,) = blobs.names("artifacts/")
    publisher = Artifacts(blobs)

    def copy(step: int) -> None:
        if step == INSTANT - 3:  # after the first look at the manifest, before the last
            publisher.publish(artifact(), ONE)
            age(tmp_path)
        assert blobs.get(name) is not None, step

    collect_with(blobs, copy)
    assert_whole(publisher, KEY, ONE)


class Publisher:
    """A publish of KEY in steps: at one step of a collection the files, at another the manifest.

    With `look_at` it looks then whether its files are still there, and puts again what is not.
    """

    def __init__(self, folder: Path, files_at: int, manifest_at: int, look_at: int | None = None) -> None:
        self.blobs = old_parts(folder)
        self.store = Artifacts(self.blobs)
        done = self.store.publish(artifact(), ONE)
        self.manifest = f"artifacts/ab/{KEY}/manifest.json"
        self.blobs.remove(self.manifest)
        age(folder)
        self.files = {file.object: ONE[name] for name, file in done.files.items()}
        self.steps = [(files_at, self.files), (manifest_at, {self.manifest: done.to_json().encode()})]
        self.look_at = look_at

    def reach(self, step: int) -> None:
        """Do what is due at this step."""
        while self.steps and self.steps[0][0] <= step:
            for name, data in self.steps.pop(0)[1].items():
                self.blobs.put(name, data)
        if self.look_at is not None and self.look_at <= step:
            self.look_at = None
            there = self.blobs.names(f"artifacts/ab/{KEY}/")
            self.steps = [(step, {name: data for name, data in self.files.items() if name not in there})]
            self.reach(step)


def test_files_at_one_step_and_the_manifest_at_another_cost_a_rebuild_at_worst(tmp_path: Path) -> None:
    """Only files put in the instant between the last look and the removal can go; a read then says so."""
    num_steps = collect_with(old_parts(tmp_path / "first"), lambda step: None)
    rebuilt = []
    for files_at in range(num_steps):
        for manifest_at in range(files_at, num_steps + 1):
            publisher = Publisher(tmp_path / f"{files_at}-{manifest_at}", files_at, manifest_at)
            collect_with(publisher.blobs, publisher.reach)
            publisher.reach(num_steps)
            try:
                assert_whole(publisher.store, KEY, ONE)
            except Corrupt:
                rebuilt.append((files_at, manifest_at))
                publisher.store.publish(artifact(), ONE)
                assert_whole(publisher.store, KEY, ONE)
    assert {files_at for files_at, _ in rebuilt} == {INSTANT}


INSTANT = 8
"""The step of a collection between the last look at the part and its removal."""


def test_a_publisher_that_looks_again_after_its_manifest_loses_nothing(tmp_path: Path) -> None:
    num_steps = collect_with(old_parts(tmp_path / "first"), lambda step: None)
    for manifest_at in range(INSTANT, num_steps + 1):
        for look_at in range(manifest_at, num_steps + 1):
            publisher = Publisher(tmp_path / f"{manifest_at}-{look_at}", INSTANT, manifest_at, look_at)
            collect_with(publisher.blobs, publisher.reach)
            publisher.reach(num_steps)
            assert_whole(publisher.store, KEY, ONE)


PUBLISH = """
import sys, time
from orchestrator.store.artifacts import Artifact
from orchestrator.runtime.open_store import open_artifacts
store, key, pause = open_artifacts(sys.argv[1]), sys.argv[2], sys.argv[3]
put = store.blobs.put
def put_or_wait(name, data, **options):
    if name.endswith(pause):
        print("waits", flush=True)
        time.sleep(600)
    return put(name, data, **options)
store.blobs.put = put_or_wait
files = {name: name.encode() * 50_000 for name in ("a.bin", "b.bin", "c.bin")}
store.publish(Artifact(key, "target", 1, {}), files)
"""


@pytest.mark.parametrize(("pause", "num_parts"), [("-b.bin", 1), ("manifest.json", 3)])
def test_a_killed_publish_leaves_parts_that_go_and_can_be_published_again(
    artifacts: Artifacts, pause: str, num_parts: int
) -> None:
    artifacts.publish(artifact(OTHER), FILES)
    words = [sys.executable, "-c", PUBLISH, artifacts.blobs.uri, KEY, pause]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as publisher:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "waits\n"
        publisher.send_signal(signal.SIGKILL)
        assert publisher.wait(30) == -signal.SIGKILL
    assert len(parts(artifacts)) == num_parts
    assert collect(artifacts, older_than_seconds=3600).num_young == num_parts
    collected = collect(artifacts, older_than_seconds=0)
    assert [(one.kind, one.size) for one in collected.garbage] == [("part", 250_000)] * num_parts
    assert artifacts.blobs.names(f"artifacts/ab/{KEY}/") == []
    artifacts.publish(artifact(), FILES)
    assert_whole(artifacts)
    assert_whole(artifacts, OTHER)


def test_twenty_kills_at_any_moment_leave_nothing_that_stays(tmp_path: Path) -> None:
    kill_publishers(tmp_path, 20)
    store = Artifacts(DirectoryBlobs(tmp_path))
    keys = store.keys()
    collected = collect(store, older_than_seconds=0)
    assert collected.garbage, "no kill hit a publisher at work"
    assert {one.kind for one in collected.garbage} <= {"part", "leftover"}
    assert store.keys() == keys
    named = {file.object for key in keys if (one := store.find(key)) for file in one.files.values()}
    manifests = {f"artifacts/{key[:2]}/{key}/manifest.json" for key in keys}
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left - {f"artifacts/{name}" for name in IGNORE_FILES} == named | manifests


def test_leftovers_of_dead_writers_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print(end='')"]
    with subprocess.Popen(words) as dead:
        dead.wait()
    store = Artifacts(DirectoryBlobs(tmp_path / "store"))
    store.publish(artifact(OTHER), FILES)
    host = next(iter(_aside_of_a_put(tmp_path / "elsewhere"))).split("-")[1]
    folder = tmp_path / "store" / "artifacts" / "ef" / OTHER
    gone, stays = (folder / f".aside-{host}-{pid}-{os.urandom(8).hex()}" for pid in (dead.pid, os.getpid()))
    for file in (gone, stays):
        file.write_bytes(b"half")
    age(tmp_path / "store")
    planned = collect(store, older_than_seconds=DAY, dry_run=True)
    assert {name for _, name in names(planned)} >= {gone.relative_to(tmp_path / "store").as_posix()}
    assert gone.exists()
    collected = collect(store, older_than_seconds=DAY)
    assert names(collected) == [("leftover", gone.relative_to(tmp_path / "store").as_posix())]
    assert [one.size for one in collected.garbage] == [4]
    assert (gone.exists(), stays.exists()) == (False, True)
    assert_whole(store, OTHER)


def _aside_of_a_put(folder: Path) -> Iterator[str]:
    """Yield the name that a put of this process gives its file until it is whole."""
    with pytest.MonkeyPatch.context() as patch:
        seen: list[str] = []
        patch.setattr("os.replace", lambda aside, final: seen.append(aside.name))
        DirectoryBlobs(folder).put("x", b"1")
    yield from seen


def test_publishes_among_collections_end_whole(blobs: Blobs) -> None:
    """Every file is overwritten and published while collections of what is older than 2 s go on."""
    store = Artifacts(blobs)
    keys = [f"{number:02d}" * 32 for number in range(12)]
    for key in keys:
        leave_parts(store, key)
    time.sleep(3.2)  # the parts are old now; a listing of S3 rounds to seconds
    has_begun, is_over = threading.Event(), threading.Event()
    found: list[Collected] = []
    other = Artifacts(open_blobs(blobs.uri))  # now: a client of S3 takes a busy machine seconds

    def collect_on() -> None:
        has_begun.set()
        while not is_over.is_set():
            found.append(collect(other, older_than_seconds=2))

    collector = threading.Thread(target=collect_on)
    collector.start()
    has_begun.wait()
    try:
        for key in keys:
            store.publish(artifact(key), FILES)
            time.sleep(0.05)
    finally:
        is_over.set()
        collector.join()
    assert sum(len(collected.garbage) for collected in found) > 0
    whole = [key for key in keys if is_whole(store, key)]
    assert len(whole) >= 10, "a publish hit the instant of a removal more than now and then"
    for key in keys:
        store.publish(artifact(key), FILES)
        assert_whole(store, key)


def is_whole(store: Artifacts, key: str) -> bool:
    """Return whether an artifact is published and whole; a damaged one is quarantined by the way."""
    try:
        assert_whole(store, key)
    except Corrupt:
        return False
    return True


@pytest.fixture
def bucket(s3_uri: str) -> S3Blobs:
    opened = open_blobs(s3_uri)
    assert isinstance(opened, S3Blobs)
    return opened


def begin_upload(bucket: S3Blobs, name: str, *sizes: int) -> None:
    """Begin an upload, send some parts of it and leave it."""
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    key = f"{bucket.prefix}/{name}"
    begun = client.create_multipart_upload(Bucket=bucket.bucket, Key=key)["UploadId"]
    for number, size in enumerate(sizes, start=1):
        client.upload_part(Bucket=bucket.bucket, Key=key, UploadId=begun, PartNumber=number, Body=bytes(size))


def test_uploads_that_nobody_completed_are_aborted(bucket: S3Blobs) -> None:
    store = Artifacts(bucket)
    name = f"artifacts/ab/{KEY}/0123456789ab-model.safetensors"
    begin_upload(bucket, name, 5 << 20, 1 << 20)
    begin_upload(S3Blobs(bucket.bucket, "another"), name, 1 << 20)
    planned = collect(store, older_than_seconds=0, dry_run=True)
    assert names(planned) == [("upload", name)]
    assert planned.garbage[0].size == 6 << 20
    assert planned.garbage[0].upload
    assert collect(store, older_than_seconds=0) == planned
    assert bucket.unfinished() == []
    assert len(S3Blobs(bucket.bucket, "another").unfinished()) == 1


def test_a_young_upload_stays(bucket: S3Blobs) -> None:
    class TwoUploads(S3Blobs):
        discarded: list[str] = []  # noqa: RUF012 - of the one instance

        def unfinished(self) -> list[Unfinished]:
            now = round(time.time() * 1000)
            return [
                Unfinished("upload", str(hours), 1, now - hours * 3_600_000, str(hours)) for hours in (1, 48)
            ]

        def discard(self, write: Unfinished) -> None:
            self.discarded.append(write.upload_id)

    store = TwoUploads(bucket.bucket, bucket.prefix)
    assert names(collect(Artifacts(store), older_than_seconds=DAY)) == [("upload", "48")]
    assert store.discarded == ["48"]


def test_a_store_without_maintenance_is_collected_too() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    store.publish(artifact(), FILES)
    assert collect(store, older_than_seconds=DAY) == Collected((), (), 0)

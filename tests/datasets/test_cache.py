"""The node's cache: one download for all processes, first uses verified, no read fails on a full disk."""

import logging
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from orchestrator.datasets import Location, cache, catalog, load, staging
from orchestrator.datasets.builtin import MemoryBlobs, digits
from orchestrator.datasets.cache import Cache, Wanted, can_map, has_room, map_verified, read_verified
from orchestrator.datasets.manifest import File, Options
from orchestrator.datasets.staging import publish
from orchestrator.runtime.open_store import open_blobs
from orchestrator.runtime.s3 import transfer
from orchestrator.store.blobs import sha256
from orchestrator.store.directory import IGNORE_FILES, DirectoryBlobs
from tests import s3

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Counting(MemoryBlobs):
    """Counts what is read; hands out a wrong answer as often as asked."""

    reads = 0
    wrong = 0

    def get(self, name: str) -> bytes | None:
        """Return the object, perhaps with a bit turned."""
        self.reads += 1
        data = super().get(name)
        if data is None or not self.wrong:
            return data
        self.wrong -= 1
        return bytes([data[0] ^ 1]) + data[1:]


@pytest.fixture
def blobs() -> Counting:
    return Counting("memory")


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has verified and told; let files settle at once."""
    monkeypatch.setattr(cache, "_VERIFIED", {})
    monkeypatch.setattr(cache, "_WARNED", set())
    monkeypatch.setattr(cache, "_SETTLED_NS", 0)


def wanted(blobs: MemoryBlobs, data: bytes = CONTENT) -> Wanted:
    """Store the bytes as a file of a set."""
    digest = sha256(data)
    file = File(name=f"labels-{digest[:12]}.npy", size=len(data), sha256=digest)
    blobs.put(f"set/{file.name}", data)
    return Wanted(blobs, "set", file)


def cached(folder: Path) -> list[str]:
    """Return the names of what is in the folder besides locks and ignore files."""
    names = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
    return sorted(names - set(IGNORE_FILES))


def test_a_file_is_hashed_once_in_a_process_and_again_when_it_changed(
    blobs: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    fill = cache._fill

    def watched(*arguments: object, is_hashed: bool) -> str:
        hashed.append(is_hashed)
        return fill(*arguments, is_hashed=is_hashed)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_fill", watched)
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    for _ in range(4):
        assert read_verified(one, node) == CONTENT
    assert (blobs.reads, hashed) == (1, [True, False, False])
    path = tmp_path / one.file.sha256
    before = path.stat()
    with path.open("r+b") as handle:
        handle.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # somebody who hides it
    assert read_verified(one, node) == CONTENT
    assert blobs.reads == 2
    assert True in hashed[3:]


def test_a_mapped_file_is_downloaded_and_hashed_once(
    blobs: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def watched(*data: memoryview) -> str:
        hashed.append(len(data[0]))
        return sha256(*data)

    monkeypatch.setattr(cache, "sha256", watched)
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    for _ in range(3):
        mapped = map_verified(one, node)
        assert isinstance(mapped, mmap.mmap)
        assert bytes(mapped) == CONTENT
    assert (blobs.reads, hashed) == (1, [len(CONTENT)] * 2)  # as downloaded, as mapped
    (tmp_path / one.file.sha256).unlink()  # to make room; a mapping outlives its file
    assert bytes(mapped) == CONTENT
    with pytest.raises(TypeError, match="readonly"):
        mapped[0] = 1  # type: ignore[index]


@pytest.mark.parametrize("change", [b"\xfe", b""])
def test_a_damaged_file_is_not_mapped_but_downloaded_again(
    blobs: Counting, tmp_path: Path, change: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    read_verified(one, node)
    (tmp_path / one.file.sha256).write_bytes(CONTENT[:-1] + change)
    assert bytes(map_verified(one, node)) == CONTENT
    assert blobs.reads == 2
    assert "event=cache_damaged" in caplog.text


def test_a_file_that_is_written_while_it_is_hashed_is_not_mapped(
    blobs: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    read_verified(one, node)
    path = tmp_path / one.file.sha256

    def written_after(*data: memoryview) -> str:
        digest = sha256(*data)
        if blobs.reads == 1:
            with path.open("r+b") as handle:
                handle.write(b"\xff")
        return digest

    cache._VERIFIED.clear()
    monkeypatch.setattr(cache, "sha256", written_after)
    assert bytes(map_verified(one, node)) == CONTENT
    assert blobs.reads == 2
    assert "event=cache_damaged" in caplog.text


def test_a_store_in_a_folder_is_mapped_where_it_is(tmp_path: Path) -> None:
    folder = DirectoryBlobs(tmp_path)
    digest = sha256(CONTENT)
    one = Wanted(folder, "set", File(name=f"labels-{digest[:12]}.npy", size=len(CONTENT), sha256=digest))
    with pytest.raises(ValueError, match="got no such file"):
        map_verified(one, None)
    folder.put(one.name, CONTENT)
    assert isinstance(map_verified(one, None), mmap.mmap)
    folder.put(one.name, CONTENT[:-1] + b"\xfe")
    with pytest.raises(ValueError, match=rf"does not match its manifest: want SHA-256 {digest}, got"):
        map_verified(one, None)


def test_a_file_that_no_disk_keeps_is_read_into_memory(
    blobs: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = wanted(blobs)
    for node in (None, *[Cache(tmp_path, len(CONTENT) - 1)] * 2):
        assert map_verified(one, node) == CONTENT
    assert blobs.reads == 3
    assert caplog.text.count(f"event=file_not_mapped folder={tmp_path} ") == 1, "told once"


def test_files_can_be_mapped_where_a_disk_has_room_for_all_of_them(blobs: Counting, tmp_path: Path) -> None:
    assert can_map(DirectoryBlobs(tmp_path), None, 1 << 50)
    assert not can_map(blobs, None, 1)
    assert can_map(blobs, Cache(tmp_path, 100), 100)
    assert not can_map(blobs, Cache(tmp_path, 100), 101)


def test_the_disk_needs_room_for_what_is_not_cached_of_a_set(
    blobs: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (wanted(blobs, bytes([number]) * 1000) for number in range(2))
    node, files = Cache(tmp_path / "new" / "cache", 1 << 30), [first.file, second.file]
    free = {"bytes": 2000}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free["bytes"]))
    assert has_room(node, files)
    free["bytes"] = 1999
    assert not has_room(node, files)
    read_verified(first, node)
    free["bytes"] = 1000
    assert has_room(node, files)
    free["bytes"] = 999
    assert not has_room(node, files)


def test_a_file_that_changed_a_moment_ago_is_hashed_again(
    blobs: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED_NS", 3600 * 10**9)
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    for _ in range(3):
        read_verified(one, node)
    assert cache._VERIFIED == {}


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "swap"])
def test_a_damaged_file_is_downloaded_again(
    blobs: Counting, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    read_verified(one, node)
    path = tmp_path / one.file.sha256
    bad = {
        "flip": CONTENT[:500_000] + bytes([CONTENT[500_000] ^ 1]) + CONTENT[500_001:],
        "truncate": CONTENT[:-1],
        "extend": CONTENT + b"\0",
        "swap": bytes(len(CONTENT)),
    }
    path.write_bytes(bad[damage])
    with caplog.at_level(logging.WARNING):
        assert read_verified(one, node) == CONTENT
    assert f"event=cache_damaged file={path}" in caplog.text
    assert path.read_bytes() == CONTENT
    assert blobs.reads == 2


def test_a_bit_turned_on_the_way_is_fetched_again_and_one_at_rest_is_an_error(
    blobs: Counting, tmp_path: Path
) -> None:
    one, node = wanted(blobs), Cache(tmp_path, 1 << 30)
    blobs.wrong = 2
    assert read_verified(one, node) == CONTENT
    shutil.rmtree(tmp_path)
    blobs.wrong = 3
    with pytest.raises(
        ValueError, match=rf"^memory/set/\S+ does not match its manifest: want SHA-256 {sha256(CONTENT)}"
    ):
        read_verified(one, node)
    assert cached(tmp_path) == []


def test_a_new_folder_stays_out_of_git_and_of_packages(blobs: Counting, tmp_path: Path) -> None:
    node = Cache(tmp_path / "cache", 2500)
    for number in range(3):
        read_verified(wanted(blobs, bytes([number]) * 1000), node)
    assert [(node.folder / name).read_text() for name in IGNORE_FILES] == ["*\n", "*\n"]
    assert len(cached(node.folder)) == 2


def test_the_files_used_longest_ago_go_first(blobs: Counting, tmp_path: Path) -> None:
    first, second, third = (wanted(blobs, bytes([number]) * 1000) for number in range(3))
    node = Cache(tmp_path, 2500)
    for one in (first, second, first, third):
        read_verified(one, node)
    assert cached(tmp_path) == sorted(one.file.sha256 for one in (first, third))
    read_verified(wanted(blobs, bytes(3000)), node)
    assert len(cached(tmp_path)) == 2, "a file above the limit pushed others out"


KILLED = """
import sys, time
from pathlib import Path
from orchestrator.datasets import cache
path = Path(sys.argv[1])
with cache._locked(path):
    path.with_suffix(".part").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(
    blobs: Counting, tmp_path: Path
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / (letter * 64))], stdout=subprocess.PIPE, cwd=ROOT
        )
        for letter in "ab"
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait(30)
        (tmp_path / f"{'c' * 64}.123.part").write_bytes(b"as an earlier release called them")
        one = wanted(blobs)
        read_verified(one, Cache(tmp_path, 1 << 30))
        assert cached(tmp_path) == sorted([one.file.sha256, f"{'b' * 64}.part"])
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(30)
            assert writer.stdout is not None
            writer.stdout.close()


LOAD = """
import logging, sys
from pathlib import Path
from orchestrator.datasets import Location, load
from orchestrator.runtime.open_store import open_blobs
logging.basicConfig(level=logging.WARNING)
for name in sys.argv[3:]:
    print(load(name, Location(open_blobs(sys.argv[1]), Path(sys.argv[2]))).images.sum(), flush=True)
"""


def test_the_processes_of_a_node_cause_one_download(
    s3_endpoint: str, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(digits(), Options(), open_blobs(s3_uri), "numbers")
    with s3.Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        command = [sys.executable, "-c", LOAD, s3_uri, str(tmp_path), "numbers"]
        loading = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
        sums = {process.communicate(timeout=120)[0] for process in loading}
    assert sums == {f"{load('digits', Location()).images[:].sum()}\n"}
    files = Counter(path for method, path, _ in proxy.asked if method == "GET" and path.endswith(".npy"))
    assert len(files) == 5  # one shard, labels, three splits
    assert set(files.values()) == {1}


def test_a_flipped_range_of_a_large_shard_is_noticed(
    s3_endpoint: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(digits(), Options(), open_blobs(s3_uri), "numbers")
    monkeypatch.setattr(transfer, "LARGE_BYTES", 500_000)
    monkeypatch.setattr(transfer, "PART_BYTES", 500_000)
    with s3.Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults = [("GET", ""), ("GET", "cut"), ("GET", "flip")]  # manifest, stream, a range of the rest
        dataset = load("numbers", Location(open_blobs(s3_uri)))
    assert np.array_equal(dataset.images[:], load("digits", Location()).images[:])
    assert proxy.faults == []
    assert sum(wanted == "" for _, path, wanted in proxy.asked if "images-" in path) == 2


ON_TMPFS = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """Return how a command starts that sees a real disk of 3 MiB in tmp_path/disk, or skip."""
    disk = tmp_path / "disk"
    disk.mkdir()
    start = ["unshare", "-rm", "sh", "-c", ON_TMPFS, "sh", "3m", str(disk)]
    try:
        subprocess.run([*start, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this machine lets no user mount a tmpfs in a namespace of their own")
    return start


def run(start: list[str], *command: str) -> tuple[list[str], str]:
    """Run to the end; return the lines of its output and what it logged."""
    done = subprocess.run(
        [*start, *command], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def publish_digits(store: Path, *names: str) -> None:
    """Stage the digits, 1.8 MB, under each name; no two with the same bytes."""
    for number, name in enumerate(names):
        tone = partial(_toned, number)
        publish(digits().converted(tone), Options(), DirectoryBlobs(store), name)


def _toned(number: int, image: np.ndarray, _: str) -> np.ndarray:
    return image ^ np.uint8(number)


def test_a_full_disk_makes_room_by_what_was_used_longest_ago(small_disk: list[str], tmp_path: Path) -> None:
    publish_digits(tmp_path / "store", "one", "two")
    after = f"{LOAD}\nprint(*sorted(path.name for path in Path(sys.argv[2]).iterdir()))"
    command = [sys.executable, "-c", after, str(tmp_path / "store"), str(tmp_path / "disk"), "one", "two"]
    (*sums, files), log = run(small_disk, *command)
    assert len(set(sums)) == 2
    assert "cache_full" not in log
    shards = [next((tmp_path / "store" / name).glob("images-*")).read_bytes() for name in ("one", "two")]
    assert [sha256(shard) in files.split() for shard in shards] == [False, True]
    assert ".part" not in files


def test_a_disk_that_others_filled_does_not_fail_the_read(small_disk: list[str], tmp_path: Path) -> None:
    publish_digits(tmp_path / "store", "one", "two")
    disk = tmp_path / "disk"
    fill = f"head -c 2500000 /dev/zero > {disk}/others; mkdir {disk}/cache; "
    after = f"{LOAD}\nprint(*sorted(path.name for path in Path(sys.argv[2]).glob('*.part')))"
    command = [sys.executable, "-c", after, str(tmp_path / "store"), str(disk / "cache"), "one", "two"]
    (*sums, parts), log = run(small_disk, "sh", "-c", fill + 'exec "$@"', "sh", *command)
    assert len(set(sums)) == 2
    assert log.count("event=cache_full") == 1, "told once"
    assert f"folder={disk}/cache error='No space left on device'" in log
    assert parts == ""


def test_a_read_only_disk_does_not_fail_the_read(small_disk: list[str], tmp_path: Path) -> None:
    publish_digits(tmp_path / "store", "one", "two")
    disk = tmp_path / "disk"
    load_one = [sys.executable, "-c", LOAD, str(tmp_path / "store"), str(disk)]
    script = (
        '"$@" one && mount -o remount,ro "$0" && mv "$0/../store/one" "$0/../gone" && mkdir "$0/../store/one"'
    )
    script += ' && cp "$0/../gone/manifest.json" "$0/../store/one" && exec "$@" one two'
    sums, log = run(small_disk, "sh", "-c", script, str(disk), *load_one)
    assert sums[0] == sums[1] != sums[2]  # the second time from the cache: the store had no shard any more
    assert log.count("event=cache_full") == 1
    assert "error='Read-only file system'" in log


def test_a_file_too_large_for_the_disk_does_not_fail_the_read(tmp_path: Path) -> None:
    publish_digits(tmp_path / "store", "one")
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{LOAD}"
    command = [sys.executable, "-c", limited, str(tmp_path / "store"), str(tmp_path / "cache"), "one"]
    sums, log = run([], *command)
    assert sums == [str(load("one", Location(DirectoryBlobs(tmp_path / "store"))).images[:].sum())]
    assert log.count("event=cache_full") == 1
    assert "error='File too large'" in log
    assert len(cached(tmp_path / "cache")) == 4  # labels and splits


def test_what_is_no_lack_of_room_is_an_error(blobs: Counting, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        read_verified(wanted(blobs), Cache(tmp_path / "file" / "cache", 1 << 30))


def test_shards_are_read_at_once_but_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SHARD_BYTES", 100 * 1024)
    meeting = threading.Barrier(2, timeout=60)
    busy: list[int] = []
    most = []

    class Meeting(MemoryBlobs):
        def get(self, name: str) -> bytes | None:
            if "images-" in name:
                busy.append(1)
                most.append(len(busy))
                meeting.wait()
                busy.pop()
            return super().get(name)

    there = Meeting("memory")
    manifest, _ = publish(digits(), Options(), there, "numbers")
    assert len(manifest.images) == 18
    assert np.array_equal(load("numbers", Location(there)).images[:], load("digits", Location()).images[:])
    assert 2 <= max(most) <= catalog.READERS

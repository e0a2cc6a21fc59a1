"""Contract of byte stores, on a directory and on an S3 server over HTTP, and what each of them adds.

Spans store/blobs, store/directory, runtime/open_store and runtime/s3/blobs.
"""

import logging
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.runtime.s3 import retry
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.runtime.s3.errors import StoreError
from orchestrator.store import directory
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import s3


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests be repeated without waiting and without a least time."""
    monkeypatch.setattr(retry, "back_off", lambda attempt: None)
    monkeypatch.setitem(retry.RETRIES, "request", replace(retry.RETRIES["request"], seconds=0.0))


def test_an_object_comes_back_as_it_was_put(blobs: Blobs) -> None:
    data = bytes(range(256)) * 1000
    assert blobs.get("a/b.bin") is None
    assert blobs.put("a/b.bin", data)
    assert blobs.get("a/b.bin") == data
    assert blobs.put("a/b.bin", b"")
    assert blobs.get("a/b.bin") == b""


def test_without_overwrite_the_first_object_stays(blobs: Blobs) -> None:
    assert blobs.put("once", b"first", overwrite=False)
    assert not blobs.put("once", b"second", overwrite=False)
    assert blobs.get("once") == b"first"


def test_names_are_sorted_and_filtered_by_prefix(blobs: Blobs) -> None:
    assert blobs.names("") == []
    for name in ("b/2", "a", "b/1", "b-2", "c/d/e"):
        blobs.put(name, b"x")
    assert blobs.names("") == ["a", "b-2", "b/1", "b/2", "c/d/e"]
    assert blobs.names("b/") == ["b/1", "b/2"]
    assert blobs.names("b") == ["b-2", "b/1", "b/2"]
    assert blobs.names("c/d") == ["c/d/e"]
    assert blobs.names("none/") == []


def test_entries_have_sizes_and_recent_times(blobs: Blobs) -> None:
    blobs.put("b/2", b"four")
    blobs.put("a", b"")
    found = blobs.entries("")
    assert [(entry.name, entry.size) for entry in found] == [("a", 0), ("b/2", 4)]
    assert all(abs(entry.modified_ms - time.time() * 1000) < 60_000 for entry in found)
    assert [entry.name for entry in blobs.entries("b/")] == ["b/2"]


def test_removing_twice_is_no_error(blobs: Blobs) -> None:
    blobs.put("gone", b"x")
    blobs.remove("gone")
    blobs.remove("gone")
    assert blobs.get("gone") is None
    assert blobs.names("") == []


def test_a_name_below_an_object_is_absent(blobs: Blobs) -> None:
    blobs.put("a", b"x")
    assert blobs.get("a/b") is None
    blobs.remove("a/b")


OUTSIDE = ["", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "a b", "a\n", ".hidden", "\u00e4", "x" * 513]


def test_a_name_that_could_leave_the_root_is_refused(blobs: Blobs) -> None:
    for name in OUTSIDE:
        with pytest.raises(ValueError, match=r"^blob name .* must be 1\.\.512 of A-Z"):
            blobs.put(name, b"x")
        with pytest.raises(ValueError, match=r"^blob name .* rename it\.$"):
            blobs.get(name)


def test_a_listing_never_leaves_the_root(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    blobs.put("a", b"x")
    for prefix in ("../", "../o", "a/../../", "/", "."):
        with pytest.raises(ValueError, match=r"^blob name .* must be 1\.\.512 of A-Z"):
            blobs.names(prefix)


def test_a_store_works_on_both_sides_of_a_fork(blobs: Blobs) -> None:
    blobs.put("a", b"x")
    child = multiprocessing.get_context("fork").Process(target=blobs.put, args=("b", b"y"))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert (blobs.get("a"), blobs.get("b")) == (b"x", b"y")


def test_sixteen_writers_of_one_name_have_one_winner(blobs: Blobs, proxy: s3.Proxy) -> None:
    def race(key: int) -> None:
        def write(writer: int) -> bool:
            return blobs.put(f"race/{key}", f"writer {writer}".encode(), overwrite=False)

        won = list(threads.map(write, range(16)))
        assert won.count(True) == 1, f"key {key} has {won.count(True)} winners"
        assert blobs.get(f"race/{key}") == f"writer {won.index(True)}".encode()

    with ThreadPoolExecutor(16) as threads:
        for key in range(8):
            race(key)


def test_a_pickled_store_works_and_carries_no_secret(blobs: Blobs) -> None:
    blobs.put("a", b"x")
    pickled = pickle.dumps(blobs)
    assert s3.CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    assert pickle.loads(pickled).get("a") == b"x"


def test_the_uri_opens_the_same_store(blobs: Blobs) -> None:
    blobs.put("a", b"x")
    assert open_blobs(blobs.uri).get("a") == b"x"


def test_a_store_in_order_passes_the_check_twice(blobs: Blobs) -> None:
    check(blobs)
    check(blobs)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("", "store='' names no store; use /dir, file:///dir or s3://bucket/prefix"),
        ("gs://bucket/x", "unknown scheme 'gs'; use /dir, file:///dir or s3://bucket/prefix"),
        ("file://host/dir", "must have three slashes, as in file:///dir"),
        ("s3://Bad_Bucket/x", "'Bad_Bucket' is no bucket name"),
        ("s3:///x", "'' is no bucket name"),
        ("s3://bucket/../x", "blob name '../x' must be"),
        ("s3://AKIA:hunter2@bucket/x", "must carry no credentials, query or fragment"),
        ("s3://AKIA:hunter2/x", "must carry no credentials, query or fragment"),
        ("s3://bucket/x?secret=hunter2", "must carry no credentials, query or fragment"),
        ("https://user:hunter2@host/x", "must carry no credentials, query or fragment"),
    ],
)
def test_a_wrong_uri_says_what_to_write(uri: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^(store|blob name)") as caught:
        open_blobs(uri)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_with_odd_characters_survives_its_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c@d"
    DirectoryBlobs(folder).put("x", b"1")
    assert open_blobs(DirectoryBlobs(folder).uri).get("x") == b"1"
    assert open_blobs(str(folder)).get("x") == b"1"


def test_a_directory_that_is_a_file_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"cannot be written \(.*\); name a writable directory with --store"):
        check(DirectoryBlobs(tmp_path / "file"))


def test_what_dead_writers_left_is_hidden_and_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    blobs = DirectoryBlobs(tmp_path)
    blobs.put("a/x", b"1")
    left = [
        _aside(tmp_path, directory.HOST, pid, age)
        for pid, age in ((dead.pid, 7200), (dead.pid, 0), (os.getpid(), 7200))
    ]
    other_host = [_aside(tmp_path, "00000000", dead.pid, age) for age in (7200, 90_000)]
    assert blobs.names("") == ["a/x"]
    assert blobs.sweep() == 2
    assert [file.exists() for file in left] == [False, True, True]
    assert [file.exists() for file in other_host] == [True, False]
    assert blobs.get("a/x") == b"1"


def test_folders_in_a_directory_stay_out_of_git_and_of_packages(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "root")
    blobs.put("set/splits/half", b"x")
    hidden = [tmp_path / "root" / "set" / name for name in (".gitignore", ".rayignore")]
    assert [file.read_text() for file in hidden] == ["*\n", "*\n"]
    assert blobs.names("") == ["set/splits/half"]
    assert blobs.unfinished() == []
    blobs.put("top", b"x")  # the root may be a folder of the user, with ignore files of its own
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"set", "top"}
    for file in hidden:
        file.unlink()
    hidden[0].write_text("kept")
    blobs.put("set/again", b"x")
    assert [file.read_text() for file in hidden] == ["kept", "*\n"]


def _aside(root: Path, host: str, pid: int, age: float) -> Path:
    file = root / "a" / f".aside-{host}-{pid}-{os.urandom(8).hex()}"
    file.write_bytes(b"half")
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from orchestrator.store.directory import DirectoryBlobs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "DirectoryBlobs(sys.argv[1]).put('a', bytes(5000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_lost_answer_to_a_conditional_put_is_a_success(proxy: s3.Proxy, s3_uri: str) -> None:
    proxy.faults = [("PUT", "lost")]
    blobs = open_blobs(s3_uri)
    proxy.seen.clear()
    assert blobs.put("once", b"mine", overwrite=False)
    assert proxy.seen[:2] == ["PUT", "PUT"], "the answer was not lost"
    assert not blobs.put("once", b"other", overwrite=False)
    assert blobs.get("once") == b"mine"


def test_eight_slow_downs_in_a_row_are_survived(proxy: s3.Proxy, s3_uri: str, without_pauses: None) -> None:
    proxy.faults = [("PUT", "503")] * 8
    assert open_blobs(s3_uri).put("a", b"x")
    assert proxy.faults == []


def test_a_conflict_of_writers_is_tried_again(proxy: s3.Proxy, s3_uri: str, without_pauses: None) -> None:
    blobs = open_blobs(s3_uri)
    proxy.faults = [("PUT", "409")] * 3
    assert blobs.put("a", b"x", overwrite=False)
    proxy.faults = [("PUT", "409")] * 5
    with pytest.raises(StoreError, match=r"/store/b: http://\S+ is overloaded .*ConditionalRequestConflict"):
        blobs.put("b", b"x", overwrite=False)


def test_an_answer_cut_short_is_asked_for_again(proxy: s3.Proxy, s3_uri: str, without_pauses: None) -> None:
    blobs = open_blobs(s3_uri)
    data = os.urandom(100_000)
    blobs.put("a", data)
    proxy.faults = [("GET", "cut")] * 9
    assert blobs.get("a") == data
    proxy.faults = [("GET", "cut")] * 10
    with pytest.raises(StoreError, match=r"/store/a: .*IncompleteReadError.*try again later"):
        blobs.get("a")


def test_a_dripping_answer_is_given_up(
    proxy: s3.Proxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "SLOW_SECONDS", 0.3)
    blobs = open_blobs(s3_uri)
    blobs.put("a", bytes(10_000))
    proxy.faults = [("GET", "drip")]
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert blobs.get("a") == bytes(10_000)
    assert time.monotonic() - started < 10  # all of it would take 500 s
    assert "error=TimeoutError" in caplog.text


def test_a_missing_bucket_fails_the_check(s3_endpoint: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"^store=s3://no-such-bucket/p cannot be used: bucket no-such-bucket does not exist at",
    ):
        check(S3Blobs("no-such-bucket", "p"))


def test_a_place_to_read_from_need_not_be_writable(blobs: Blobs) -> None:
    blobs.put("a", b"x")
    check(blobs, option="--data", writes=False)
    assert blobs.names("") == ["a"]


def test_a_missing_place_to_read_from_names_its_option(s3_endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^data=s3://no-such-bucket cannot be used: bucket .* with --data\.$"
    ):
        check(S3Blobs("no-such-bucket", ""), option="--data", writes=False)
    with pytest.raises(ValueError, match=r"^data=/.*/none is no directory; name another with --data\.$"):
        check(DirectoryBlobs(tmp_path / "none"), option="--data", writes=False)


def test_a_server_that_is_away_fails_the_check(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hunter2@127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ValueError, match=r"no answer from http://127\.0\.0\.1:\d+ ") as caught:
            check(open_blobs(s3_uri))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["no-scheme", "http://", "ftp://127.0.0.1"])
def test_a_wrong_endpoint_fails_the_check(
    s3_uri: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ValueError, match=r"^store=s3://[^\n]*AWS_[^\n]*$"):
        check(open_blobs(s3_uri))


def test_absent_credentials_fail_the_check(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ValueError, match=r"no usable credentials .*; set AWS_ACCESS_KEY_ID and"):
        check(open_blobs(s3_uri))


def test_wrong_credentials_fail_the_check(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.server(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict)
        with pytest.raises(
            ValueError, match=r"refuses the credentials .*; correct AWS_ACCESS_KEY_ID"
        ) as caught:
            check(S3Blobs("some-bucket", ""))
    assert s3.CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_a_server_without_conditional_put_fails_the_check(proxy: s3.Proxy, s3_uri: str) -> None:
    proxy.faults = [("PUT", "blunt")] * 2
    with pytest.raises(ValueError, match="ignores If-None-Match, so writers could overwrite each other"):
        check(open_blobs(s3_uri))

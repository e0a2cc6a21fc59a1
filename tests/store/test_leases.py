"""The contract of leases: one owner per key, renewal, take-over. Another implementation is one more row."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.store import directory
from orchestrator.store.blob_leases import BlobLeases
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.leases import Leases, LocalLeases, held


@pytest.fixture
def local_leases() -> Leases:
    return LocalLeases()


@pytest.fixture
def blob_leases(tmp_path: Path) -> Leases:
    return BlobLeases(DirectoryBlobs(tmp_path), "leases")


@pytest.fixture(params=["local_leases", "blob_leases"])
def leases(request: pytest.FixtureRequest) -> Leases:
    """Return a fresh keeper of leases of each kind, by the name of its fixture."""
    keeper: Leases = request.getfixturevalue(request.param)
    return keeper


def never() -> bool:
    return False


def test_a_lease_has_one_owner(leases: Leases) -> None:
    assert leases.acquire("key", "a", 60.0)
    assert not leases.acquire("key", "b", 60.0)
    assert leases.acquire("other", "b", 60.0)
    assert leases.acquire("key", "a", 60.0)


def test_only_the_owner_gives_a_lease_back(leases: Leases) -> None:
    assert leases.acquire("key", "a", 60.0)
    leases.release("key", "b")
    leases.release("unknown", "b")
    assert not leases.acquire("key", "b", 60.0)
    leases.release("key", "a")
    leases.release("key", "a")
    assert leases.acquire("key", "b", 60.0)


def test_the_lease_of_a_dead_owner_is_taken_over(leases: Leases) -> None:
    assert leases.acquire("key", "dead", 0.3)
    assert not leases.acquire("key", "b", 60.0)
    time.sleep(0.4)
    assert leases.acquire("key", "b", 60.0)
    assert not leases.acquire("key", "dead", 60.0)
    leases.release("key", "dead")
    assert not leases.acquire("key", "c", 60.0)


def test_renewing_moves_the_end(leases: Leases) -> None:
    assert leases.acquire("key", "a", 0.2)
    assert leases.acquire("key", "a", 60.0)
    time.sleep(0.3)
    assert not leases.acquire("key", "b", 60.0)


def test_sixteen_threads_have_one_winner(leases: Leases) -> None:
    with ThreadPoolExecutor(16) as threads:
        for key in range(20):
            won = list(threads.map(lambda n, key=key: leases.acquire(f"k{key}", f"o{n}", 60.0), range(16)))
            assert won.count(True) == 1


def test_held_outlives_its_seconds_and_is_given_back(leases: Leases) -> None:
    with held(leases, "key", "a", is_done=never, seconds=0.6) as must_build:
        assert must_build
        time.sleep(0.9)
        assert not leases.acquire("key", "b", 60.0)
    assert leases.acquire("key", "b", 60.0)


def test_held_is_given_back_after_an_error(leases: Leases) -> None:
    with pytest.raises(RuntimeError, match="stage failed"), held(leases, "key", "a", is_done=never):
        raise RuntimeError("stage failed")
    assert leases.acquire("key", "b", 60.0)


def test_a_stage_is_built_once_by_eight_waiters(leases: Leases) -> None:
    published = threading.Event()
    built: list[int] = []

    def want(waiter: int) -> bool:
        with held(leases, "key", f"w{waiter}", is_done=published.is_set, poll_seconds=0.02) as must_build:
            if must_build:
                built.append(waiter)
                time.sleep(0.1)
                published.set()
            return must_build

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(want, range(8)))
    assert len(built) == 1
    assert answers.count(True) == 1


def test_a_waiter_takes_over_from_a_dead_owner(leases: Leases) -> None:
    assert leases.acquire("key", "dead", 0.3)
    started = time.monotonic()
    with held(leases, "key", "b", is_done=never, poll_seconds=0.02) as must_build:
        assert must_build
    assert time.monotonic() - started > 0.1


def test_a_lost_lease_is_a_warning_and_the_build_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    leases = LocalLeases(clock=lambda: now[0])
    with held(leases, "key", "a", is_done=never, seconds=0.06) as must_build:
        assert must_build
        now[0] = 100.0
        assert leases.acquire("key", "b", 60.0)
        time.sleep(0.2)
    assert caplog.messages == ["event=lease_lost key=key owner=a"]
    assert not leases.acquire("key", "c", 60.0)


class Unsteady(LocalLeases):
    """A keeper that goes away after the first answer."""

    num_asked = 0

    def acquire(self, key: str, owner: str, seconds: float) -> bool:
        self.num_asked += 1
        if self.num_asked > 1:
            raise ConnectionError("keeper is away")
        return super().acquire(key, owner, seconds)

    def release(self, key: str, owner: str) -> None:
        raise ConnectionError("keeper is away")


def test_a_keeper_that_goes_away_does_not_stop_the_build(caplog: pytest.LogCaptureFixture) -> None:
    with held(Unsteady(), "key", "a", is_done=never, seconds=0.06) as must_build:
        assert must_build
        time.sleep(0.1)
    assert "event=lease_not_renewed key=key error=ConnectionError" in caplog.messages
    assert caplog.messages[-1] == "event=lease_not_released key=key error=ConnectionError"


def test_an_owner_that_was_killed_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from orchestrator.store.blob_leases import BlobLeases; "
        "from orchestrator.store.directory import DirectoryBlobs; "
        "assert BlobLeases(DirectoryBlobs(sys.argv[1]), 'leases').acquire('key', 'killed', 3600.0); "
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120).returncode == -9
    leases = BlobLeases(DirectoryBlobs(tmp_path), "leases")
    assert leases.acquire("key", "b", 60.0)
    assert len(DirectoryBlobs(tmp_path).names("leases/key/")) == 1


def test_an_owner_of_another_host_is_replaced_when_it_renews_no_more(tmp_path: Path) -> None:
    blobs, now = DirectoryBlobs(tmp_path), [0.0]
    assert BlobLeases(blobs, "leases").acquire("key", "a", 10.0)
    lease = json.loads(blobs.get("leases/key/00000001.json") or b"")
    blobs.put("leases/key/00000001.json", json.dumps({**lease, "host": "another"}).encode())
    waiting = BlobLeases(blobs, "leases", clock=lambda: now[0])
    assert not waiting.acquire("key", "b", 10.0)
    now[0] = 9.0
    assert not waiting.acquire("key", "b", 10.0)
    blobs.put("leases/key/00000001.json", json.dumps({**lease, "host": "another", "nonce": "new"}).encode())
    now[0] = 18.0
    assert not waiting.acquire("key", "b", 10.0)
    now[0] = 29.0
    assert waiting.acquire("key", "b", 10.0)


def test_another_namespace_of_process_ids_is_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container of the same host name: its process, which has no such id here, is not taken for dead."""
    blobs = DirectoryBlobs(tmp_path)
    assert directory._host() == directory.HOST
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", lambda path: "pid:[1]")
        patch.setattr("orchestrator.store.blob_leases.HOST", directory._host())
        patch.setattr(os, "getpid", lambda: 2**22 + 1)  # above any id
        assert BlobLeases(blobs, "leases").acquire("key", "a", 60.0)
    assert not BlobLeases(blobs, "leases").acquire("key", "b", 60.0)


def test_a_claim_that_comes_too_late_is_none(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)

    class Late(BlobLeases):
        """A reader that saw the lease before it was given on."""

        def _last(self, key: str) -> str | None:
            return "leases/key/00000001.json"

    first = BlobLeases(blobs, "leases")
    for owner in ("a", "b", "c"):
        assert first.acquire("key", owner, 60.0)
        first.release("key", owner)
    assert first.acquire("key", "d", 60.0)
    blobs.put("leases/key/00000001.json", blobs.get("leases/key/00000004.json") or b"")
    late = Late(blobs, "leases")
    late.release("key", "d")  # what it read: given back
    assert not late.acquire("key", "late", 60.0)
    assert not first.acquire("key", "e", 60.0)

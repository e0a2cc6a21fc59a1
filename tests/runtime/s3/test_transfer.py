"""Transfers of large objects through a proxy that breaks what passes; endpoints away for a while."""

import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from orchestrator.runtime.s3 import retry, transfer
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.runtime.s3.errors import StoreError
from tests import s3

PART = 5 << 20  # the least that S3 takes for a part that is not the last
DATA = os.urandom(3 * PART + 1234)  # four parts


@pytest.fixture
def client(s3_endpoint: str) -> Any:
    """Return a plain client that does not go through the proxy."""
    return boto3.client("s3", endpoint_url=s3_endpoint, config=Config(s3={"addressing_style": "path"}))


@pytest.fixture
def blobs(proxy: s3.Proxy, client: Any, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    """Return an empty store, for which everything above one part is large."""
    monkeypatch.setattr(transfer, "PART_BYTES", PART)
    monkeypatch.setattr(transfer, "LARGE_BYTES", PART)
    bucket = "bucket-" + os.urandom(6).hex()
    client.create_bucket(Bucket=bucket)
    return S3Blobs(bucket, "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what fails fail after ten attempts without pauses."""
    monkeypatch.setattr(retry, "back_off", lambda attempt: None)
    wait_at_least(monkeypatch, 0.0)


def wait_at_least(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Change how long requests are repeated at least."""
    monkeypatch.setitem(retry.RETRIES, "request", replace(retry.RETRIES["request"], seconds=seconds))


def help_at_once(monkeypatch: pytest.MonkeyPatch, *, wanted: bool = True) -> None:
    """Let every stream count as slow, or none."""
    monkeypatch.setattr(transfer, "MOMENT_SECONDS", 0.0)
    monkeypatch.setattr(transfer, "FAST_BYTES_PER_SECOND", 1e15 if wanted else 0.0)


def ranges(proxy: s3.Proxy) -> list[str]:
    return [wanted for method, _, wanted in proxy.asked if method == "GET"]


def pending(client: Any, blobs: S3Blobs) -> list[str]:
    """Return the uploads in parts that nobody has completed or given up."""
    return [item["Key"] for item in client.list_multipart_uploads(Bucket=blobs.bucket).get("Uploads", [])]


def test_a_small_object_is_one_request_without_a_range(proxy: s3.Proxy, blobs: S3Blobs) -> None:
    blobs.put("a", DATA[:PART])
    blobs.put("empty", b"")
    proxy.asked.clear()
    assert (blobs.get("a"), blobs.get("empty")) == (DATA[:PART], b"")
    assert ranges(proxy) == ["", ""]


def test_an_object_is_read_into_memory_that_is_there(
    proxy: s3.Proxy, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    help_at_once(monkeypatch)
    blobs.put("a", DATA)
    blobs.put("small", DATA[:5])
    for name, data in (("a", DATA), ("small", DATA[:5])):
        pieces = [bytearray(size) for size in (1, 2, len(data) - 3)]  # no part begins with a piece
        proxy.faults = [("GET", "slow")]
        assert blobs.fill(name, [memoryview(piece) for piece in pieces]) == len(data)
        assert b"".join(pieces) == data
    other = memoryview(bytearray(9))
    assert blobs.fill("a", [other]) == len(DATA)
    assert blobs.fill("none", [other]) is None
    assert bytes(other) == bytes(9)


def test_a_fast_stream_needs_no_help(
    proxy: s3.Proxy, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    help_at_once(monkeypatch, wanted=False)
    blobs.put("a", DATA)
    proxy.asked.clear()
    assert blobs.get("a") == DATA
    assert ranges(proxy) == [""]


def test_a_slow_stream_gets_help_for_the_parts_it_has_not_begun(proxy: s3.Proxy, blobs: S3Blobs) -> None:
    blobs.put("a", DATA)
    proxy.asked.clear()
    proxy.faults = [("GET", "slow")]
    started = time.monotonic()
    assert blobs.get("a") == DATA
    assert time.monotonic() - started < len(DATA) / 4e6, "the stream brought everything"
    first, *rest = ranges(proxy)
    assert first == ""
    parts = [f"bytes={start}-{min(start + PART, len(DATA)) - 1}" for start in range(PART, len(DATA), PART)]
    assert sorted(rest) == sorted(parts)


@pytest.mark.parametrize("fault", ["cut", "503", "reset", "whole", "drip"])
def test_each_range_is_repeated_on_its_own(
    proxy: s3.Proxy, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(retry, "SLOW_SECONDS", 0.3)
    blobs.put("a", DATA)
    proxy.asked.clear()
    proxy.faults = [("GET", "slow"), ("GET", fault), ("GET", fault)]
    assert blobs.get("a") == DATA
    assert proxy.faults == []
    assert ranges(proxy).count("") == 1, "everything was asked for again"
    assert len(ranges(proxy)) == 1 + 3 + 2


def test_a_stream_that_breaks_leaves_the_rest_to_ranges(proxy: s3.Proxy, blobs: S3Blobs) -> None:
    blobs.put("a", DATA)
    proxy.asked.clear()
    proxy.faults = [("GET", "cut")]  # in the second part
    assert blobs.get("a") == DATA
    first, *rest = ranges(proxy)
    assert (first, len(rest)) == ("", 3)


def test_an_object_replaced_while_it_is_read_is_read_anew(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DATA[::-1]
    num_replaced = replace_once(
        proxy, lambda: client.put_object(Bucket=blobs.bucket, Key="a", Body=other), blobs, monkeypatch
    )
    assert blobs.get("a") == other
    assert num_replaced == [1]
    assert ranges(proxy).count("") == 2


def test_an_object_removed_while_it_is_read_is_absent(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_once(proxy, lambda: client.delete_object(Bucket=blobs.bucket, Key="a"), blobs, monkeypatch)
    assert blobs.get("a") is None


def replace_once(
    proxy: s3.Proxy, change: Callable[[], object], blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Store an object that changes when the second request of its reading arrives."""
    help_at_once(monkeypatch)
    blobs.put("a", DATA)
    proxy.asked.clear()
    lock, times = threading.Lock(), [0]

    def on_request(method: str, path: str) -> None:
        with lock:
            if len(ranges(proxy)) > 1 and not times[0]:
                change()
                times[0] += 1

    proxy.on_request = on_request
    proxy.faults = [("GET", "slow")]
    return times


def test_no_thread_stays_behind(
    proxy: s3.Proxy, blobs: S3Blobs, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    help_at_once(monkeypatch)
    blobs.put("a", DATA)
    assert blobs.get("a") == DATA
    proxy.faults = [("GET", "slow"), *[("GET", "503")] * 100]
    with pytest.raises(StoreError, match="SlowDown"):
        blobs.get("a")
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith("ThreadPoolExecutor")] == []


def test_a_large_object_is_put_in_parts_that_carry_checksums(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any
) -> None:
    assert blobs.put("a", DATA)
    assert proxy.seen.count("PUT") == 4
    assert blobs.get("a") == DATA
    assert "ChecksumCRC32" in client.head_object(Bucket=blobs.bucket, Key="a", ChecksumMode="ENABLED")
    assert pending(client, blobs) == []


def test_parts_are_repeated_on_their_own(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any, impatient: None
) -> None:
    proxy.faults = [("PUT", fault) for fault in ("503", "reset", "lost", "503")]
    assert blobs.put("a", DATA)
    assert proxy.faults == []
    assert proxy.seen.count("PUT") == 4 + 4
    assert blobs.get("a") == DATA


def test_a_large_object_is_created_once(proxy: s3.Proxy, blobs: S3Blobs, client: Any) -> None:
    assert blobs.put("a", DATA, overwrite=False)
    assert not blobs.put("a", DATA[::-1], overwrite=False)
    assert blobs.get("a") == DATA
    assert blobs.put("a", DATA[::-1])
    assert blobs.get("a") == DATA[::-1]
    assert pending(client, blobs) == []


def test_eight_writers_of_one_large_object_have_one_winner(blobs: S3Blobs, client: Any) -> None:
    def write(writer: int) -> bool:
        return blobs.put("race", bytes([writer]) * (PART + 1), overwrite=False)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(write, range(8)))
    assert won.count(True) == 1
    assert blobs.get("race") == bytes([won.index(True)]) * (PART + 1)
    assert pending(client, blobs) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_lost_answer_to_completing_is_a_success(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any, overwrite: bool
) -> None:
    proxy.faults = [("POST", ""), ("POST", "lost")]  # begun, completed
    assert blobs.put("a", DATA, overwrite=overwrite)
    assert proxy.faults == []
    assert blobs.get("a") == DATA
    assert pending(client, blobs) == []


def test_a_conflict_when_completing_sends_everything_again(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any
) -> None:
    proxy.faults = [("POST", ""), ("POST", "409")]
    assert blobs.put("a", DATA, overwrite=False)
    assert proxy.seen.count("PUT") == 8
    assert pending(client, blobs) == []


def test_an_upload_that_fails_leaves_no_part(
    proxy: s3.Proxy, blobs: S3Blobs, client: Any, impatient: None
) -> None:
    for fault, text in (("403", "forbids it"), ("503", "overloaded")):
        proxy.faults = [("PUT", fault)] * 100
        with pytest.raises(StoreError, match=text):
            blobs.put("a", DATA)
        proxy.faults = []
        assert pending(client, blobs) == []
        assert blobs.get("a") is None


def use(blobs: S3Blobs, number: int) -> None:
    """Read and write something small and something large."""
    assert blobs.get("large") == DATA
    assert blobs.put(f"small-{number}", b"x", overwrite=False)
    assert blobs.put(f"large-{number}", DATA)
    assert f"large-{number}" in blobs.names("large-")
    blobs.remove(f"large-{number}")


def survive(proxy: s3.Proxy, blobs: S3Blobs, fault: str, seconds: float) -> None:
    """Let eight threads work while the endpoint is away; what one client may repeat is rationed for all."""
    blobs.put("large", DATA)
    with ThreadPoolExecutor(8) as threads:
        proxy.fail(fault, seconds)
        started = time.monotonic()
        list(threads.map(lambda number: use(blobs, number), range(8)))
    assert time.monotonic() - started > seconds


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_two_seconds_without_the_endpoint_are_survived(proxy: s3.Proxy, blobs: S3Blobs, fault: str) -> None:
    survive(proxy, blobs, fault, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "reset"])
def test_thirty_seconds_without_the_endpoint_are_survived(
    proxy: s3.Proxy, blobs: S3Blobs, fault: str
) -> None:
    survive(proxy, blobs, fault, 30.0)


def test_an_endpoint_that_stays_away_is_one_line(
    proxy: s3.Proxy, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_at_least(monkeypatch, 0.5)
    proxy.fail("reset", 600)
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        blobs.put("a", b"x")
    assert time.monotonic() - started > 0.5
    assert str(caught.value) == (
        f"s3://{blobs.bucket}/a: no answer from {proxy.endpoint} (ConnectionClosedError); start the server "
        "or correct AWS_ENDPOINT_URL; then run the same command again."
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_repeating_cannot_help_is_told_at_once(proxy: s3.Proxy, blobs: S3Blobs) -> None:
    started = time.monotonic()
    proxy.faults = [("GET", "403"), ("PUT", "403")]
    with pytest.raises(StoreError, match=r"/a: http://\S+ forbids it \(AccessDenied\); grant s3:ListBucket"):
        blobs.get("a")
    with pytest.raises(StoreError, match="forbids it"):
        blobs.put("a", b"x")
    with pytest.raises(StoreError, match=r"bucket no-such-bucket does not exist .* another with --store"):
        S3Blobs("no-such-bucket", "p").get("a")
    assert time.monotonic() - started < 30


def test_an_object_that_comes_too_slowly_is_given_up(
    proxy: s3.Proxy, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(retry.RETRIES["read"], limit_seconds=0.5)
    monkeypatch.setitem(retry.RETRIES, "read", limited)
    blobs.put("a", bytes(10_000))
    proxy.faults = [("GET", "drip")] * 100
    started = time.monotonic()
    with pytest.raises(StoreError, match="TimeoutError"):
        blobs.get("a")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("setting", ["when_supported", "when_required"])
def test_no_request_has_a_checksum_that_the_user_has_switched_off(
    setting: str, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", setting)
    seen: list[str] = []

    def look(request: Any, **_: object) -> None:
        names = [name.lower() for name in request.headers]
        seen.extend(name for name in names if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum")))

    blobs._client().meta.events.register("before-send.s3", look)
    assert blobs.put("small", b"x", overwrite=False)
    assert blobs.put("large", DATA, overwrite=False)
    assert not blobs.put("large", DATA[1:], overwrite=False)
    assert blobs.get("large") == DATA
    assert bool(seen) == (setting == "when_supported")

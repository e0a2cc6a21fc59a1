"""Uploads in parts that no client completed, through a proxy that breaks the listing."""

import os

import pytest

from orchestrator.runtime.s3 import retry
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.runtime.s3.errors import StoreError
from tests import s3
from tests.store.test_gc import begin_upload


@pytest.fixture
def blobs(proxy: s3.Proxy, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    """Return an empty store behind the proxy."""
    monkeypatch.setattr(retry, "back_off", lambda attempt: None)
    return S3Blobs(s3.new_bucket(s3_endpoint), "store")


@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_a_listing_that_breaks_begins_again(proxy: s3.Proxy, blobs: S3Blobs, fault: str) -> None:
    begin_upload(blobs, "a", 5 << 20, 7)
    proxy.faults = [("GET", fault), ("GET", fault), ("GET", ""), ("GET", fault)]  # uploads, then parts
    (write,) = blobs.unfinished()
    assert proxy.faults == []
    assert (write.kind, write.name, write.size) == ("upload", "a", (5 << 20) + 7)


@pytest.mark.parametrize("fault", ["503", "lost"])
def test_an_abort_is_repeated_and_may_come_twice(proxy: s3.Proxy, blobs: S3Blobs, fault: str) -> None:
    begin_upload(blobs, "a", 7)
    (write,) = blobs.unfinished()
    proxy.faults = [("DELETE", fault)]
    blobs.discard(write)
    assert proxy.faults == []
    assert blobs.unfinished() == []
    blobs.discard(write)


def test_a_bucket_that_forbids_it_is_one_line(proxy: s3.Proxy, blobs: S3Blobs) -> None:
    proxy.faults = [("GET", "403")]
    with pytest.raises(StoreError, match=rf"^{blobs.uri}/: http://\S+ forbids it \(AccessDenied\); grant"):
        blobs.unfinished()


def test_other_prefixes_are_not_listed(blobs: S3Blobs) -> None:
    begin_upload(S3Blobs(blobs.bucket, f"other-{os.urandom(3).hex()}"), "a", 7)
    assert blobs.unfinished() == []

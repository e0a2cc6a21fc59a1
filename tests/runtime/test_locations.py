"""Locations: addresses that open clients where they are used and show no password."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.runtime.locations import Locations
from orchestrator.store.directory import DirectoryBlobs

TRACKING = "http://someone:secret@host:5000"


def test_a_folder_opens_as_store_and_as_data(tmp_path: Path) -> None:
    locations = Locations(str(tmp_path / "store"), data=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    assert isinstance(locations.open_store().blobs, DirectoryBlobs)
    location = locations.open_data()
    assert isinstance(location.blobs, DirectoryBlobs)
    assert location.cache == tmp_path / "cache"
    assert location.cache_bytes == 32 * 2**30
    assert replace(locations, cache_gib=600).open_data().cache_bytes == 600 * 2**30
    assert Locations(str(tmp_path)).open_data().blobs is None


def test_a_store_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="names no store"):
        Locations("").open_store()


def test_workers_get_no_tracking_and_nothing_shows_its_password() -> None:
    locations = Locations("s3://bucket/store", data="s3://bucket/data", cache="/cache", tracking=TRACKING)
    workers = locations.for_workers()
    assert workers == Locations("s3://bucket/store", "s3://bucket/data", "/cache")
    assert b"secret" not in pickle.dumps(workers)
    assert "secret" not in repr(locations)

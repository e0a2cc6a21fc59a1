"""Stores by URI: each spelling, and the refusal of others. tests/store/ has the contract of stores."""

from pathlib import Path

import pytest

from orchestrator.runtime.open_store import check, open_blobs, open_location
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.store.directory import DirectoryBlobs


@pytest.mark.parametrize("uri", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_has_three_spellings(uri: str, tmp_path: Path) -> None:
    blobs = open_blobs(uri.format(tmp_path))
    assert isinstance(blobs, DirectoryBlobs)
    blobs.put("a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_opening_a_bucket_sends_nothing() -> None:
    assert isinstance(open_blobs("s3://no-such-bucket/prefix"), S3Blobs)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("", "store='' .*use /dir, file:///dir or s3://bucket/prefix"),
        ("file://dir/x", "three slashes, as in file:///dir"),
        ("gs://bucket", "unknown scheme 'gs'"),
        ("s3://", "'' is no bucket name"),
        ("s3://UPPER", "'UPPER' is no bucket name"),
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://bucket/x?token=secret", "no credentials"),
    ],
)
def test_other_texts_are_refused_without_their_secrets(uri: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        open_blobs(uri)
    assert "secret" not in str(caught.value)


def test_a_location_without_a_uri_has_the_built_in_sets_only(tmp_path: Path) -> None:
    assert open_location(None, None).blobs is None
    location = open_location(str(tmp_path / "data"), str(tmp_path / "cache"))
    assert location.blobs is not None
    assert location.cache == tmp_path / "cache"


def test_a_check_names_the_option_of_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="--data"):
        check(open_blobs(str(file)), option="--data")
    check(open_blobs(str(tmp_path / "new")))

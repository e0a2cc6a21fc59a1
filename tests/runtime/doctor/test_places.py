"""Checks of stores, over both kinds, and of directories."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.runtime.doctor import machine
from orchestrator.runtime.doctor.findings import GIB, fail, ok, warn
from orchestrator.runtime.doctor.places import probe, seen
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from tests.runtime.doctor.faults import data, only_fault, store


def test_a_place_in_order_is_told_and_left_as_it_was(blobs: Blobs) -> None:
    blobs.put("digits/manifest.json", b"{}")
    before = blobs.entries("")
    found = store(blobs.uri)
    assert {finding.status for finding in found} == {"ok"}
    assert {"store", "store writes", "store once", "store clock"} <= {finding.name for finding in found}
    assert blobs.entries("") == before
    assert data(blobs.uri)[-1] == ok("data sets", "digits")
    assert blobs.entries("") == before


def test_a_place_without_data_sets_is_a_warning(blobs: Blobs) -> None:
    blobs.put("x", b"")
    fault = only_fault(data(blobs.uri))
    assert fault == warn("data sets", "there are none", "stage some: python -m jobs.stage_data SOURCE DEST")


def test_a_wrong_uri_names_the_option() -> None:
    fault = only_fault(store("gs://bucket/x"))
    assert (fault.status, fault.fix) == ("FAIL", "use /dir, file:///dir or s3://bucket/prefix")


def test_a_folder_that_is_not_there_is_made_by_a_sweep_but_not_for_data(tmp_path: Path) -> None:
    found = store(str(tmp_path / "a" / "b"))
    assert {finding.status for finding in found} == {"ok"}
    assert found[0].found.endswith(", made by the first sweep")
    assert list(tmp_path.iterdir()) == []
    fault = only_fault(data(str(tmp_path / "a")))
    assert (fault.status, fault.found) == ("FAIL", f"there is no directory {tmp_path / 'a'}")
    assert fault.fix.startswith("name another with --data")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = only_fault(store(str(tmp_path / "file")))
    assert fault == fail("store", f"{tmp_path / 'file'} is no directory", "name another with --store")


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(DirectoryBlobs, "put", refuse)
    fault = only_fault(store(str(tmp_path)))
    assert fault == fail(
        "store writes", f"cannot write in {tmp_path} (Permission denied)", "name another with --store"
    )


def test_a_folder_that_creates_twice_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", os.replace)
    fault = only_fault(store(str(tmp_path)))
    assert (fault.name, fault.found) == (
        "store once",
        "the file system does not create files once, so writers could overwrite each other",
    )
    assert fault.fix == "use a server that honours it, or another directory, with --store"


def test_sets_that_would_travel_with_jobs_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DirectoryBlobs(tmp_path / "sets").put("new/manifest.json", b"{}")
    (tmp_path / "sets" / "old").mkdir()
    monkeypatch.chdir(tmp_path.parent)
    assert only_fault(data(str(tmp_path / "sets"))) == warn(
        "data travels",
        "old in the working directory, without an ignore file",
        f"move {tmp_path / 'sets'} elsewhere, or list it in .gitignore and .rayignore: jobs take it along",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert {one.status for one in data(str(tmp_path / "sets"))} == {"ok"}


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * GIB))
    fault = only_fault(store(str(tmp_path)))
    assert (fault.status, fault.name) == ("warn", "store room")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    (fault,) = machine.cache_room()
    assert (fault.status, fault.name) == ("FAIL", "cache")
    assert fault.fix == "free at least 1 GiB there, or name another place"


def test_a_node_sees_the_probe_or_says_why_not(blobs: Blobs, tmp_path: Path) -> None:
    with probe(blobs.uri) as placed:
        assert placed is not None
        assert seen(*placed) == ""
        assert (
            seen(str(tmp_path / "elsewhere"), placed.name)
            == f"{tmp_path / 'elsewhere'} is another place there"
        )
    assert blobs.names("") == []
    assert seen(*placed).endswith("is another place there")


def test_a_node_without_credentials_says_so(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe(s3_uri) as placed:
        assert placed is not None
        with monkeypatch.context() as elsewhere:
            elsewhere.delenv("AWS_ACCESS_KEY_ID")
            elsewhere.delenv("AWS_SECRET_ACCESS_KEY")
            assert seen(*placed).startswith("no usable credentials (NoCredentialsError)")

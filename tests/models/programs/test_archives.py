"""Archives of programs: read within bounds, written anew as torch reads them."""

import io
import zipfile

import pytest
import torch

from orchestrator.config.base import Refused
from orchestrator.models.programs.archives import read_archive, write_archive


def packed(records: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of records by their full names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_what_is_written_is_what_was_read() -> None:
    records = read_archive(packed({"net/version": b"3", "net/data/0": bytes(100)}), "x")
    assert records == {"version": b"3", "data/0": bytes(100)}
    assert read_archive(write_archive(records), "x") == records


def test_torch_reads_what_is_written() -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(3)}, buffer)
    again = write_archive(read_archive(buffer.getvalue(), "x"))
    assert torch.load(io.BytesIO(again), weights_only=True)["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (packed({"net/a": bytes(1 << 24)}), r"^x has \d+ bytes and would unpack to 16777216 in 1 records; "),
        (packed({"net/../a": b""}), r"^x holds the odd record net/\.\./a; "),
        (packed({"../net/a": b""}), r"^x holds the odd record \.\./net/a; "),
        (packed({"/net/a": b""}), r"^x holds the odd record"),
        (packed({"a": b""}), "^x holds the odd record a; "),
        (packed({"net/a": b"", "other/b": b""}), "^x is a zip archive that no version of torch saved; "),
        (b"before" + packed({"net/a": b""}), "^x is a zip archive that no version of torch saved; "),
        (packed({"net/a": b""}, zipfile.ZIP_BZIP2), "^x holds the odd record net/a; "),
        (packed({"net/a": b"12"})[:-9], r"^x is a zip archive that is damaged or cut short \(BadZipFile\); "),
        (b"PK\x03\x04", r"^x is a zip archive that is damaged or cut short \(BadZipFile\); "),
    ],
)
def test_odd_archives_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(Refused, match=text):
        read_archive(data, "x")


def test_a_name_that_is_there_twice_is_refused() -> None:
    """One reader would take the first of them and another the last."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("net/a", b"2")
    with pytest.raises(Refused, match=r"^x holds the odd record net/a; "):
        read_archive(buffer.getvalue(), "x")


def test_a_record_that_is_longer_than_it_says_is_refused() -> None:
    data = packed({"net/a": b"1" * 1000})
    size = (1000).to_bytes(4, "little")
    assert data.count(size) == 2  # beside the record and in the directory
    with pytest.raises(Refused, match=r"^x is a zip archive that is damaged"):
        read_archive(data.replace(size, (10).to_bytes(4, "little")), "x")

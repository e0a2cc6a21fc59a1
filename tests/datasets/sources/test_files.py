"""Regular files only: what would block or never end is refused unread."""

import os
import socket
from pathlib import Path

import pytest

from orchestrator.datasets.sources import files
from orchestrator.datasets.sources.files import read_lines, read_regular, regular_size

UNREAD = r"not a regular file|Too many levels|No such file"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return a folder with a fifo, a socket, a link to a device, a loop of links and a broken link."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket"))
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize("name", ["fifo", "socket", "device", "loop", "broken", "."])
def test_what_is_no_regular_file_is_not_read(odd: Path, name: str) -> None:
    with pytest.raises(OSError, match=UNREAD):
        regular_size(odd / name)
    with pytest.raises(OSError, match=UNREAD):
        read_regular(odd / name, 10)
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*\); take the owners' list\."):
        read_lines(odd / name, "take the owners' list")


def test_a_long_file_is_read_one_byte_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    assert read_regular(tmp_path / "a", 3) == b"abcd"
    monkeypatch.setattr(files, "MAX_LIST_BYTES", 5)
    with pytest.raises(ValueError, match="a has more than 5 bytes; cut it"):
        read_lines(tmp_path / "a", "cut it")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_start_after_a_byte_order_mark(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a").write_bytes(mark + "Zo\u00eb\r\nb\n".encode())
    assert read_lines(tmp_path / "a", "") == ["Zo\u00eb", "b"]

"""Files: reads of regular files only, so that no fifo, device or socket in a folder blocks a staging."""

import errno
import stat
from pathlib import Path

from orchestrator.config.base import NO_VALUE, Refused

MAX_LIST_BYTES = 256 * 2**20  # the longest list, of FaceScrub's links, has 16 MB


def regular_size(path: Path) -> int:
    """Return a regular file's size in bytes; raise `OSError` if it is none, without opening it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_regular(path: Path, limit: int) -> bytes:
    """Return a regular file's first `limit` + 1 bytes, so that a longer one is noticed.

    Raise `OSError` if it is none or cannot be read.
    """
    regular_size(path)
    with path.open("rb") as handle:
        return handle.read(limit + 1)


def read_lines(path: Path, way_out: str) -> list[str]:
    """Return the lines of a list in UTF-8, with or without a byte order mark.

    Raise `Refused` with this way out if it cannot be read.
    """
    try:
        data = read_regular(path, MAX_LIST_BYTES)
    except OSError as error:
        raise Refused(str(path), NO_VALUE, f"cannot be read ({error.strerror})", way_out) from None
    if len(data) > MAX_LIST_BYTES:
        raise Refused(str(path), NO_VALUE, f"has more than {MAX_LIST_BYTES} bytes", way_out)
    return data.decode("utf-8-sig", errors="replace").splitlines()

"""Named byte objects under one root: the only thing the project asks of a directory or a bucket.

Names are relative POSIX paths of `[A-Za-z0-9._=/-]`. Implementations: `directory.DirectoryBlobs` and
`runtime.s3.S3Blobs`; one contract test holds both.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

_NAME = re.compile(r"[A-Za-z0-9._=/-]{1,512}", re.ASCII)


@dataclass(frozen=True, order=True)
class Entry:
    """What a listing says of an object."""

    name: str
    size: int  # bytes
    modified_ms: int  # Unix milliseconds on the store's clock


class Blobs(Protocol):
    """Durable byte objects; a reader sees a whole object or none."""

    uri: str
    """Where the root is, without credentials: `file:///...` or `s3://bucket/prefix`."""

    def get(self, name: str) -> bytes | None:
        """Return the object, or None if there is none; bytes are not verified here."""

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store durably and atomically; without `overwrite` return False if the name is taken."""

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times; what vanishes meanwhile is left out."""

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""


@runtime_checkable
class Filling(Protocol):
    """Blobs that can read into memory that is there already."""

    def fill(self, name: str, buffers: Sequence[memoryview]) -> int | None:
        """Read the object into the buffers of bytes, one after the other, if it is as long as they are.

        Returns its size, or None if there is none; bytes are not verified here.
        """


def fill(blobs: Blobs, name: str, buffers: Sequence[memoryview]) -> int | None:
    """Do what `Filling.fill` says, with any store."""
    if isinstance(blobs, Filling):
        return blobs.fill(name, buffers)
    data = blobs.get(name)
    if data is None or len(data) != sum(map(len, buffers)):
        return None if data is None else len(data)
    start, view = 0, memoryview(data)
    for buffer in buffers:
        buffer[:] = view[start : start + len(buffer)]
        start += len(buffer)
    return len(data)


def blank(size: int) -> io.BytesIO:
    """Return a buffer of so many bytes; `getvalue` hands them out without a copy, as no bytearray can.

    Views of it must be gone by then.
    """
    buffer = io.BytesIO()
    if size:
        buffer.seek(size - 1)
        buffer.write(b"\0")
    return buffer


def checked_name(name: str) -> str:
    """Return `name` if it may name an object; names never leave the root and never hide."""
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(not part or part.startswith(".") for part in parts):
        raise ValueError(
            f"blob name {name[:80]!r} must be 1..512 of A-Z a-z 0-9 . _ = / - without an empty part or one "
            "that starts with a dot; rename it."
        )
    return name


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if a name may start with it: a listing never leaves the root either."""
    checked_name(f"{prefix}x")
    return prefix

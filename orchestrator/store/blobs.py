"""Byte store: the protocol of named byte objects under one root, in a directory or a bucket.

Names are relative POSIX paths of `[A-Za-z0-9._=/-]`. Implementations: `store.directory.DirectoryBlobs` and
`runtime.s3.blobs.S3Blobs`; one contract test holds both.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from orchestrator.config.base import NO_VALUE, Refused

_NAME = re.compile(r"[A-Za-z0-9._=/-]{1,512}", re.ASCII)


@dataclass(frozen=True, order=True)
class Entry:
    """An object's entry in a listing."""

    name: str
    size: int  # bytes
    modified_ms: int  # Unix milliseconds on the store's clock


@dataclass(frozen=True)
class Unfinished:
    """A write that no process completed: a file put aside, or an upload in parts."""

    kind: Literal["leftover", "upload"]
    name: str  # of the file put aside, or of the object that the upload was for
    size: int  # bytes
    modified_ms: int  # Unix milliseconds on the store's clock
    upload_id: str = ""


class Blobs(Protocol):
    """Durable byte objects; a reader sees a whole object or none."""

    uri: str
    """Where the root is, without credentials: `file:///...` or `s3://bucket/prefix`."""

    def get(self, name: str) -> bytes | None:
        """Return the object, or None if there is none; bytes are not verified here."""

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store durably and atomically; without `overwrite` return False if the name is taken.

        Raise `Refused` if `name` is no name of an object, as every method does.
        """

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times; what vanishes meanwhile is left out."""

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""


@runtime_checkable
class Maintenance(Protocol):
    """Blobs of a store that outlives its processes: a check before work, and the remains of dead writers."""

    def check(self, option: str = "--store", *, writes: bool = True) -> None:
        """Raise `Refused` if the store that `option` names is unusable; without `writes` reading suffices."""

    def unfinished(self) -> list[Unfinished]:
        """Return the writes that no process completed; those of living writers may be among them."""

    def discard(self, write: Unfinished) -> None:
        """Free what an unfinished write holds; no error if it has ended meanwhile."""


@runtime_checkable
class Filling(Protocol):
    """Blobs that can read into given memory."""

    def fill(self, name: str, buffers: Sequence[memoryview]) -> int | None:
        """Read the object into the buffers of bytes, one after the other, if it is as long as they are.

        Return its size, or None if there is none; bytes are not verified here.
        """


def fill(blobs: Blobs, name: str, buffers: Sequence[memoryview]) -> int | None:
    """Read an object of any store into buffers, as `Filling.fill` does."""
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
    """Return a buffer of `size` zero bytes whose `getvalue` makes no copy; a bytearray would.

    Release every memoryview of it before calling `getvalue`.
    """
    buffer = io.BytesIO()
    if size:
        buffer.seek(size - 1)
        buffer.write(b"\0")
    return buffer


def sha256(*buffers: bytes | memoryview) -> str:
    """Return the SHA-256 hex digest of the buffers' bytes, one after the other."""
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()


def checked_name(name: str) -> str:
    """Return `name` if it may name an object, inside the root and not hidden; else raise `Refused`."""
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(not part or part.startswith(".") for part in parts):
        raise Refused(
            f"blob name {name[:80]!r}",
            NO_VALUE,
            "must be 1..512 of A-Z a-z 0-9 . _ = / - without an empty part or one that starts with a dot",
            "rename it",
        )
    return name


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if the name of an object may start with it; else raise `Refused`."""
    checked_name(f"{prefix}x")
    return prefix

"""Named byte objects under one root: the only thing the project asks of a directory or a bucket.

Names are relative POSIX paths of `[A-Za-z0-9._=/-]`. Implementations: `directory.DirectoryBlobs` and
`runtime.s3.S3Blobs`; one contract test holds both.
"""

import re
from dataclasses import dataclass
from typing import Protocol

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


def checked_name(name: str) -> str:
    """Return `name` if it may name an object; names never leave the root and never hide."""
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(not part or part.startswith(".") for part in parts):
        raise ValueError(
            f"blob name {name[:80]!r} must be 1..512 of A-Z a-z 0-9 . _ = / - without an empty part or one "
            "that starts with a dot; rename it."
        )
    return name

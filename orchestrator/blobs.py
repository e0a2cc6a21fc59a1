"""Named byte objects under one root: the only thing the project asks of a directory or a bucket.

Names are relative POSIX paths of `[A-Za-z0-9._=/-]`. Implementations: `DirectoryBlobs` below and
`runtime.s3.S3Blobs`; one contract test holds both.
"""

from typing import Protocol


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

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""

"""Byte stores by URI: `/dir`, `file:///dir` or `s3://bucket/prefix`. Opened in the process that uses them."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.datasets import Location
from orchestrator.runtime.s3.blobs import S3Blobs
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs

NODE_CACHE = Path.home() / ".cache" / "inversion-orchestrator"  # of data sets, unless another is named
_KNOWN = "use /dir, file:///dir or s3://bucket/prefix"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


def open_blobs(uri: str) -> Blobs:
    """Return the store that `uri` names, without touching it; `check` does that."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if not uri:
            raise ValueError(f"store='' names no store; {_KNOWN}.")
        return DirectoryBlobs(uri)
    if re.search(r"[@?#]", rest) or ":" in rest.partition("/")[0]:
        raise ValueError(
            f"store={scheme}://...: a store's URI carries no credentials, query or fragment; put credentials "
            "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, the endpoint in AWS_ENDPOINT_URL."
        )
    if scheme == "file":
        return _directory(uri)
    if scheme == "s3":
        return _bucket(uri)
    raise ValueError(f"store={uri[:200]}: unknown scheme {scheme!r}; {_KNOWN}.")


def check(blobs: Blobs, *, option: str = "--store", writes: bool = True) -> None:
    """Raise ValueError in one line if the store cannot be used: before anything else starts.

    `option` is what the user named the store with; without `writes` it need only be readable.
    """
    if isinstance(blobs, DirectoryBlobs | S3Blobs):
        blobs.check(option, writes=writes)


def _directory(uri: str) -> DirectoryBlobs:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ValueError(f"store={uri[:200]}: a file URI has three slashes, as in file:///dir; {_KNOWN}.")
    return DirectoryBlobs(unquote(parts.path))


def _bucket(uri: str) -> S3Blobs:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"store={uri[:200]}: {bucket!r} is no bucket name; {_KNOWN}.")
    return S3Blobs(bucket, prefix)


def open_artifacts(uri: str) -> Artifacts:
    """Return the artifact store at `uri`."""
    return Artifacts(open_blobs(uri))


def open_location(uri: str | None, cache: str | None) -> Location:
    """Return where staged data sets are; without a URI only the built-in ones exist."""
    return Location(open_blobs(uri) if uri else None, Path(cache) if cache else None)

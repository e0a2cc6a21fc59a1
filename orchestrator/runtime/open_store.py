"""Stores by URI: `/dir`, `file:///dir` or `s3://bucket/prefix`, opened in the process that uses them."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.config.base import Refused
from orchestrator.config.plain import check_path
from orchestrator.datasets import Location
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs, Maintenance
from orchestrator.store.directory import DirectoryBlobs

if TYPE_CHECKING:
    from orchestrator.runtime.s3.blobs import S3Blobs

NODE_CACHE = Path.home() / ".cache" / "inversion-orchestrator"  # of data sets, unless --cache names another
_KNOWN = "use /dir, file:///dir or s3://bucket/prefix"
_ALMOST_URI = re.compile(r"(?i)[a-z][a-z0-9+.-]*:|s3//")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


def open_blobs(uri: str) -> Blobs:
    """Return the store at a path or URI, without touching it; `check` does that.

    Raise `Refused` if the text is neither.
    """
    return open_bucket(uri) if is_bucket(uri) else open_directory(uri)


def is_bucket(uri: str) -> bool:
    """Return whether a URI is for a bucket; others are for directories, or wrong."""
    return uri.startswith("s3://")


def open_directory(uri: str) -> DirectoryBlobs:
    """Return the store at `/dir` or `file:///dir`; raise `Refused` for any other URI."""
    scheme, separator, _ = uri.partition("://")
    if not uri:
        raise Refused("store", "''", "names no store", _KNOWN)
    if not separator:
        return DirectoryBlobs(check_folder(uri))
    _check_no_secret(uri)
    if scheme != "file":
        raise Refused("store", uri[:200], f"has the unknown scheme {scheme!r}", _KNOWN)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise Refused("store", uri[:200], "must have three slashes, as in file:///dir", _KNOWN)
    return DirectoryBlobs(check_folder(unquote(parts.path)))


def check_folder(path: str, field: str = "store") -> str:
    """Return a folder's path, its `~` replaced; raise `Refused` if it is none or looks like a URI."""
    check_path(field, path)
    if not path.strip() or _ALMOST_URI.match(path):
        rule = "is neither a folder nor a URI with two slashes" if path.strip() else "names no folder"
        raise Refused(field, path or "''", rule, f"{_KNOWN}, or ./NAME for a folder of such a name")
    return os.path.expanduser(path)


def check_place(blobs: Blobs) -> None:
    """Raise `Refused` if a store cannot be used, as far as can be told without writing to it."""
    if not isinstance(blobs, DirectoryBlobs):
        check(blobs, writes=False)
        return
    there = next(folder for folder in (blobs.path, *blobs.path.parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = f"cannot be written, {there} is {'not writable' if there.is_dir() else 'no directory'}"
        raise Refused("store", blobs.path, why, "name a writable directory with --store")


def open_bucket(uri: str) -> "S3Blobs":
    """Return the store at `s3://bucket/prefix`; raise `Refused` for any other URI."""
    _check_no_secret(uri)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise Refused("store", uri[:200], f"must name a bucket, and {bucket!r} is no bucket name", _KNOWN)
    from orchestrator.runtime.s3.blobs import S3Blobs  # here: boto3 takes 0.2 s to import

    return S3Blobs(bucket, prefix)


def check(blobs: Blobs, *, option: str = "--store", writes: bool = True) -> None:
    """Raise `Refused` if the store is unusable: before anything else starts.

    `option` is what the user named the store with; without `writes` it need only be readable.
    """
    if isinstance(blobs, Maintenance):
        blobs.check(option, writes=writes)


def _check_no_secret(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    if re.search(r"[@?#]", rest) or ":" in rest.partition("/")[0]:
        raise Refused(
            "store",
            f"{scheme}://...",
            "must carry no credentials, query or fragment",
            "put credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, the endpoint in "
            "AWS_ENDPOINT_URL",
        )


def open_artifacts(uri: str) -> Artifacts:
    """Return the artifact store at `uri`; raise `Refused` for a wrong one."""
    return Artifacts(open_blobs(uri))


def open_location(uri: str | None, cache: str | None, cache_gib: int = CACHE_GIB) -> Location:
    """Return the location of staged data sets; without a URI only the built-in ones exist.

    Raise `Refused` for a wrong URI.
    """
    blobs = open_blobs(uri) if uri else None
    return Location(blobs, Path(cache) if cache else None, cache_gib * 2**30)

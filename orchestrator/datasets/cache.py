"""Read files of a staged set, always checked; through a node-local folder where there is one.

Files in the folder are named by their digest only, never by a name from the store. A lock per digest lets one
process of a node download while the others wait; the oldest files go when the folder outgrows its limit.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.blobs import Blobs
from orchestrator.datasets.manifest import File, sha256

ATTEMPTS = 2  # a flipped bit on the wire goes away, one at rest stays


def read_verified(
    blobs: Blobs,
    folder: str,
    file: File,
    cache: Path | None,
    limit: int,
    *,
    tool: str = "jobs.stage_data",
) -> bytes:
    """Return the bytes of `folder`/`file`, equal to the manifest's checksum; `tool` stages such files."""
    if cache is None:
        return _download(blobs, f"{folder}/{file.name}", file, tool)
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{file.sha256}.lock"):
        data = _read_cached(cache / file.sha256, file)
        if data is None:
            data = _download(blobs, f"{folder}/{file.name}", file, tool)
            _fill(cache / file.sha256, data)
            _trim(cache, limit)
        return data


def _download(blobs: Blobs, name: str, file: File, tool: str) -> bytes:
    got = "no such file"
    for _ in range(ATTEMPTS):
        data = blobs.get(name)
        if data is None:
            break
        got = sha256(data)
        if got == file.sha256:
            return data
    raise ValueError(
        f"{blobs.uri}/{name} does not match its manifest: want SHA-256 {file.sha256}, got {got}; "
        f"remove the set's folder and stage it again with python -m {tool}."
    )


def _read_cached(path: Path, file: File) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if sha256(data) != file.sha256:
        return None
    os.utime(path)
    return data


def _fill(path: Path, data: bytes) -> None:
    aside = path.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(data)
    aside.replace(path)


def _trim(cache: Path, limit: int) -> None:
    """Remove the files used longest ago until at most `limit` bytes remain; the newest always stays."""
    ages = []
    for path in cache.iterdir():
        with suppress(FileNotFoundError):  # another process trims too
            if not path.suffix:
                ages.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = 0
    for rank, (_, size, path) in enumerate(sorted(ages, reverse=True)):
        total += size
        if rank > 0 and total > limit:
            path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Node cache: verified reads of a staged set's files, through a node-local folder where there is one.

Files in the folder are named by their digest only, never by a name from the store, and appear whole. A lock
per digest lets one process of a node download while the others wait; a hit takes no lock. Files used longest
ago go when the folder outgrows its limit. A folder that cannot be written costs downloads, never the read.
Files are copied into memory and verified there. Those of sets too large for that are mapped and verified as
mapped, once: nobody may write into them in place, which this project never does.
"""

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.installation import to_call
from orchestrator.datasets.manifest import File
from orchestrator.store import artifacts
from orchestrator.store.artifacts import Damaged
from orchestrator.store.blobs import Blobs, blank, fill, sha256
from orchestrator.store.directory import IGNORE_FILES, DirectoryBlobs, withhold

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20  # read and hashed while it is in the processor's cache
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
FULL = (*NO_ROOM, errno.EROFS, errno.EFBIG)
_SETTLED_NS = 100_000_000  # a file changed less long ago could change again within one tick of its clock

T = TypeVar("T")
Identity = tuple[int, ...]
_VERIFIED: dict[Path, Identity] = {}  # cached files that this process has hashed, as they were then
_WARNED: set[tuple[str, Path]] = set()  # events and folders that this process has warned of


@dataclass(frozen=True)
class Wanted:
    """A file of a staged set."""

    blobs: Blobs
    folder: str
    file: File
    tool: str = "stage_data"  # command that stages such files

    @property
    def name(self) -> str:
        """Return its name in the store."""
        return f"{self.folder}/{self.file.name}"


@dataclass(frozen=True)
class Cache:
    """A folder of this node, shared by its processes."""

    folder: Path
    limit: int  # bytes


def read_verified(wanted: Wanted, cache: Cache | None) -> bytes:
    """Return the file's bytes, equal to the manifest's checksum; raise `Refused` if the store has others."""
    buffer = blank(wanted.file.size)
    with buffer.getbuffer() as view:
        read_into(wanted, cache, [view])
    return buffer.getvalue()


def read_into(wanted: Wanted, cache: Cache | None, buffers: Sequence[memoryview]) -> None:
    """Fill buffers, together as long as the file, one after the other; verified like `read_verified`."""
    assert sum(map(len, buffers)) == wanted.file.size
    if cache is None:
        _download(wanted, buffers)
        return
    path = cache.folder / wanted.file.sha256
    if _copy(path, wanted.file, buffers):
        return
    with _locked(path) as is_locked:
        if is_locked and _copy(path, wanted.file, buffers):
            return  # another process was faster
        _download(wanted, buffers)
        if is_locked:
            _keep(cache, path, buffers)


def can_map(blobs: Blobs, cache: Cache | None, num_bytes: int) -> bool:
    """Return whether files of `num_bytes` together are on this node's disk, or fit its cache."""
    return isinstance(blobs, DirectoryBlobs) if cache is None else num_bytes <= cache.limit


def has_room(cache: Cache, files: Iterable[File]) -> bool:
    """Return whether the folder's disk has room for those of the files that are not in the folder yet."""
    there = next(place for place in (cache.folder, *cache.folder.absolute().parents) if place.is_dir())
    missing = sum(file.size for file in files if not (cache.folder / file.sha256).is_file())
    return missing <= shutil.disk_usage(there).free


def map_verified(wanted: Wanted, cache: Cache | None) -> mmap.mmap | bytes:
    """Return what `read_verified` does, mapped; in memory, with a warning, where this node's disk does not
    have the file."""
    if cache is not None:
        path = cache.folder / wanted.file.sha256
    elif isinstance(wanted.blobs, DirectoryBlobs):
        path = wanted.blobs.file(wanted.name)
    else:
        return read_verified(wanted, cache)
    if (mapped := _map(path, wanted.file)) is not None:
        return mapped
    data = read_verified(wanted, cache)
    if (mapped := _map(path, wanted.file)) is not None:
        return mapped
    effect = "such a file is read whole each time it is opened; raise --cache-gib or make room"
    _warn_once("file_not_mapped", path.parent, "a file is not kept there or cannot be mapped", effect)
    return data


def _download(wanted: Wanted, buffers: Sequence[memoryview]) -> None:
    """Fill the buffers from the store; raise `Refused` if it has other bytes or none."""
    file, name = wanted.file, f"{wanted.blobs.uri}/{wanted.name}"

    def once() -> bool:
        size = fill(wanted.blobs, wanted.name, buffers)
        if size is None:
            return False
        digest = sha256(*buffers) if size == file.size else f"{size} bytes"
        if digest != file.sha256:
            raise Damaged(None, digest)
        return True

    try:
        is_there = artifacts.reread(once, f"file={name}")
        reason = "no such file"
    except Damaged as error:
        is_there, reason = False, error.reason
    if not is_there:
        raise Refused(
            name,
            NO_VALUE,
            f"does not match its manifest: want SHA-256 {file.sha256}, got {reason}",
            f"remove the set's folder and stage it again with {to_call(wanted.tool)}",
        )


def _copy(path: Path, file: File, buffers: Sequence[memoryview]) -> bool:
    """Fill the buffers with the cached file; False if it is absent or damaged."""

    def copied(handle: FileIO, is_known: bool) -> tuple[bool, str]:
        return True, _fill(handle, buffers, is_hashed=not is_known)

    return _sound(path, file, copied) is not None


def _map(path: Path, file: File) -> mmap.mmap | None:
    """Return the cached file mapped; None if it is absent or damaged."""

    def mapped(handle: FileIO, is_known: bool) -> tuple[mmap.mmap, str]:
        whole = mmap.mmap(handle.fileno(), file.size, access=mmap.ACCESS_READ)
        with memoryview(whole) as view:
            return whole, "" if is_known else sha256(view)

    return _sound(path, file, mapped)


def _sound(path: Path, file: File, take: Callable[[FileIO, bool], tuple[T, str]]) -> T | None:
    """Return what is taken of the cached file; None if it is absent or damaged.

    `take` returns the file's digest too, unless the file is known: this process has hashed it before and it
    has not changed since.
    """
    try:
        with path.open("rb", buffering=0) as handle:
            before = _identity(handle)
            is_known, is_whole = _VERIFIED.get(path) == before, before[2] == file.size
            if is_whole:
                taken, digest = take(handle, is_known)
                is_whole = before == _identity(handle) and (is_known or digest == file.sha256)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("event=cache_unreadable file=%s error=%r", path, error.strerror)
        return None
    if not is_whole:
        logger.warning("event=cache_damaged file=%s", path)
        return None
    _passed(path, before)
    return taken


def _passed(path: Path, identity: Identity) -> None:
    """Remember that a file was sound with this identity, and that it was used."""
    if time.time_ns() - max(identity[-2:]) > _SETTLED_NS:
        _VERIFIED[path] = identity
    _touch(path)


def _identity(handle: FileIO) -> Identity:
    """Return what changes when the file is written or replaced."""
    stat = os.fstat(handle.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _fill(handle: FileIO, buffers: Sequence[memoryview], *, is_hashed: bool) -> str:
    """Read the whole file into the buffers; return its digest if `is_hashed`, a wrong one if it is short."""
    digest = hashlib.sha256()
    for buffer in buffers:
        start = 0
        while start < len(buffer):
            num_bytes = handle.readinto(buffer[start : start + BLOCK_BYTES])
            if not num_bytes:
                return "too short"
            if is_hashed:
                digest.update(buffer[start : start + num_bytes])
            start += num_bytes
    return digest.hexdigest()


def _keep(cache: Cache, path: Path, buffers: Sequence[memoryview]) -> None:
    """Put the file into the folder if there is room; the caller holds its lock."""
    size = sum(map(len, buffers))
    if size > cache.limit:
        return
    try:
        for part in cache.folder.glob("*.part"):
            _sweep(part)
        _shrink(cache.folder, cache.limit - size)
        try:
            _write(path, buffers)
        except OSError as error:
            if error.errno not in NO_ROOM or not _free(cache.folder, size):
                raise
            _write(path, buffers)
        _touch(path)
        _shrink(cache.folder, cache.limit)  # others may have written meanwhile
    except OSError as error:
        _warn(cache.folder, error)


def _write(path: Path, buffers: Sequence[memoryview]) -> None:
    """Make the file appear whole, or leave nothing."""
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as handle:
            handle.writelines(buffers)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def _free(folder: Path, num_bytes: int) -> bool:
    """Free `num_bytes` on the disk; return False, removing nothing, if the folder holds too few for that."""
    held = sum(size for _, size, _ in _contents(folder))
    if held + shutil.disk_usage(folder).free < num_bytes:
        return False
    _shrink(folder, held - num_bytes)
    return True


def _shrink(folder: Path, limit: int) -> None:
    """Remove the files used longest ago until at most `limit` bytes remain."""
    total = 0
    for _, size, path in sorted(_contents(folder), reverse=True):
        total += size
        if total > limit:
            path.unlink(missing_ok=True)


def _contents(folder: Path) -> list[tuple[int, int, Path]]:
    """Return last use, size and path of each cached file."""
    contents = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process makes room too
            if not path.suffix and path.name not in IGNORE_FILES:
                used = lock if (lock := _lock_of(path)).exists() else path
                contents.append((used.stat().st_mtime_ns, path.stat().st_size, path))
    return contents


def _sweep(part: Path) -> None:
    """Remove the part of a dead writer; a living one holds its lock."""
    with suppress(FileNotFoundError, BlockingIOError), _lock_of(part).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a digest; False where the folder cannot take one."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            withhold(path.parent)
        lock = _lock_of(path).open("a")
    except OSError as error:
        _warn(path.parent, error)
        yield False
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield True


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name.partition('.')[0]}.lock")


def _touch(path: Path) -> None:
    """Record the use of a file as its lock's time: a time on the file itself would look like a change."""
    with suppress(OSError):
        os.utime(_lock_of(path))


def _warn(folder: Path, error: OSError) -> None:
    """Log once that the folder keeps nothing; raise errors other than a lack of room or a read-only disk."""
    if error.errno not in FULL:
        raise error
    effect = "files that are not there yet are read from the store each time; make room"
    _warn_once("cache_full", folder, error.strerror, effect)


def _warn_once(event: str, folder: Path, error: str | None, effect: str) -> None:
    """Log an event of a folder the first time that this process meets it."""
    if (event, folder) not in _WARNED:
        _WARNED.add((event, folder))
        logger.warning("event=%s folder=%s error=%r effect=%r", event, folder, error, effect)

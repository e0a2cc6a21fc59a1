"""Checks of the stores of artifacts and data sets: readable, writable, and faithful to what was put."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil

from orchestrator.config.base import Refused
from orchestrator.runtime.doctor.bucket import bucket, read_soon
from orchestrator.runtime.doctor.findings import (
    STAGE_SOME,
    Finding,
    clock,
    fail,
    holding,
    ok,
    once,
    refused,
    room,
    warn,
)
from orchestrator.runtime.doctor.machine import existing, free_bytes
from orchestrator.runtime.open_store import is_bucket, open_bucket, open_directory
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import IGNORE_FILES, DirectoryBlobs
from orchestrator.store.gc import store_clock_ms

_FIRST, _SECOND = b"first", b"second"


class Probe(NamedTuple):
    """An object that holds its own name."""

    uri: str
    name: str


def place(option: str, uri: str, *, writes: bool) -> Iterator[Finding]:
    """Check the store that `option` names; without `writes` it need only be readable."""
    what = option.lstrip("-")
    try:
        if is_bucket(uri):
            yield from bucket(what, option, open_bucket(uri), writes=writes)
        else:
            yield from _directory(what, option, open_directory(uri), writes=writes)
    except Refused as refusal:
        yield refused(what, refusal)


def _directory(what: str, option: str, blobs: DirectoryBlobs, *, writes: bool) -> Iterator[Finding]:
    folder = existing(blobs.path)
    is_there = folder == blobs.path
    if blobs.path.exists() and not is_there:
        yield fail(what, f"{blobs.path} is no directory", f"name another with {option}")
        return
    if not is_there and not writes:
        yield fail(
            what, f"there is no directory {blobs.path}", f"name another with {option}, or {STAGE_SOME}"
        )
        return
    yield ok(what, f"{blobs.path} on {_file_system(folder)}{'' if is_there else ', made by the first sweep'}")
    yield room(f"{what} room", str(folder), free_bytes(folder))
    if writes:
        yield from _writes(what, option, folder)
    else:
        sets = [path for path in folder.iterdir() if path.is_dir()]
        yield holding(what, [path.name for path in sets])
        yield from _travelling(what, folder, sets)


def _travelling(what: str, folder: Path, sets: Sequence[Path]) -> Iterator[Finding]:
    """Warn of sets in the working directory that were staged before staging wrote ignore files."""
    open_sets = sorted(one.name for one in sets if not all((one / name).exists() for name in IGNORE_FILES))
    if open_sets and folder.resolve().is_relative_to(Path.cwd()):
        found = f"{', '.join(open_sets)} in the working directory, without an ignore file"
        fix = f"move {folder} elsewhere, or list it in {' and '.join(IGNORE_FILES)}: jobs take it along"
        yield warn(f"{what} travels", found, fix)


def _writes(what: str, option: str, folder: Path) -> Iterator[Finding]:
    """Create a probe, try that again with other bytes, read it and remove it."""
    probes, name = DirectoryBlobs(folder), f"doctor-{uuid4().hex}"
    try:
        created = [probes.put(name, content, overwrite=False) for content in (_FIRST, _SECOND)]
        data = probes.get(name)
        ahead = store_clock_ms(probes) / 1000 - time.time()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield fail(f"{what} writes", f"cannot write in {folder} ({reason})", f"name another with {option}")
        return
    finally:
        with suppress(OSError):
            probes.remove(name)
    yield ok(f"{what} writes", "created, read and removed a probe")
    is_once = created == [True, False] and data == _FIRST
    yield once(what, option, "the file system does not create files once", is_once=is_once)
    yield clock(f"{what} clock", ahead, "the file system's clock")


def _file_system(folder: Path) -> str:
    """Return the kind of file system that holds a folder."""
    real = folder.resolve()
    mounts = [one for one in psutil.disk_partitions(all=True) if real.is_relative_to(one.mountpoint)]
    return max(mounts, key=lambda one: len(one.mountpoint)).fstype if mounts else "an unknown file system"


@contextmanager
def probe(uri: str) -> Iterator[Probe | None]:
    """Put an object where artifacts go, for nodes to read; yield None if that fails; `place` reports it."""
    try:
        blobs = _existing(uri)
        placed = Probe(blobs.uri, f"doctor-{uuid4().hex}")
        blobs.put(placed.name, placed.name.encode())
    except (OSError, ValueError):
        yield None
        return
    try:
        yield placed
    finally:
        blobs.remove(placed.name)


def _existing(uri: str) -> Blobs:
    """Return a store whose root exists: of a directory to be made, the nearest folder above."""
    return open_bucket(uri) if is_bucket(uri) else DirectoryBlobs(existing(open_directory(uri).path))


def seen(uri: str, name: str) -> str:
    """Return why this machine cannot read the object that another one put; empty if it can."""
    try:
        data = read_soon(open_bucket(uri), name) if is_bucket(uri) else open_directory(uri).get(name)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if data == name.encode() else f"{uri} is another place there"

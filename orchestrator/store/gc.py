"""What a store holds in vain: parts of publishes that never finished, checkpoints of published stages, ...

Published artifacts, journals, reports, `quarantine/` and `conflicts/` are never touched. Folders of a
directory stay, empty: a publisher may be about to write into one.

Races. A publish puts (and overwrites) its files first and its manifest last, so a part goes only if nothing
in its folder is young and the manifest does not name it; if it does right after, the part is put back. A file
put between our last look and its removal is missed by the first read, which has the stage run again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal, Protocol
from uuid import uuid4

from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.listing import peek

# part: bytes that no manifest names; upload: parts of an object that was never completed; leftover: a file
# that a dead writer had put aside.
Kind = Literal["part", "checkpoint", "upload", "leftover"]

_PART = re.compile(r"artifacts/([\w=-]{2})/(?P<key>\1[\w=-]*)/[0-9a-f]{12}-.+", re.ASCII)
_CHECKPOINT = re.compile(r"checkpoints/(?P<key>[\w=-]{2,128})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Garbage:
    """Something that nobody needs any more."""

    kind: Kind
    name: str
    size: int  # bytes
    modified_ms: int  # Unix milliseconds on the store's clock
    upload: str = ""  # its id, if it is one
    fault: str = ""  # why it is still there


@dataclass(frozen=True)
class Swept:
    """What one collection found."""

    garbage: tuple[Garbage, ...]
    unreadable: tuple[str, ...]  # keys whose manifest cannot be read: their files stay
    num_young: int  # files that a publish may be about to name: they stay


class Uploads(Protocol):
    """Uploads in parts that a bucket keeps, and charges for, until somebody completes or aborts them."""

    def pending(self) -> Sequence[Garbage]:
        """Return all of them, with the bytes they hold."""

    def abort(self, upload: Garbage) -> None:
        """Free one."""


def collect(
    store: Artifacts, *, older_than_seconds: float, dry_run: bool = False, uploads: Uploads | None = None
) -> Swept:
    """Remove what is in vain and older; return it, or what would go if `dry_run`."""
    limit_ms = now_ms(store.blobs) - round(1000 * older_than_seconds)
    sweep = _Sweep(store.blobs, limit_ms, dry_run=dry_run)
    garbage = [*sweep.parts(), *sweep.checkpoints()]
    if uploads is not None:
        garbage += sweep.uploads(uploads)
    if isinstance(store.blobs, DirectoryBlobs):
        garbage += _leftovers(store.blobs, older_than_seconds, dry_run=dry_run)
    return Swept(tuple(garbage), tuple(sweep.unreadable), sweep.num_young)


def now_ms(blobs: Blobs) -> int:
    """Return the time on the store's own clock, in Unix milliseconds, by putting and removing an object."""
    name = f"clock-{uuid4().hex}"
    blobs.put(name, b"")
    try:
        return max(entry.modified_ms for entry in blobs.entries(name))
    finally:
        blobs.remove(name)


class _Sweep:
    """One pass over a store; `unreadable` and `num_young` count what was left alone."""

    def __init__(self, blobs: Blobs, limit_ms: int, *, dry_run: bool) -> None:
        self._blobs, self._limit_ms, self._dry_run = blobs, limit_ms, dry_run
        self.unreadable: list[str] = []
        self.num_young = 0

    def parts(self) -> Iterator[Garbage]:
        """Remove the old files of artifacts that no manifest names."""
        listed = self._blobs.entries("artifacts/")  # before any manifest is read
        found = [(match["key"], entry) for entry in listed if (match := _PART.fullmatch(entry.name))]
        for key, pairs in groupby(found, key=lambda pair: pair[0]):
            named = self._named(key)
            if named is None:
                self.unreadable.append(key)
                continue
            group = [entry for _, entry in pairs]
            parts = [entry for entry in group if entry.name not in named]
            if parts and max(entry.modified_ms for entry in group) > self._limit_ms:
                self.num_young += len(parts)
                continue
            for entry in parts:
                garbage = Garbage("part", entry.name, entry.size, entry.modified_ms)
                yield from self._tried(garbage, partial(self._is_removed, key))

    def checkpoints(self) -> Iterator[Garbage]:
        """Remove the old checkpoints of published stages; one that is needed again only saved time."""
        for entry in self._blobs.entries("checkpoints/"):
            match = _CHECKPOINT.fullmatch(entry.name)
            if match and entry.modified_ms <= self._limit_ms and peek(self._blobs, match["key"])[1]:
                garbage = Garbage("checkpoint", entry.name, entry.size, entry.modified_ms)
                yield from self._tried(garbage, lambda one: self._blobs.remove(one.name))

    def uploads(self, uploads: Uploads) -> Iterator[Garbage]:
        """Abort the old uploads; a writer that still sends parts of one fails, and its stage runs again."""
        for garbage in uploads.pending():
            if garbage.modified_ms <= self._limit_ms:
                yield from self._tried(garbage, uploads.abort)

    def _is_removed(self, key: str, part: Garbage) -> bool:
        """Remove a part unless it is needed now; the order of the steps is what the file's head speaks of."""
        name = part.name
        data = self._blobs.get(name)
        named = self._named(key)
        folder = self._blobs.entries(f"artifacts/{key[:2]}/{key}/")  # last: whoever puts now is seen
        if named is None or name in named or any(one.modified_ms > self._limit_ms for one in folder):
            return False
        self._blobs.remove(name)
        if data is not None and name in (self._named(key) or ()):
            self._blobs.put(name, data, overwrite=False)
            return False
        return True

    def _named(self, key: str) -> set[str] | None:
        """Return the objects that a manifest names; None if it cannot be read."""
        is_there, artifact = peek(self._blobs, key)
        if is_there and artifact is None:
            return None
        return {file.object for file in artifact.files.values()} if artifact else set()

    def _tried(self, garbage: Garbage, remove: Callable[[Garbage], object]) -> Iterator[Garbage]:
        """Yield what is removed, or why it is not; nothing if `remove` says that it is needed."""
        try:
            if self._dry_run or remove(garbage) is not False:
                yield garbage
        except Exception as error:  # whatever a store raises: the rest can still go
            yield replace(garbage, fault=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _leftovers(blobs: DirectoryBlobs, older_than_seconds: float, *, dry_run: bool) -> Iterator[Garbage]:
    """Remove what dead writers had put aside."""
    for path in sorted(blobs.leftovers(older_than_seconds)):
        with suppress(FileNotFoundError):  # somebody else was faster
            stat, name = path.stat(), path.relative_to(blobs.path).as_posix()
            if not dry_run:
                path.unlink()
            yield Garbage("leftover", name, stat.st_size, stat.st_mtime_ns // 1_000_000)

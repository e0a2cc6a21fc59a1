"""Garbage collection: files that no manifest names, checkpoints of published stages, writes never completed.

Published artifacts stay unless the caller names those that are needed; journals, reports, `quarantine/` and
`conflicts/` are never touched. Folders of a directory stay, empty: a publisher may be about to write into
one.

Races. A publish puts (and overwrites) its files first and its manifest last, so a part goes only if nothing
in its folder is young and the manifest does not name it; if it does right after, the part is put back. A file
put between the last look and its removal is missed by the first read, which has the stage run again.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal
from uuid import uuid4

from orchestrator.store.artifacts import Artifacts, manifest_name
from orchestrator.store.blobs import Blobs, Maintenance
from orchestrator.store.listing import peek

# part: bytes that no manifest names; leftover and upload: see `blobs.Unfinished`; artifact: a published one.
Kind = Literal["part", "checkpoint", "leftover", "upload", "artifact"]

_PART = re.compile(r"artifacts/([\w=-]{2})/(?P<key>\1[\w=-]*)/[0-9a-f]{12}-.+", re.ASCII)
_CHECKPOINT = re.compile(r"checkpoints/(?P<key>[\w=-]{2,128})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Garbage:
    """An object or an unfinished write that no sweep needs."""

    kind: Kind
    name: str
    size: int  # bytes
    modified_ms: int  # Unix milliseconds on the store's clock
    upload: str = ""  # id of an upload
    fault: str = ""  # why it could not be removed


@dataclass(frozen=True)
class Collected:
    """Result of one collection."""

    garbage: tuple[Garbage, ...]
    unreadable: tuple[str, ...]  # keys whose manifest cannot be read: their files stay
    num_young: int  # files that a publish may be about to name: they stay


def collect(
    store: Artifacts,
    *,
    older_than_seconds: float,
    needed: Collection[str] | None = None,
    dry_run: bool = False,
) -> Collected:
    """Remove the garbage that is older, by the store's clock; return it, or with `dry_run` what would go.

    With `needed`, keys of stages, published artifacts of all other stages are garbage too.
    Raise what the store raises if it cannot be listed or written; a removal that fails is in the result.
    """
    limit_ms = store_clock_ms(store.blobs) - round(1000 * older_than_seconds)
    collection = _Collection(store.blobs, limit_ms, dry_run=dry_run)
    garbage = [] if needed is None else list(collection.artifacts(needed))
    garbage += [*collection.parts(), *collection.checkpoints()]
    if isinstance(store.blobs, Maintenance):
        garbage += collection.unfinished(store.blobs)
    return Collected(tuple(garbage), tuple(collection.unreadable), collection.num_young)


def store_clock_ms(blobs: Blobs) -> int:
    """Return the time on the store's own clock, in Unix milliseconds, by putting and removing an object."""
    name = f"clock-{uuid4().hex}"
    blobs.put(name, b"")
    try:
        return max(entry.modified_ms for entry in blobs.entries(name))
    finally:
        blobs.remove(name)


class _Collection:
    """One pass over a store; `unreadable` and `num_young` count what was left alone."""

    def __init__(self, blobs: Blobs, limit_ms: int, *, dry_run: bool) -> None:
        self._blobs, self._limit_ms, self._dry_run = blobs, limit_ms, dry_run
        self.unreadable: list[str] = []
        self.num_young = 0

    def parts(self) -> Iterator[Garbage]:
        """Remove the old files of artifacts that no manifest names."""
        listed = self._blobs.entries("artifacts/")  # before any manifest is read
        files = [(match["key"], entry) for entry in listed if (match := _PART.fullmatch(entry.name))]
        for key, pairs in groupby(files, key=lambda pair: pair[0]):
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
                yield from self._tried(garbage, partial(self._is_removed, key, entry.name))

    def artifacts(self, needed: Collection[str]) -> Iterator[Garbage]:
        """Remove the old published artifacts whose keys are not needed, each by its manifest first."""
        listed = self._blobs.entries("artifacts/")
        for key, group in groupby(listed, key=lambda entry: entry.name.split("/")[2]):
            entries = list(group)
            newest = max(entry.modified_ms for entry in entries)
            is_published = any(entry.name == manifest_name(key) for entry in entries)
            if key in needed or not is_published or newest > self._limit_ms:
                continue
            size = sum(entry.size for entry in entries)
            names = [manifest_name(key), *(entry.name for entry in entries)]
            garbage = Garbage("artifact", manifest_name(key), size, newest)
            yield from self._tried(garbage, partial(self._remove_all, names))

    def _remove_all(self, names: Sequence[str]) -> None:
        for name in names:
            self._blobs.remove(name)

    def checkpoints(self) -> Iterator[Garbage]:
        """Remove the old checkpoints of published stages; a rebuilt stage only starts from its beginning."""
        for entry in self._blobs.entries("checkpoints/"):
            match = _CHECKPOINT.fullmatch(entry.name)
            if match and entry.modified_ms <= self._limit_ms and peek(self._blobs, match["key"])[1]:
                garbage = Garbage("checkpoint", entry.name, entry.size, entry.modified_ms)
                yield from self._tried(garbage, partial(self._blobs.remove, entry.name))

    def unfinished(self, store: Maintenance) -> Iterator[Garbage]:
        """Discard the old unfinished writes; a writer still at work on one fails, its stage runs again."""
        for write in store.unfinished():
            if write.modified_ms <= self._limit_ms:
                garbage = Garbage(write.kind, write.name, write.size, write.modified_ms, write.upload_id)
                yield from self._tried(garbage, partial(store.discard, write))

    def _is_removed(self, key: str, name: str) -> bool:
        """Remove a part unless it is needed now; the module's header explains the order of the steps."""
        data = self._blobs.get(name)
        named = self._named(key)
        folder = self._blobs.entries(f"artifacts/{key[:2]}/{key}/")  # last: a put before this line is seen
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

    def _tried(self, garbage: Garbage, remove: Callable[[], object]) -> Iterator[Garbage]:
        """Yield the garbage, with the fault if its removal failed; nothing if `remove` returns False."""
        try:
            if self._dry_run or remove() is not False:
                yield garbage
        except Exception as error:  # of any store: the rest can still go
            yield replace(garbage, fault=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

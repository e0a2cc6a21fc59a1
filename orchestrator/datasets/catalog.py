"""Find, check and load data sets by name: the built-in ones and those staged under one location."""

import functools
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.datasets.builtin import BUILTINS, staged
from orchestrator.datasets.cache import Cache, Wanted, read_into, read_verified
from orchestrator.datasets.manifest import NAME, File, Manifest, parse, sha256
from orchestrator.store.blobs import Blobs
from orchestrator.store.parallel import parallel_map

READERS = 4  # files of a set that are read at once: while one is hashed another is on its way


@dataclass(frozen=True)
class Location:
    """Where staged sets are."""

    blobs: Blobs | None = None  # root that holds <name>/manifest.json; None: only the built-in sets
    cache: Path | None = None  # node-local folder for their files; None reads the store each time
    cache_bytes: int = 32 * 2**30  # the folder's limit

    @property
    def node_cache(self) -> Cache | None:
        """Return the folder with its limit."""
        return Cache(self.cache, self.cache_bytes) if self.cache else None


@dataclass(frozen=True)
class Description:
    """What the manifest says."""

    name: str
    digest: str  # SHA-256 of the manifest
    source: str  # URI of the set's folder or `built-in`
    num_images: int
    num_classes: int
    image_shape: tuple[int, int, int]  # height, width, channels
    splits: tuple[str, ...]
    class_names: tuple[str, ...]


class Labels(NamedTuple):
    """A set without its images; the arrays are read-only because stages share them."""

    labels: np.ndarray  # (N,) int64
    splits: Mapping[str, np.ndarray]  # name -> (N,) uint8, positions in PARTS


@dataclass(frozen=True, eq=False)
class Dataset:
    """A whole set in memory; the arrays are read-only because stages share them."""

    description: Description
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]  # name -> (N,) uint8, positions in PARTS


@dataclass(frozen=True)
class _Found:
    """A set at one moment. What makes two loads the same load is what it holds, not where it was found."""

    description: Description
    manifest: Manifest = field(compare=False)
    blobs: Blobs = field(compare=False)
    cache: Cache | None = field(compare=False)

    def wanted(self, file: File) -> Wanted:
        """Return what the cache wants to know of a file."""
        return Wanted(self.blobs, self.description.name, file)


def describe(name: str, location: Location) -> Description:
    """Return what the manifest says of a set; an unknown name raises with the known ones."""
    return _find(name, location).description


def verify(name: str, location: Location) -> Description:
    """Check the checksum of every file of the set."""
    found = _find(name, location)

    def check(file: File) -> None:
        read_into(found.wanted(file), found.cache, [memoryview(bytearray(file.size))])

    list(parallel_map(check, _files(found.manifest), READERS))
    return found.description


def load(name: str, location: Location) -> Dataset:
    """Return the set, verified; later calls of this process share the arrays."""
    return _load(_find(name, location))


def load_labels(name: str, location: Location) -> Labels:
    """Return labels and splits, verified, without reading a pixel."""
    return _load_labels(_find(name, location))


@functools.lru_cache(maxsize=8)
def _load(found: _Found) -> Dataset:
    shards = list(_shards(found))
    images = np.empty((found.manifest.kept, *found.manifest.image_shape), dtype=np.uint8)
    list(parallel_map(lambda shard: _read_rows(found, shard[0], images[shard[1]]), shards, READERS))
    images.flags.writeable = False
    labels, splits = _load_labels(found)
    return Dataset(found.description, images, labels, found.manifest.class_names, splits)


@functools.lru_cache(maxsize=32)
def _load_labels(found: _Found) -> Labels:
    splits = found.manifest.splits
    files = [found.manifest.labels, *(entry.file for entry in splits.values())]
    labels, *codes = parallel_map(lambda file: _read_array(found, file), files, READERS)
    for array in (labels, *codes):
        array.flags.writeable = False
    return Labels(labels, dict(zip(splits, codes, strict=True)))


def _read_array(found: _Found, file: File) -> np.ndarray:
    data = read_verified(found.wanted(file), found.cache)
    return np.load(io.BytesIO(data), allow_pickle=False)


def _shards(found: _Found) -> Iterator[tuple[File, slice]]:
    """Pair each shard with its rows of the set: what is not pixels is headers, all equally long."""
    files, kept = found.manifest.images, found.manifest.kept
    row = math.prod(found.manifest.image_shape)
    header, rest = divmod(sum(file.size for file in files) - kept * row, len(files) or 1)
    is_plausible = files and kept > 0 and row > 0 and header > 0 and not rest
    if not is_plausible or any(file.size <= header or (file.size - header) % row for file in files):
        raise _unlike_its_manifest(found, f"shards that cannot hold {kept} images")
    start = 0
    for file in files:
        stop = start + (file.size - header) // row
        yield file, slice(start, stop)
        start = stop


def _read_rows(found: _Found, file: File, rows: np.ndarray) -> None:
    """Read one shard, verified, into its rows."""
    header = memoryview(bytearray(file.size - rows.nbytes))
    read_into(found.wanted(file), found.cache, [header, rows.data.cast("B")])
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    described = np.lib.format.read_array_header_1_0(stream)
    if described != (rows.shape, False, rows.dtype) or stream.tell() != len(header):
        raise _unlike_its_manifest(found, f"{file.name} of {described}, not {(rows.shape, False, 'uint8')}")


def _find(name: str, location: Location) -> _Found:
    """Read the manifest."""
    is_builtin = name in BUILTINS
    blobs = staged(name) if is_builtin else location.blobs
    data = blobs.get(f"{name}/manifest.json") if blobs is not None and NAME.fullmatch(name) else None
    if blobs is None or data is None:
        raise ValueError(_unknown(name, location))
    manifest = parse(data, f"{blobs.uri}/{name}/manifest.json")
    description = Description(
        name=name,
        digest=sha256(data),
        source="built-in" if is_builtin else f"{blobs.uri.rstrip('/')}/{name}",
        num_images=manifest.kept,
        num_classes=len(manifest.class_names),
        image_shape=manifest.image_shape,
        splits=tuple(sorted(manifest.splits)),
        class_names=manifest.class_names,
    )
    return _Found(description, manifest, blobs, None if is_builtin else location.node_cache)


def _unlike_its_manifest(found: _Found, what: str) -> ValueError:
    return ValueError(
        f"{found.description.source} has {what}; remove that folder and stage the set again with "
        "python -m jobs.stage_data."
    )


def _files(manifest: Manifest) -> Iterator[File]:
    yield from manifest.images
    yield manifest.labels
    for split in manifest.splits.values():
        yield split.file


def _unknown(name: str, location: Location) -> str:
    known = f"built in are {', '.join(sorted(BUILTINS))}"
    if location.blobs is None:
        return f"dataset={name} is unknown; {known}; others need a data location with staged sets."
    sets = [path.split("/")[0] for path in location.blobs.names("") if path.count("/") == 1]
    there = ", ".join(sorted({entry for entry in sets if NAME.fullmatch(entry)})) or "none"
    return (
        f"dataset={name} is unknown; {known}, staged at {location.blobs.uri} are {there}; "
        "correct the name or stage the set with python -m jobs.stage_data."
    )

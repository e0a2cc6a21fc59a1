"""Catalog: find, verify and load data sets by name, built in or staged at one location."""

import functools
import io
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.installation import to_call
from orchestrator.datasets import shards
from orchestrator.datasets.builtin import BUILTINS, staged
from orchestrator.datasets.cache import (
    Cache,
    Wanted,
    can_map,
    has_room,
    map_verified,
    read_into,
    read_verified,
)
from orchestrator.datasets.manifest import NAME, File, Manifest, parse
from orchestrator.datasets.shards import Shards
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.parallel import parallel_map

BUILT_IN = "built-in"
NOT_MAPPED = "the whole set is read into memory; raise --cache-gib above its size or free disk space"
CACHE_GIB = 32
"""Limit of a node's cache where none is given."""

READERS = 4  # files of a set read at once: one is hashed while another is downloaded
MAPPED_SHARDS = 64  # files of large sets that are open at a time; opening one again costs microseconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Location:
    """The store of staged sets and the node-local cache of their files."""

    blobs: Blobs | None = None  # root of <name>/manifest.json; None: only the built-in sets
    cache: Path | None = None  # node-local folder; None reads the store each time
    cache_bytes: int = CACHE_GIB * 2**30  # limit of the folder

    @property
    def node_cache(self) -> Cache | None:
        """Return the cache folder with its limit, or None."""
        return Cache(self.cache, self.cache_bytes) if self.cache else None


@dataclass(frozen=True)
class Description:
    """A set's manifest in short."""

    name: str
    digest: str  # SHA-256 of the manifest
    source: str  # URI of the set's folder or `built-in`
    num_images: int
    num_classes: int
    image_shape: tuple[int, int, int]  # height, width, channels
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    is_labelled: bool = True  # False: the images have no classes, and one class stands for all

    @property
    def num_bytes(self) -> int:
        """Bytes of the images, as `load` holds or maps them."""
        return self.num_images * math.prod(self.image_shape)


class Footprint(NamedTuple):
    """What a process that loads a set holds of it."""

    num_images: int
    num_bytes: int  # of the images as stored
    is_mapped: bool  # from files on its node's disk, instead of in its own memory


class Labels(NamedTuple):
    """Labels and splits of a set; the arrays are read-only because stages share them."""

    labels: np.ndarray  # (N,) int64
    splits: Mapping[str, np.ndarray]  # name -> (N,) uint8, positions in PARTS


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set; the arrays are read-only because stages share them."""

    description: Description
    images: np.ndarray | Shards  # (N, H, W, C) uint8; those of a large set are in mapped files
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]  # name -> (N,) uint8, positions in PARTS


@dataclass(frozen=True)
class _Stored:
    """A set with its parsed manifest; as a cache key, its description."""

    description: Description
    manifest: Manifest = field(compare=False)
    blobs: Blobs = field(compare=False)
    cache: Cache | None = field(compare=False)

    def wanted(self, file: File) -> Wanted:
        """Return a request for one file of the set, as the cache takes it."""
        return Wanted(self.blobs, self.description.name, file)


def describe(name: str, location: Location) -> Description:
    """Return a set's description.

    Raise `Refused` of `dataset` with the known names if it is unknown, or if its manifest is damaged.
    """
    return _find(name, location).description


def footprint(about: Description, location: Location) -> Footprint:
    """Return what a process with this location holds of a set, on a node whose disk has room for its cache.

    Torch is not needed for it.
    """
    is_mapped = about.source != BUILT_IN and _is_mapped(about, location.blobs, location.node_cache)
    return Footprint(about.num_images, about.num_bytes, is_mapped)


def verify(name: str, location: Location) -> Description:
    """Check the SHA-256 of every file of a set and return its description.

    Raise as `describe` does, and `ValueError` if a file is missing or differs from its checksum.
    """
    stored = _find(name, location)

    def check(file: File) -> None:
        read_into(stored.wanted(file), stored.cache, [memoryview(bytearray(file.size))])

    list(parallel_map(check, _files(stored.manifest), READERS))
    return stored.description


def load(name: str, location: Location) -> Dataset:
    """Return the verified set; later calls in this process share the arrays. Raise as `verify` does.

    A set beyond `HELD_BYTES` is mapped where its files are on this node's disk or fit its cache and the space
    free there: each file is verified when an image of it is first asked for, and that raises.
    """
    return _load(_find(name, location))


def load_labels(name: str, location: Location) -> Labels:
    """Return verified labels and splits without reading images. Raise as `verify` does."""
    return _load_labels(_find(name, location))


@functools.lru_cache(maxsize=8)
def _load(stored: _Stored) -> Dataset:
    files = list(_shards(stored))
    about = stored.description
    is_mapped = _is_mapped(about, stored.blobs, stored.cache)
    if is_mapped and (stored.cache is None or has_room(stored.cache, stored.manifest.images)):
        images: np.ndarray | Shards = _mapped(stored, files)
    else:
        if about.num_bytes > shards.HELD_BYTES:
            logger.warning(
                "event=set_not_mapped set=%s bytes=%d effect=%r", about.name, about.num_bytes, NOT_MAPPED
            )
        images = _in_memory(stored, files)
    labels, splits = _load_labels(stored)
    return Dataset(stored.description, images, labels, stored.manifest.class_names, splits)


def _is_mapped(about: Description, blobs: Blobs | None, cache: Cache | None) -> bool:
    is_large = about.num_bytes > shards.HELD_BYTES
    return is_large and blobs is not None and can_map(blobs, cache, about.num_bytes)


def _in_memory(stored: _Stored, files: list[tuple[File, slice]]) -> np.ndarray:
    images = np.empty((stored.manifest.kept, *stored.manifest.image_shape), dtype=np.uint8)
    list(parallel_map(lambda shard: _read_rows(stored, shard[0], images[shard[1]]), files, READERS))
    images.flags.writeable = False
    return images


def _mapped(stored: _Stored, files: list[tuple[File, slice]]) -> Shards:
    counts = [rows.stop - rows.start for _, rows in files]
    image_shape = stored.manifest.image_shape

    def block(number: int) -> np.ndarray:
        return _block(stored.wanted(files[number][0]), stored.cache, (counts[number], *image_shape))

    return Shards(counts, image_shape, block)


@functools.lru_cache(maxsize=MAPPED_SHARDS)
def _block(wanted: Wanted, cache: Cache | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return the images of one verified shard, mapped, with shape (n, H, W, C)."""
    data, start = map_verified(wanted, cache), wanted.file.size - math.prod(shape)
    _check_header(wanted, bytes(data[:start]), shape)
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


@functools.lru_cache(maxsize=32)
def _load_labels(stored: _Stored) -> Labels:
    splits = stored.manifest.splits
    files = [stored.manifest.labels, *(entry.file for entry in splits.values())]
    labels, *codes = parallel_map(lambda file: _read_array(stored, file), files, READERS)
    for array in (labels, *codes):
        array.flags.writeable = False
    return Labels(labels, dict(zip(splits, codes, strict=True)))


def _read_array(stored: _Stored, file: File) -> np.ndarray:
    data = read_verified(stored.wanted(file), stored.cache)
    return np.load(io.BytesIO(data), allow_pickle=False)


def _shards(stored: _Stored) -> Iterator[tuple[File, slice]]:
    """Pair each shard with its rows of the set; bytes that are not pixels are headers of equal length."""
    files, kept = stored.manifest.images, stored.manifest.kept
    row = math.prod(stored.manifest.image_shape)
    header, rest = divmod(sum(file.size for file in files) - kept * row, len(files) or 1)
    is_plausible = files and kept > 0 and row > 0 and header > 0 and not rest
    if not is_plausible or any(file.size <= header or (file.size - header) % row for file in files):
        raise _unlike_its_manifest(stored.description.source, f"shards that cannot hold {kept} images")
    start = 0
    for file in files:
        stop = start + (file.size - header) // row
        yield file, slice(start, stop)
        start = stop


def _read_rows(stored: _Stored, file: File, rows: np.ndarray) -> None:
    """Read one verified shard into its rows, (n, H, W, C) uint8."""
    header = memoryview(bytearray(file.size - rows.nbytes))
    wanted = stored.wanted(file)
    read_into(wanted, stored.cache, [header, rows.data.cast("B")])
    _check_header(wanted, bytes(header), rows.shape)


def _check_header(wanted: Wanted, header: bytes, shape: tuple[int, ...]) -> None:
    """Raise `Refused` unless a shard's header is that of images (n, H, W, C) uint8."""
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    described = np.lib.format.read_array_header_1_0(stream)
    if described != (shape, False, np.dtype(np.uint8)) or stream.tell() != len(header):
        source = _source(wanted.blobs, wanted.folder)
        raise _unlike_its_manifest(
            source, f"{wanted.file.name} of {described}, not {(shape, False, 'uint8')}"
        )


def _find(name: str, location: Location) -> _Stored:
    """Read and parse the manifest of a set."""
    is_builtin = name in BUILTINS
    blobs = staged(name) if is_builtin else location.blobs
    data = blobs.get(f"{name}/manifest.json") if blobs is not None and NAME.fullmatch(name) else None
    if blobs is None or data is None:
        raise _unknown(name, location)
    manifest = parse(data, f"{blobs.uri}/{name}/manifest.json")
    description = Description(
        name=name,
        digest=sha256(data),
        source=BUILT_IN if is_builtin else _source(blobs, name),
        num_images=manifest.kept,
        num_classes=len(manifest.class_names),
        image_shape=manifest.image_shape,
        splits=tuple(sorted(manifest.splits)),
        class_names=manifest.class_names,
        is_labelled=not manifest.options.unlabelled,
    )
    return _Stored(description, manifest, blobs, None if is_builtin else location.node_cache)


def _source(blobs: Blobs, name: str) -> str:
    return f"{blobs.uri.rstrip('/')}/{name}"


def _unlike_its_manifest(source: str, what: str) -> Refused:
    way_out = f"remove that folder and stage the set again with {to_call('stage_data')}"
    return Refused(source, NO_VALUE, f"has {what}", way_out)


def _files(manifest: Manifest) -> Iterator[File]:
    yield from manifest.images
    yield manifest.labels
    for split in manifest.splits.values():
        yield split.file


def _unknown(name: str, location: Location) -> Refused:
    known = f"built in are {', '.join(sorted(BUILTINS))}"
    if location.blobs is None:
        way_out = "others need a data location with staged sets"
        return Refused("dataset", name, f"is unknown; {known}", way_out)
    sets = [path.split("/")[0] for path in location.blobs.names("") if path.count("/") == 1]
    names = ", ".join(sorted({entry for entry in sets if NAME.fullmatch(entry)})) or "none"
    rule = f"is unknown; {known}, staged at {location.blobs.uri} are {names}"
    way_out = f"correct the name or stage the set with {to_call('stage_data')}"
    return Refused("dataset", name, rule, way_out)

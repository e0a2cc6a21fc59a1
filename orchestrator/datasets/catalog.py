"""Find, check and load data sets by name: the built-in ones and those staged under one location."""

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.blobs import Blobs
from orchestrator.datasets.builtin import BUILTINS, staged
from orchestrator.datasets.cache import read_verified
from orchestrator.datasets.manifest import NAME, File, Manifest, parse, sha256


@dataclass(frozen=True)
class Location:
    """Where staged sets are."""

    blobs: Blobs | None = None  # root that holds <name>/manifest.json; None: only the built-in sets
    cache: Path | None = None  # node-local folder for their files; None reads the store each time
    cache_bytes: int = 32 * 2**30  # the folder's limit


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
class _Request:
    """What makes two loads the same load: the digest, not the store object it is read with."""

    name: str
    description: Description
    location: Location = field(compare=False)


def describe(name: str, location: Location) -> Description:
    """Return what the manifest says of a set; an unknown name raises with the known ones."""
    manifest, digest, blobs = _manifest(name, location)
    return Description(
        name=name,
        digest=digest,
        source="built-in" if name in BUILTINS else f"{blobs.uri.rstrip('/')}/{name}",
        num_images=manifest.kept,
        num_classes=len(manifest.class_names),
        image_shape=manifest.image_shape,
        splits=tuple(sorted(manifest.splits)),
        class_names=manifest.class_names,
    )


def verify(name: str, location: Location) -> Description:
    """Check the checksum of every file of the set."""
    manifest, _, blobs = _manifest(name, location)
    for file in _files(manifest):
        read_verified(
            blobs, name, file, location.cache if name not in BUILTINS else None, location.cache_bytes
        )
    return describe(name, location)


def load(name: str, location: Location) -> Dataset:
    """Return the set, verified; later calls of this process share the arrays."""
    return _load(_Request(name, describe(name, location), location))


def load_labels(name: str, location: Location) -> Labels:
    """Return labels and splits, verified, without reading a pixel."""
    return _load_labels(_Request(name, describe(name, location), location))


@functools.lru_cache(maxsize=8)
def _load(request: _Request) -> Dataset:
    manifest, _, _ = _manifest(request.name, request.location)
    images = np.empty((manifest.kept, *manifest.image_shape), dtype=np.uint8)
    start = 0
    for file in manifest.images:
        shard = _read(request, file)
        images[start : start + len(shard)] = shard
        start += len(shard)
    images.flags.writeable = False
    labels, splits = _load_labels(request)
    return Dataset(request.description, images, labels, manifest.class_names, splits)


@functools.lru_cache(maxsize=32)
def _load_labels(request: _Request) -> Labels:
    manifest, _, _ = _manifest(request.name, request.location)
    labels = _read(request, manifest.labels)
    splits = {split: _read(request, entry.file) for split, entry in manifest.splits.items()}
    for array in (labels, *splits.values()):
        array.flags.writeable = False
    return Labels(labels, splits)


def _read(request: _Request, file: File) -> np.ndarray:
    """Read one array, verified."""
    name, location = request.name, request.location
    _, _, blobs = _manifest(name, location)
    cache = location.cache if name not in BUILTINS else None
    data = read_verified(blobs, name, file, cache, location.cache_bytes)
    return np.load(io.BytesIO(data), allow_pickle=False)


def _manifest(name: str, location: Location) -> tuple[Manifest, str, Blobs]:
    blobs = staged(name) if name in BUILTINS else location.blobs
    data = blobs.get(f"{name}/manifest.json") if blobs is not None and NAME.fullmatch(name) else None
    if blobs is None or data is None:
        raise ValueError(_unknown(name, location))
    return parse(data, f"{blobs.uri}/{name}/manifest.json"), sha256(data), blobs


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

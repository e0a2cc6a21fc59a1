"""Manifest of public weights: what a plan needs of them, without torch; `weights` stages and loads them.

`<data>/weights/NAME/` holds one safetensors file, whose SHA-256 enters stage keys, and a manifest, written
last.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from orchestrator.config import Spec
from orchestrator.config.base import NO_VALUE, Refused, added_field
from orchestrator.config.installation import to_call
from orchestrator.datasets import Location
from orchestrator.datasets.cache import Wanted, read_verified
from orchestrator.datasets.manifest import NAME, File
from orchestrator.store.blobs import Blobs, sha256

FOLDER = "weights"
TOOL = "stage_weights"
"""Command that stages weights and programs."""


class WeightsManifest(Spec):
    """Everything about staged weights except their values."""

    name: str
    source: str
    """A library's name for them or a file name, without its path."""

    file: File
    shapes: dict[str, tuple[int, ...]]
    """Tensor -> its shape."""

    classes: tuple[str, ...] | None = added_field(None)
    """Names of a classifier's classes, in the order of its outputs; None: not known. They are no part of the
    file, and so of no digest."""


@dataclass(frozen=True)
class Weights:
    """A manifest in short."""

    name: str
    digest: str  # SHA-256 of the file; equal for equal tensors, from any source
    source: str
    shapes: Mapping[str, tuple[int, ...]]  # tensor -> its shape
    classes: tuple[str, ...] | None = None  # names in the order of the outputs, where they are known


def key_of(name: str) -> str:
    """Return the key of weights among the digests of data sets: `weights/NAME`."""
    return f"{FOLDER}/{name}"


def describe(name: str, location: Location, field: str = "weights") -> Weights:
    """Return a description of staged weights.

    Raise `Refused` of `field` with the known names if the name is unknown, or if the manifest is damaged.
    """
    manifest, _ = _manifest(name, location, field)
    return Weights(name, manifest.file.sha256, manifest.source, manifest.shapes, manifest.classes)


def verify(name: str, location: Location, field: str = "weights") -> Weights:
    """Check the file's SHA-256 and return its description.

    Raise as `describe` does, and `ValueError` if the file is missing or differs from its checksum.
    """
    read(name, location, field)
    return describe(name, location, field)


def read(name: str, location: Location, field: str = "weights") -> bytes:
    """Return the verified bytes of the safetensors file. Raise as `verify` does."""
    manifest, blobs = _manifest(name, location, field)
    return read_verified(Wanted(blobs, f"{FOLDER}/{name}", manifest.file, TOOL), location.node_cache)


def content(name: str, location: Location, field: str = "weights") -> str:
    """Return a digest of the tensors' values, whatever the tensors are called: one for the same network
    staged from files of two layouts. Single numbers, such as counts of batches, are left out.

    Raise as `verify` does.
    """
    data = read(name, location, field)
    begin = 8 + int.from_bytes(data[:8], "little")  # of the values, behind the header of safetensors
    header = json.loads(data[8:begin])
    parts = []
    for key, about in header.items():
        if key != "__metadata__" and math.prod(about["shape"]) > 1:
            first, last = about["data_offsets"]
            values = sha256(memoryview(data)[begin + first : begin + last])
            parts.append(f"{about['dtype']} {about['shape']} {values}")
    return sha256("\n".join(sorted(parts)).encode())


def _manifest(name: str, location: Location, field: str) -> tuple[WeightsManifest, Blobs]:
    data, blobs = stored(name, location, field)
    kind = kind_of(data)
    if kind != "weights":
        raise Refused(field, name, f"is a {kind}, not weights", f"name it in target.{kind}")
    return parse(data, name), blobs


def stored(name: str, location: Location, field: str, kind: str = "weights are") -> tuple[bytes, Blobs]:
    """Return the manifest under a name, of weights, a program or a service, and where it is; raise `Refused`
    of `field` with the known names if there is none."""
    blobs = location.blobs
    data = blobs.get(f"{FOLDER}/{name}/manifest.json") if blobs and NAME.fullmatch(name) else None
    if blobs is None or data is None:
        raise _unknown(name, location, field, kind)
    return data, blobs


def is_staged(name: str, location: Location) -> bool:
    """Return whether weights, a program or a service of that name are staged."""
    blobs = location.blobs
    is_named = blobs is not None and NAME.fullmatch(name) is not None
    return is_named and blobs.get(f"{FOLDER}/{name}/manifest.json") is not None  # type: ignore[union-attr]


def kind_of(data: bytes) -> Literal["weights", "program", "service"]:
    """Return what a manifest is of: weights, programs (`programs`) and services (`services`) share their
    names."""
    try:
        manifest = json.loads(data)
    except ValueError:
        return "weights"
    kinds: tuple[Literal["program", "service"], ...] = ("program", "service")
    return next((kind for kind in kinds if isinstance(manifest, dict) and kind in manifest), "weights")


def parse(data: bytes, name: str) -> WeightsManifest:
    """Return a manifest from its file; raise `Refused` if it is damaged."""
    try:
        return WeightsManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where, rule = f"{FOLDER}/{name}/manifest.json", f"is damaged ({first['msg']})"
        way_out = f"remove that folder and stage the weights again with {to_call(TOOL)}"
        raise Refused(where, NO_VALUE, rule, way_out) from None


def _unknown(name: str, location: Location, field: str, kind: str) -> Refused:
    if location.blobs is None:
        rule = f"is unknown: {kind} staged at a data location"
        return Refused(field, name, rule, "name it with --data")
    paths = (path.split("/") for path in location.blobs.names(f"{FOLDER}/"))
    names = ", ".join(sorted({parts[1] for parts in paths if parts[-1] == "manifest.json"})) or "none"
    rule = f"is unknown; staged at {location.blobs.uri} are {names}"
    what = kind.partition(" ")[0]
    what = what if what == "weights" else what.removesuffix("s")
    return Refused(field, name, rule, f"correct the name or stage the {what} with {to_call(TOOL)}")

"""Public weights: staged once beside the data sets, read by name and verified.

`<data>/weights/NAME/` holds one safetensors file, whose SHA-256 enters stage keys, and a manifest, written
last. Pickled state dicts are read with `weights_only`: no code in them runs.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from orchestrator.config import Spec
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets import Location
from orchestrator.datasets.cache import Wanted, read_verified
from orchestrator.datasets.manifest import NAME, File
from orchestrator.store.blobs import Blobs, sha256

FOLDER = "weights"
TOOL = "jobs.stage_weights"


class WeightsManifest(Spec):
    """Everything about staged weights except their values."""

    name: str
    source: str
    """A library's name for them or a file name, without its path."""

    file: File
    shapes: dict[str, tuple[int, ...]]
    """Tensor -> its shape."""


@dataclass(frozen=True)
class Weights:
    """A manifest in short."""

    name: str
    digest: str  # SHA-256 of the file; equal for equal tensors, from any source
    source: str
    shapes: Mapping[str, tuple[int, ...]]  # tensor -> its shape


def key_of(name: str) -> str:
    """Return the key of weights among the digests of data sets: `weights/NAME`."""
    return f"{FOLDER}/{name}"


def parse_state(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the state dict in a safetensors file or in torch's own format, read with weights only.

    A nested dict (`state_dict`, `model`) is taken where it holds the only tensors; DataParallel's prefix
    `module.` is removed. Raise `Refused` under the name `where` if there is no tensor or the file holds other
    objects.
    """
    tensors = _parsed(data, where)
    if not tensors:
        raise Refused(where, NO_VALUE, "holds no tensor", "save model.state_dict() and stage that")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def stage(
    tensors: Mapping[str, Tensor], source: str, blobs: Blobs, name: str
) -> tuple[WeightsManifest, bool]:
    """Write weights under a name; return their manifest and whether anything was written.

    Raise `Refused` if the name is malformed or taken by other weights.
    """
    if NAME.fullmatch(name) is None:
        rule = "must be lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise Refused("--name", name, rule, "choose another --name")
    # Copies, because tied weights share memory, which safetensors refuses.
    data = save_tensors({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
    digest = sha256(data)
    file = File(name=f"weights-{digest[:12]}.safetensors", size=len(data), sha256=digest)
    shapes = {key: tuple(tensor.shape) for key, tensor in sorted(tensors.items())}
    manifest = WeightsManifest(name=name, source=source, file=file, shapes=shapes)
    present = blobs.get(f"{FOLDER}/{name}/manifest.json")
    if present is not None:
        if _parse(present, name).file.sha256 == digest:
            return _parse(present, name), False
        rule = f"is taken by other weights at {blobs.uri}"
        raise Refused("--name", name, rule, "choose another name")
    blobs.put(f"{FOLDER}/{name}/{file.name}", data)
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def describe(name: str, location: Location, field: str = "weights") -> Weights:
    """Return a description of staged weights.

    Raise `Refused` of `field` with the known names if the name is unknown, or if the manifest is damaged.
    """
    manifest, _ = _manifest(name, location, field)
    return Weights(name, manifest.file.sha256, manifest.source, manifest.shapes)


def verify(name: str, location: Location, field: str = "weights") -> Weights:
    """Check the file's SHA-256 and return its description.

    Raise as `describe` does, and `ValueError` if the file is missing or differs from its checksum.
    """
    _read(name, location, field)
    return describe(name, location, field)


def load(name: str, location: Location) -> dict[str, Tensor]:
    """Return the verified tensors by name. Raise as `verify` does."""
    return load_tensors(_read(name, location, "weights"))


def _read(name: str, location: Location, field: str) -> bytes:
    manifest, blobs = _manifest(name, location, field)
    return read_verified(Wanted(blobs, f"{FOLDER}/{name}", manifest.file, TOOL), location.node_cache)


def _parsed(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        return load_tensors(data)
    except SafetensorError:
        pass
    try:
        return _tensors(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises a dozen kinds, depending on where a file is damaged
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        rule = f"is neither safetensors nor a state dict that loads with weights only ({reason})"
        raise Refused(where, NO_VALUE, rule, "save model.state_dict() and stage that") from None


def _tensors(loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        return {}
    own = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    nested = [_tensors(value) for value in loaded.values() if isinstance(value, Mapping)]
    return own or max(nested, key=len, default={})


def _manifest(name: str, location: Location, field: str) -> tuple[WeightsManifest, Blobs]:
    blobs = location.blobs
    data = blobs.get(f"{FOLDER}/{name}/manifest.json") if blobs and NAME.fullmatch(name) else None
    if blobs is None or data is None:
        raise _unknown(name, location, field)
    return _parse(data, name), blobs


def _parse(data: bytes, name: str) -> WeightsManifest:
    try:
        return WeightsManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where, rule = f"{FOLDER}/{name}/manifest.json", f"is damaged ({first['msg']})"
        way_out = f"remove that folder and stage the weights again with python -m {TOOL}"
        raise Refused(where, NO_VALUE, rule, way_out) from None


def _unknown(name: str, location: Location, field: str) -> Refused:
    if location.blobs is None:
        rule = "is unknown: weights are staged at a data location"
        return Refused(field, name, rule, "name it with --data")
    paths = (path.split("/") for path in location.blobs.names(f"{FOLDER}/"))
    names = ", ".join(sorted({parts[1] for parts in paths if parts[-1] == "manifest.json"})) or "none"
    rule = f"is unknown; staged at {location.blobs.uri} are {names}"
    return Refused(field, name, rule, f"correct the name or stage the weights with python -m {TOOL}")

"""Public weights: staged once beside the data sets, read by name, always checked.

`<data>/weights/NAME/` holds one safetensors file, whose SHA-256 enters stage keys, and a manifest, written
last. A state dict that comes as a pickle is read with weights only: no code in it runs.
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
from orchestrator.datasets import Location
from orchestrator.datasets.cache import Wanted, read_verified
from orchestrator.datasets.manifest import NAME, File, sha256
from orchestrator.store.blobs import Blobs

FOLDER = "weights"
TOOL = "jobs.stage_weights"


class WeightsManifest(Spec):
    """Everything about staged weights except their numbers."""

    name: str
    source: str
    """What they were staged from: a library's name for them or a file's; no path."""

    file: File
    shapes: dict[str, tuple[int, ...]]
    """Tensor -> its shape."""


@dataclass(frozen=True)
class Weights:
    """What the manifest says."""

    name: str
    digest: str  # SHA-256 of the file: the same tensors have the same one, whatever they were staged from
    source: str
    shapes: Mapping[str, tuple[int, ...]]


def key_of(name: str) -> str:
    """Return the name under which weights stand among the digests of data sets."""
    return f"{FOLDER}/{name}"


def parse_state(data: bytes, where: str) -> dict[str, Tensor]:
    """Read a state dict from safetensors or from torch's own format, weights only.

    Nesting is opened where it has the only tensors (`state_dict`, `model`), a prefix `module.` that
    DataParallel leaves is dropped. Raises `ValueError` if there is no tensor or the file wants to run code.
    """
    found = _parsed(data, where)
    if not found:
        raise ValueError(f"{where} holds no tensor; save model.state_dict() and stage that.")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def stage(
    tensors: Mapping[str, Tensor], source: str, blobs: Blobs, name: str
) -> tuple[WeightsManifest, bool]:
    """Write weights under a name; return their manifest and whether anything was written.

    Raises `ValueError` if the name is taken by other weights.
    """
    if NAME.fullmatch(name) is None:
        raise ValueError(
            f"--name={name} must be lower-case letters, digits, dots, dashes and underscores, at most 64; "
            "choose another --name."
        )
    # Copies, because tied weights share memory, which safetensors refuses.
    data = save_tensors({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
    digest = sha256(data)
    file = File(name=f"weights-{digest[:12]}.safetensors", size=len(data), sha256=digest)
    shapes = {key: tuple(tensor.shape) for key, tensor in sorted(tensors.items())}
    manifest = WeightsManifest(name=name, source=source, file=file, shapes=shapes)
    there = blobs.get(f"{FOLDER}/{name}/manifest.json")
    if there is not None:
        if _parse(there, name).file.sha256 == digest:
            return _parse(there, name), False
        raise ValueError(f"--name={name} is taken by other weights at {blobs.uri}; choose another name.")
    blobs.put(f"{FOLDER}/{name}/{file.name}", data)
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def describe(name: str, location: Location, field: str = "weights") -> Weights:
    """Return what the manifest says; an unknown name raises with the known ones."""
    manifest, _ = _manifest(name, location, field)
    return Weights(name, manifest.file.sha256, manifest.source, manifest.shapes)


def verify(name: str, location: Location, field: str = "weights") -> Weights:
    """Check the checksum of the file; return what the manifest says."""
    _read(name, location, field)
    return describe(name, location, field)


def load(name: str, location: Location) -> dict[str, Tensor]:
    """Return the tensors, verified."""
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
        raise ValueError(
            f"{where} is neither safetensors nor a state dict that loads with weights only ({reason}); save "
            "model.state_dict() and stage that."
        ) from None


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
        raise ValueError(_unknown(name, location, field))
    return _parse(data, name), blobs


def _parse(data: bytes, name: str) -> WeightsManifest:
    try:
        return WeightsManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{FOLDER}/{name}/manifest.json is damaged ({first['msg']}); remove that folder and stage the "
            f"weights again with python -m {TOOL}."
        ) from None


def _unknown(name: str, location: Location, field: str) -> str:
    if location.blobs is None:
        return f"{field}={name} is unknown: weights are staged at a data location; name it with --data."
    paths = (path.split("/") for path in location.blobs.names(f"{FOLDER}/"))
    there = ", ".join(sorted({parts[1] for parts in paths if parts[-1] == "manifest.json"})) or "none"
    return (
        f"{field}={name} is unknown; staged at {location.blobs.uri} are {there}; correct the name or stage "
        f"the weights with python -m {TOOL}."
    )

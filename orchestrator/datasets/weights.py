"""Public weights: staged once beside the data sets, read by name and verified; see `weights_manifest`.

Pickled state dicts are read with `weights_only`: no code in them runs.
"""

import io
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets import Location
from orchestrator.datasets.manifest import NAME, File
from orchestrator.datasets.weights_manifest import (
    FOLDER,
    WeightsManifest,
    describe,
    key_of,
    parse,
    read,
    verify,
)
from orchestrator.store.blobs import Blobs, sha256

__all__ = ["FOLDER", "describe", "key_of", "load", "parse_state", "stage", "verify"]


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
        if parse(present, name).file.sha256 == digest:
            return parse(present, name), False
        rule = f"is taken by other weights at {blobs.uri}"
        raise Refused("--name", name, rule, "choose another name")
    blobs.put(f"{FOLDER}/{name}/{file.name}", data)
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def load(name: str, location: Location) -> dict[str, Tensor]:
    """Return the verified tensors by name. Raise as `verify` does."""
    return load_tensors(read(name, location))


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

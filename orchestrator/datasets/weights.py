"""Public weights: staged once beside the data sets, read by name and verified; see `weights_manifest`.

`checkpoint_files` reads the files that people have, `state_dicts` finds the network in them.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import torch
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
    kind_of,
    parse,
    read,
    verify,
)
from orchestrator.store.blobs import Blobs, sha256

__all__ = ["FOLDER", "describe", "key_of", "load", "stage", "verify"]


def stage(
    tensors: Mapping[str, Tensor],
    source: str,
    blobs: Blobs,
    name: str,
    classes: tuple[str, ...] | None = None,
) -> tuple[WeightsManifest, bool]:
    """Write weights under a name; return their manifest and whether anything was written.

    `classes`: names in the order of a classifier's outputs; weights that are there without any get them.
    Raise `Refused` if the name is malformed, or taken by other weights or by these with other class names, or
    if a tensor is not dense, real and finite.
    """
    if NAME.fullmatch(name) is None:
        rule = "must be lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise Refused("--name", name, rule, "choose another --name")
    for key, tensor in tensors.items():
        _check(key, tensor, source)
    # Copies, because tied weights share memory, which safetensors refuses.
    data = save_tensors({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
    digest = sha256(data)
    file = File(name=f"weights-{digest[:12]}.safetensors", size=len(data), sha256=digest)
    shapes = {key: tuple(tensor.shape) for key, tensor in sorted(tensors.items())}
    manifest = WeightsManifest(name=name, source=source, file=file, shapes=shapes, classes=classes)
    present = blobs.get(f"{FOLDER}/{name}/manifest.json")
    if present is not None:
        kind = kind_of(present)
        known = parse(present, name) if kind == "weights" else None
        if known is None or known.file.sha256 != digest:
            rule = f"is taken by {'other weights' if known else f'a {kind}'} at {blobs.uri}"
            raise Refused("--name", name, rule, "choose another name")
        if classes in (None, known.classes):
            return known, False
        if known.classes is not None:
            rule = f"has other class names at {blobs.uri}, {_first_other(classes, known.classes)}"
            raise Refused("--name", name, rule, "choose another name")
        manifest = known.but(classes=classes)
    else:
        blobs.put(f"{FOLDER}/{name}/{file.name}", data)
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def _first_other(classes: Sequence[str] | None, there: Sequence[str]) -> str:
    """Return the first difference of two lists of class names, in words."""
    pairs = enumerate(zip_longest(classes or (), there, fillvalue="none"))
    return next(f"{old} for output {place} and not {new}" for place, (new, old) in pairs if new != old)


def load(name: str, location: Location) -> dict[str, Tensor]:
    """Return the verified tensors by name. Raise as `verify` does."""
    return load_tensors(read(name, location))


def _check(key: str, tensor: Tensor, source: str) -> None:
    """Refuse a tensor that cannot be stored, or that makes every result not finite."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
        rule = f"holds {key}, a tensor that is sparse, quantized, complex or without values"
        raise Refused(source, NO_VALUE, rule, "save a state dict of dense real tensors")
    # Types of 8 bits have no isfinite; float32 holds their values.
    values = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    if bad := int((~torch.isfinite(values)).sum()):
        rule = f"holds {key}, where {bad} of {tensor.numel()} values are not finite (NaN or infinity)"
        raise Refused(source, NO_VALUE, rule, "take a checkpoint from before the training diverged")

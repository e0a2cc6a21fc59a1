"""Checkpoint format: the state of unfinished work as one safetensors file with its own digest, no pickle."""

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

logger = logging.getLogger(__name__)


class Checkpoint(Protocol):
    """Storage of the state of one unfinished piece of work."""

    def load(self) -> bytes | None:
        """Return the bytes saved last, or None."""

    def save(self, data: bytes) -> None:
        """Replace the bytes saved last, atomically."""


def pack(tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> bytes:
    """Return tensors of any shapes and JSON counters as one safetensors file with its own digest."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(stored, {"counters": json.dumps(counters), "sha256": _digest(stored)})


def unpack(checkpoint: Checkpoint | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors (CPU) and counters packed last, or None if nothing, or a damaged file, is saved."""
    data = checkpoint.load() if checkpoint else None
    if data is None:
        return None
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = load_tensors(data)
        if _digest(tensors) != header["__metadata__"]["sha256"]:
            raise ValueError("checksum differs")
        return tensors, json.loads(header["__metadata__"]["counters"])
    except (SafetensorError, ValueError, KeyError) as error:
        logger.warning('event=checkpoint_damaged reason="%s" action=start_over', error)
        return None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()

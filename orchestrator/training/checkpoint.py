"""The state of unfinished work as one safetensors file with its own digest; never a pickle."""

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
    """Where an unfinished fit leaves its state."""

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""

    def save(self, data: bytes) -> None:
        """Replace what was saved, atomically."""


def pack(tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> bytes:
    """Return tensors and counters as one safetensors file with its own digest."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(stored, {"counters": json.dumps(counters), "sha256": _digest(stored)})


def unpack(checkpoint: Checkpoint | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what was packed last; a damaged checkpoint is reported and counts as none."""
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
        logger.warning("event=checkpoint_damaged reason=%s action=start_over", error)
        return None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()

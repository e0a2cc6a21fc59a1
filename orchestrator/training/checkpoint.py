"""Checkpoint format: the state of unfinished work as one safetensors file, no pickle, bound to its stage.

Its SHA-256 covers every byte of the file but the digest's own, header and counters included, and the header
names the key of the stage that it belongs to.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

logger = logging.getLogger(__name__)

_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # its first match lies in the header, which comes first


class Checkpoint(Protocol):
    """Storage of the state of one unfinished piece of work."""

    @property
    def key(self) -> str:
        """Key of the stage whose state it is."""

    def load(self) -> bytes | None:
        """Return the bytes saved last, or None."""

    def save(self, data: bytes) -> None:
        """Replace the bytes saved last, atomically."""


def save_state(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """Replace the state saved last by tensors of any shapes and JSON counters."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"counters": json.dumps(counters), "key": checkpoint.key, "sha256": _UNSEALED}
    data = bytearray(save_tensors(stored, metadata))
    seal = _SEAL.search(data)
    assert seal is not None
    data[slice(*seal.span(1))] = _digest(data, seal).encode()
    checkpoint.save(bytes(data))


def load_state(checkpoint: Checkpoint | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors (CPU) and counters saved last, or None if there are none.

    A damaged file and one of another stage count as none, with a warning.
    """
    data = checkpoint.load() if checkpoint else None
    if checkpoint is None or data is None:
        return None
    try:
        metadata = _verified(data)
        if metadata["key"] != checkpoint.key:
            raise ValueError(f"it belongs to stage {metadata['key']}")
        return load_tensors(data), json.loads(metadata["counters"])
    except (SafetensorError, ValueError) as error:
        logger.warning('event=checkpoint_dropped key=%s reason="%s" action=start_over', checkpoint.key, error)
        return None


def _verified(data: bytes) -> dict[str, str]:
    """Return the metadata of a file whose bytes are those saved; raise `ValueError` for any other."""
    seal = _SEAL.search(data)
    if seal is None or _digest(data, seal) != seal[1].decode():
        raise ValueError("its bytes differ from its digest")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _digest(data: bytes | bytearray, seal: re.Match[bytes]) -> str:
    """Return the digest of a file without the one that it carries."""
    digest = hashlib.sha256()
    with memoryview(data) as view:
        digest.update(view[: seal.start(1)])
        digest.update(view[seal.end(1) :])
    return digest.hexdigest()

"""Training pairs: inputs with the outputs to learn, and the split that holds some of them out."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from orchestrator.config.base import num_held_out
from orchestrator.training.seeds import CPU, derive_seed

RESIDENT_BYTES = 2 * 2**30
"""Pairs up to this size are kept on an accelerator while they are trained on; images there are uint8."""


class Rows(Protocol):
    """What pairs, predictions and features read, (N, ...): a tensor, or what gathers its rows when asked."""

    @property
    def shape(self) -> torch.Size:
        """Return (N, ...)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return the rows (n, ...) at positions (n,) int64, of a slice or of a mask (N,)."""

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Return the rows in parts of `size`, in order; the last may be smaller."""


@dataclass(frozen=True)
class Pairs:
    """Inputs (N, ...) and the outputs (N, ...) to learn from them; uint8 stands for images in [0, 1]."""

    inputs: Rows
    outputs: Rows
    order: Tensor | None = None  # (n,) int64: positions of the pairs; None means all N

    def __len__(self) -> int:
        return len(self.inputs if self.order is None else self.order)

    def at(self, index: Tensor) -> "Pairs":
        """Return the pairs at the given positions, (n,) int64, without copying them."""
        return replace(self, order=index if self.order is None else self.order[index])

    def on(self, device: torch.device) -> "Pairs":
        """Return the pairs with inputs, outputs and order on the device, if they fit `RESIDENT_BYTES`: then a
        batch is gathered there, and no step waits for a copy. Others are returned as they are."""
        inputs, outputs = self.inputs, self.outputs
        if not isinstance(inputs, Tensor) or not isinstance(outputs, Tensor):
            return self
        if device.type == "cpu" or inputs.nbytes + outputs.nbytes > RESIDENT_BYTES:
            return self
        order = None if self.order is None else self.order.to(device)
        return Pairs(inputs.to(device), outputs.to(device), order)

    @property
    def device(self) -> torch.device:
        """Return where positions have to be that `batch` is asked for."""
        return self.inputs.device if isinstance(self.inputs, Tensor) else CPU

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return inputs and outputs at positions (n,) on the device; uint8 is scaled there."""
        index = index if self.order is None else self.order[index]
        return as_unit(self.inputs[index].to(device)), as_unit(self.outputs[index].to(device))


def concatenated(parts: Iterable[Tensor], num_rows: int) -> Tensor:
    """Return the rows (num_rows, ...) of parts (n, ...), each copied as it comes: small parts kept between
    large tensors that come and go would leave the memory in pieces, as large as the images in the end."""
    rows, start = torch.empty(0), 0
    for part in parts:
        if not start:
            shape, strides = (num_rows, *part.shape[1:]), part.stride()  # in their order, as torch.cat does
            rows = torch.empty_strided(shape, strides, dtype=part.dtype, device=part.device)
        rows[start : start + len(part)] = part
        start += len(part)
    assert start == num_rows
    return rows


def hold_out(num_pairs: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the positions of 0..num_pairs-1 to train on and those to hold out, (n,) int64, at least one of
    these.

    The split depends on the arguments alone; `fit` uses this one.
    """
    generator = torch.Generator().manual_seed(derive_seed("validation", seed))
    order = torch.randperm(num_pairs, generator=generator)
    held_out = num_held_out(num_pairs, fraction)
    return order[held_out:], order[:held_out]


def as_unit(batch: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [0, 1], and any other tensor as it is."""
    return batch.to(torch.float32).div_(255.0) if batch.dtype == torch.uint8 else batch


def as_stored(images: Tensor) -> Tensor:
    """Return images of any shape in [0, 1] as uint8, rounded to the nearest of 256 levels."""
    return images.mul(255).round().to(torch.uint8)

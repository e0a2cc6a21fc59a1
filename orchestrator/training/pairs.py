"""Training pairs: inputs with the outputs to learn, and the split that holds some of them out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.config.base import num_held_out
from orchestrator.training.seeds import derive_seed


@dataclass(frozen=True)
class Pairs:
    """Inputs (N, ...) and the outputs (N, ...) to learn from them; uint8 stands for images in [0, 1]."""

    inputs: Tensor
    outputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, index: Tensor) -> "Pairs":
        """Return the pairs at the given positions, (n,) int64."""
        return Pairs(self.inputs[index], self.outputs[index])

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return inputs and outputs at positions (n,) on the device; uint8 is scaled there."""
        return as_unit(self.inputs[index].to(device)), as_unit(self.outputs[index].to(device))


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

"""Objectives: losses, held-out sums and the choice of the best epoch, for classifiers and inverters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer


@dataclass(frozen=True)
class Objective:
    """A loss, what is summed on held-out pairs, and which epoch is best; what a defense adds to the loop.

    `loss` runs under the precision of the world: it takes its networks' outputs to float32 itself.
    """

    loss: Callable[[Any, Tensor, Tensor], Tensor]  # (model, inputs, wanted outputs) -> scalar mean
    sums: Callable[[Any, Tensor, Tensor], dict[str, float]]  # the same -> sums over the batch
    selection_key: Callable[[Mapping[str, float]], tuple[float, ...]]  # validation means -> smaller is better
    keeps_last: bool = False  # whether the last epoch is kept, however good it is
    begins: Callable[[int, int], None] = lambda epoch, epochs: None  # called before each epoch, from 1
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model  # in place; what the loss is computed with
    steps_by: Callable[[Optimizer, int], Optimizer] = lambda optimizer, batch_size: optimizer


def classification() -> Objective:
    """Cross-entropy on logits; best is the highest held-out accuracy, then the lowest loss."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(images).float(), labels)

    def sums(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        return classification_sums(model(images).float(), labels)

    return Objective(loss, sums, lambda means: (-means["accuracy"], means["loss"]))


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return summed cross-entropy and the number of right answers."""
    return {
        "loss": functional.cross_entropy(logits, labels, reduction="sum").item(),
        "accuracy": (logits.argmax(1) == labels).sum().item(),
    }


def distillation() -> Objective:
    """Cross-entropy against scores instead of labels: a copy of whoever gave them."""

    def loss(model: nn.Module, images: Tensor, scores: Tensor) -> Tensor:
        return functional.cross_entropy(model(images).float(), scores)

    def sums(model: nn.Module, images: Tensor, scores: Tensor) -> dict[str, float]:
        logits = model(images).float()
        return {
            "loss": functional.cross_entropy(logits, scores, reduction="sum").item(),
            "agreement": (logits.argmax(1) == scores.argmax(1)).sum().item(),
        }

    return Objective(loss, sums, lambda means: (means["loss"],))


def reconstruction() -> Objective:
    """Per-pixel mean squared error of images in [0, 1] (AMI, equation 10)."""

    def loss(model: nn.Module, inputs: Tensor, images: Tensor) -> Tensor:
        return functional.mse_loss(model(inputs).float(), images)

    def sums(model: nn.Module, inputs: Tensor, images: Tensor) -> dict[str, float]:
        return {"loss": squared_error_sum(model(inputs).float(), images)}

    return Objective(loss, sums, lambda means: (means["loss"],))


def squared_error_sum(guesses: Tensor, images: Tensor) -> float:
    """Return the sum over images of the per-pixel mean squared error."""
    return (guesses - images).square().flatten(1).mean(1).sum().item()


def as_unit(batch: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]; leave everything else as it is."""
    return batch.to(torch.float32).div_(255.0) if batch.dtype == torch.uint8 else batch

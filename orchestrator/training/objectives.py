"""Objectives: losses, steps on a batch, held-out sums and the choice of the best epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from orchestrator.config import Recipe
from orchestrator.training.optimizers import Descent
from orchestrator.training.world import World


class Step(Protocol):
    """What `fit` drives: optimiser steps on one batch after the other, and their state.

    Checkpoints, data order, curves, divergence and preemption are the loop's, for every step alike.
    """

    def begin(self, epoch: int, epochs: int) -> None:
        """Set the learning rates and other schedules of an epoch, from 1."""

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Train on this worker's share of a batch, under the precision of the world, and leave the same
        weights on every worker. Return mean losses by name, detached scalars on the device; `loss` is one."""

    def state(self) -> dict[str, Tensor]:
        """Return by name what a checkpoint must hold besides the model's own state."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `state`; raise `ValueError`, with nothing changed, if it is of another kind of step."""


class OneOptimizer:
    """The step of an ordinary objective: its loss, one optimiser over the whole model."""

    def __init__(self, model: nn.Module, objective: "Objective", recipe: Recipe, world: World) -> None:
        self.objective, self.world = objective, world
        self.loss = world.wrap(_Loss(objective.wrap(model), objective))
        self.descent = Descent(model.parameters(), recipe, objective.steps_by)

    def begin(self, epoch: int, epochs: int) -> None:
        """Set the learning rate and the objective's own schedule."""
        self.objective.begins(epoch, epochs)
        self.descent.begin(epoch)

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Take one step down the loss; the wrapped module averages gradients while they are computed."""
        with self.world.autocast():
            loss = self.loss(inputs, outputs)
        self.descent.clear()
        loss.backward()
        self.descent.optimizer.step()
        return {"loss": loss.detach()}

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's state."""
        return self.descent.state()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the optimiser's state."""
        self.descent.load(tensors)


class _Loss(nn.Module):
    """Model and loss as one module, so that every parameter's gradient is averaged over the workers."""

    def __init__(self, model: nn.Module, objective: "Objective") -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return self.objective.loss(self.model, inputs, outputs)


@dataclass(frozen=True)
class Objective:
    """What a training minimises, sums on held-out pairs and prefers among epochs; defenses change its parts.

    `loss` runs under the precision of the world: it converts its networks' outputs to float32 itself.
    """

    loss: Callable[[Any, Tensor, Tensor], Tensor]  # (model, inputs, outputs) -> mean over the batch, a scalar
    sums: Callable[[Any, Tensor, Tensor], dict[str, float]]  # the same -> sums over the batch, by name
    selection_key: Callable[[Mapping[str, float]], tuple[float, ...]]  # validation means -> smaller is better
    keeps_last: bool = False  # whether the last epoch is kept, however good it is
    begins: Callable[[int, int], None] = lambda epoch, epochs: None  # called before each epoch, from 1
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model  # in place; what the loss is computed with
    steps_by: Callable[[Optimizer, int], Optimizer] = lambda optimizer, batch_size: optimizer
    step: Callable[[Any, "Objective", Recipe, World], Step] = OneOptimizer


def classification() -> Objective:
    """Return the cross-entropy of logits (N, k) and labels (N,).

    The best epoch has the highest held-out accuracy, then the lowest loss.
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(images).float(), labels)

    def sums(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        return classification_sums(model(images).float(), labels)

    return Objective(loss, sums, lambda means: (-means["accuracy"], means["loss"]))


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the summed cross-entropy and the number of right answers, of logits (N, k) and labels (N,)."""
    return {
        "loss": functional.cross_entropy(logits, labels, reduction="sum").item(),
        "accuracy": (logits.argmax(1) == labels).sum().item(),
    }


def distillation() -> Objective:
    """Return the cross-entropy of logits (N, k) against scores (N, k), to copy the model they are of."""

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
    """Return the per-pixel mean squared error of images (N, C, S, S) in [0, 1] (AMI, equation 10)."""

    def loss(model: nn.Module, inputs: Tensor, images: Tensor) -> Tensor:
        return functional.mse_loss(model(inputs).float(), images)

    def sums(model: nn.Module, inputs: Tensor, images: Tensor) -> dict[str, float]:
        return {"loss": squared_error_sum(model(inputs).float(), images)}

    return Objective(loss, sums, lambda means: (means["loss"],))


def squared_error_sum(reconstructions: Tensor, images: Tensor) -> float:
    """Return the sum over images (N, C, S, S) of the per-pixel mean squared error."""
    return (reconstructions - images).square().flatten(1).mean(1).sum().item()


def as_unit(batch: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [0, 1], and any other tensor as it is."""
    return batch.to(torch.float32).div_(255.0) if batch.dtype == torch.uint8 else batch

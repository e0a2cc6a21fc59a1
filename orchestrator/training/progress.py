"""Progress: epochs, best weights and losses of an unfinished fit, and their form in a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from orchestrator.training.checkpoint import Checkpoint, save_state
from orchestrator.training.optimizers import Step

WAY_OUT = "lower recipe.learning_rate, or look for images or weights that are out of range"


class Tally:
    """The losses of an epoch; they stay on the device, so that no step waits for a number."""

    def __init__(self, totals: Mapping[str, Tensor] | None = None, num_batches: int = 0) -> None:
        self.totals, self.num_batches = dict(totals or {}), num_batches
        self._losses: list[dict[str, Tensor]] = []

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add one batch's losses, scalars by name, the same names for every batch."""
        self.totals = {name: self.totals.get(name, 0.0) + loss for name, loss in losses.items()}
        self.num_batches += 1
        self._losses.append(losses)

    def means(self) -> dict[str, float]:
        """Return the means over the batches as `train_<name>`."""
        return {f"train_{name}": total.item() / self.num_batches for name, total in self.totals.items()}

    def is_finite(self) -> bool:
        """Return whether every total is a finite number."""
        return all(math.isfinite(total.item()) for total in self.totals.values())

    def fault(self, where: str, means: Mapping[str, float]) -> str:
        """Return a sentence on the first loss or validation mean that is not finite; empty if all are."""
        for name, total in self.totals.items():
            if not math.isfinite(total.item()):
                value, batch = self._first_fault(name)
                place = f"{where}, batch {batch} of {self.num_batches}"
                return f"the training {name} is {value} in {place}; {WAY_OUT}."
        for name, value in means.items():
            if not math.isfinite(value):
                return f"{name} is {value} after {where}; {WAY_OUT}."
        return ""

    def _first_fault(self, name: str) -> tuple[float, int]:
        """Return the first value of a loss that is not finite, and its batch from 1."""
        before = self.num_batches - len(self._losses)
        for number, losses in enumerate(self._losses):
            if not math.isfinite(losses[name].item()):
                return losses[name].item(), before + number + 1
        return self.totals[name].item(), before + 1


@dataclass(frozen=True)
class Midway:
    """A place between two batches of an epoch."""

    num_batches: int
    totals: dict[str, Tensor]  # name of the loss -> scalar
    generators: dict[str, Tensor]  # cpu or cuda -> (workers, bytes) uint8


@dataclass
class Progress:
    """What a fit has reached after `epoch` whole epochs."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)  # validation means of that epoch
    best_state: dict[str, Tensor] = field(default_factory=dict)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # epoch -> the model's state
    curves: dict[str, list[float]] = field(default_factory=dict)  # name -> one value for each epoch
    midway: Midway | None = None  # within the epoch that follows


def save(
    checkpoint: Checkpoint, progress: Progress, midway: Midway | None, model: nn.Module, step: Step
) -> None:
    """Save a fit, between two epochs or midway in one."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best_state.items()}
    for epoch, state in progress.snapshots.items():
        tensors |= {f"snapshot.{epoch}.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in step.state().items()}
    if midway:
        tensors |= {f"generator.{kind}": states for kind, states in midway.generators.items()}
        tensors |= {f"midway.total{_suffix(name)}": total for name, total in midway.totals.items()}
    counters = {
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "curves": progress.curves,
        "num_batches": midway.num_batches if midway else 0,
    }
    save_state(checkpoint, tensors, counters)


def restored(
    tensors: Mapping[str, Tensor], counters: Mapping[str, Any], model: nn.Module, step: Step
) -> Progress:
    """Load an unpacked checkpoint into model and step; return its progress, on the model's device.

    Raise `ValueError`, with nothing changed, if it is of another kind of step.
    """
    device = next(model.parameters()).device
    step.load(_under("optimizer.", tensors))
    model.load_state_dict(_under("model.", tensors))
    snapshots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("snapshot.", tensors).items():
        epoch, _, rest = name.partition(".")
        snapshots.setdefault(int(epoch), {})[rest] = tensor.to(device)
    generators = _under("generator.", tensors)
    totals = {_loss_of(suffix): total.to(device) for suffix, total in _under("midway.total", tensors).items()}
    return Progress(
        epoch=counters["epoch"],
        best_epoch=counters["best_epoch"],
        best=counters["best"],
        best_state={name: tensor.to(device) for name, tensor in _under("best.", tensors).items()},
        snapshots=snapshots,
        curves=counters["curves"],
        midway=Midway(counters["num_batches"], totals, generators) if generators else None,
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


# `midway.total` is the total of `loss`, as in checkpoints of versions that knew one loss only.
def _suffix(loss: str) -> str:
    return "" if loss == "loss" else f".{loss}"


def _loss_of(suffix: str) -> str:
    return suffix.removeprefix(".") or "loss"

"""One process's place among those that work on a stage together, and how it is told to stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.training.checkpoint import Checkpoint

GO_ON, SAVE, LEAVE, CANCEL, DIVERGE = range(5)  # what rank 0 tells the others


class Cancelled(Exception):
    """Somebody no longer wants this stage (a scheduler stopped the trial)."""


class Left(Exception):
    """This process was asked to end; the state is saved and whoever runs the stage next goes on from it."""


class Diverged(Exception):
    """A loss is infinite or no number; the message says where."""


@dataclass
class World:
    """This process's place among the workers that train one network together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"  # or bfloat16: autocast of the training steps
    report: Callable[[Mapping[str, float]], bool] = lambda metrics: True  # False asks to stop
    must_leave: Callable[[], bool] = lambda: False  # asked often, on rank 0: save the state now and end
    checkpoint: Checkpoint | None = None
    checkpoint_seconds: float = 60.0  # between two checkpoints; 0 saves after each epoch

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the workers; a single worker trains the model itself."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def gather(self, rows: Tensor) -> Tensor:
        """Join every rank's rows (CPU), in the order of the ranks, on every rank."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, rows)
        return torch.cat(parts)

    def agree(self, value: int) -> int:
        """Return rank 0's value, 0 to 255, on every rank."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.uint8, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return int(shared.item())

"""World: one process among the workers that run a stage together, and the reasons why it stops early."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.training.checkpoint import Checkpoint

CONTINUE, SAVE, PREEMPT, CANCEL, DIVERGE = range(5)
"""Decisions of rank 0 that every rank follows, see `World.agree`."""


class Cancelled(Exception):
    """A scheduler stopped the trial; the stage is no longer needed."""


class Preempted(Exception):
    """This process has to end early; its state is saved and the next run of the stage resumes from it."""


class Diverged(Exception):
    """A loss is infinite or not a number; the message names the epoch and the batch."""


@dataclass
class World:
    """This process among the workers of one stage: rank, device, precision, reports, checkpoint."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"  # or bfloat16: autocast of the training steps
    report: Callable[[Mapping[str, float]], bool] = lambda metrics: True  # on rank 0; False cancels
    is_preempted: Callable[[], bool] = lambda: False  # polled on rank 0 between batches: save and end
    checkpoint: Checkpoint | None = None
    checkpoint_seconds: float = 60.0  # between two checkpoints; 0 saves after each epoch

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the workers; a single worker trains the model itself."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors of any shapes by their means over the workers, in place."""
        if self.size == 1 or not tensors:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors]).mul_(1.0 / self.size)
        torch.distributed.all_reduce(joined)
        for tensor, mean in zip(tensors, joined.split([one.numel() for one in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def autocast(self) -> torch.autocast:
        """Return the context of the forward passes of a training step, in the precision of the world."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def gather(self, rows: Tensor) -> Tensor:
        """Return every rank's rows (n, ...), CPU, joined in the order of the ranks, on every rank."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, rows)
        return torch.cat(parts)

    def generators(self) -> dict[str, Tensor]:
        """Return the states of every rank's random generators, cpu or cuda -> (workers, bytes) uint8."""
        states = {"cpu": self.gather(torch.get_rng_state()[None])}
        if self.device.type == "cuda":
            states["cuda"] = self.gather(torch.cuda.get_rng_state(self.device)[None])
        return states

    def set_generators(self, states: Mapping[str, Tensor]) -> None:
        """Set this rank's random generators to the states that `generators` returned."""
        mine = {kind: ranks[self.rank].clone() for kind, ranks in states.items()}
        torch.set_rng_state(mine["cpu"])  # a clone: torch reads from the start of the storage
        if "cuda" in mine:
            torch.cuda.set_rng_state(mine["cuda"], self.device)

    def agree(self, value: int) -> int:
        """Return rank 0's value, 0 to 255, on every rank."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.uint8, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return int(shared.item())

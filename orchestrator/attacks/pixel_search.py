"""Pixel search: first images, the best image of each row and the result, for attacks that descend in pixels.

A row of released scores gives the same image, up to rounding, in any batch: no random draw depends on a row's
position, and no row's cost enters another's gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.training.seeds import derive_seed

# Rows that descend together; results do not depend on it beyond rounding. 64 fit a CPU's caches (256 took 1.8
# times as long for an image); an accelerator wants more, bounded by the memory of their activations.
CPU_BATCH, ACCELERATOR_BATCH = 64, 256


@dataclass(frozen=True, eq=False)
class SearchResult:
    """One image for each row of scores, on the CPU."""

    images: Tensor  # (N, C, S, S) float32 in [0, 1]
    steps: Tensor  # (N,) int64, steps taken
    costs: Tensor  # (N,) float32, of the images returned
    queries: Tensor  # (N,), images sent through the target for the row; of what serves all k, one k-th


class BestImages:
    """The image of lowest cost of each of N rows so far; of equal costs the earlier one stays."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.detach().clone()
        self.costs = torch.full((len(images),), torch.inf, device=images.device)

    def offer(self, rows: Tensor, images: Tensor, costs: Tensor) -> None:
        """Keep those of images (n, C, S, S) with costs (n,) that are the best of their rows (n,)."""
        better = costs < self.costs[rows]
        self.costs[rows] = torch.where(better, costs.detach(), self.costs[rows])
        self.images[rows] = torch.where(better[:, None, None, None], images.detach(), self.images[rows])


def in_batches(
    search: Callable[[Tensor], SearchResult], scores: Tensor, device: torch.device
) -> SearchResult:
    """Search rows of scores (N, k) in batches that suit the device; return their results as one, in order."""
    batch = CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH
    return joined([search(part) for part in scores.split(batch)])


def joined(parts: Sequence[SearchResult]) -> SearchResult:
    """Return the results of several searches as one, in order."""
    return SearchResult(
        *(torch.cat(column) for column in zip(*(vars(part).values() for part in parts), strict=True))
    )


def first_image(level: float | Tensor, noise: float, shape: tuple[int, int, int], *key: object) -> Tensor:
    """Return an image (C, S, S) in [0, 1], grey or given, with Gaussian noise that the key alone draws."""
    generator = torch.Generator().manual_seed(derive_seed("first image", *key))
    return (level + noise * torch.randn(shape, generator=generator)).clamp_(0.0, 1.0)

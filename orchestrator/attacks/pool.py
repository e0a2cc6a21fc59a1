"""Pool: starts of searches, drawn once for all classes, with the target's answers to their images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.training.seeds import derive_seed, drawing_from

BATCH = 256  # images that are generated and sent together


@dataclass(frozen=True, eq=False)
class Pool:
    """What a search chooses its starts from, on the CPU."""

    variables: Tensor  # (N, d)
    scores: Tensor  # (N, k), the target's answers

    def best(self, classes: Tensor, number: int) -> Tensor:
        """Return the variables with the highest scores of each of classes (n,), best first,
        (n, number, d)."""
        places = [best_of(self.scores[:, label], number) for label in classes.tolist()]
        return torch.stack([self.variables[place] for place in places])


def answers(
    image: Callable[[Tensor], Tensor],
    answer: Callable[[Tensor], Tensor],
    variables: Tensor,
    device: torch.device,
) -> Tensor:
    """Return the target's answers (N, k), on the CPU, to the images of variables (N, d); both functions are
    called with a batch at a time, on the device."""
    with torch.no_grad():
        found = [answer(image(batch.to(device))).cpu() for batch in variables.split(BATCH)]
    return torch.cat(found)


def same_draws(use: str, seed: int, device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which a target that draws noise (MID) draws the same for a pool each time: a
    resumed search scores it again, beside all others."""
    return drawing_from(derive_seed(use, seed), device)


def best_of(scores: Tensor, number: int) -> Tensor:
    """Return the places of the highest of scores (N,), best first; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:number]

"""Updates of a latent search as the Fisher analysis differentiates them (TL-DMI, figures 4 and 5).

The paper attacks by KEDMI: an image is G(z_t) with z_t after the last update, which alone depends on theta,
by the gradient of the identity loss; z_(t-1) and what the optimiser remembers are constants. A row w holds
all of a search's state side by side: the variable, the optimiser's memory, the number of the next step and
the class, since both seed the noise of a step.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from orchestrator.analyses.fisher import Logits, Search
from orchestrator.attacks.latent import LatentSearch

VARIABLE = "variable"


class Answers:
    """A target as a search sees it, whose answers are those of parameters theta."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.num_queries = device, 0
        self.logits: Logits = torch.Tensor.contiguous  # set for each update


def latent_search(build: Callable[[Answers], LatentSearch], device: torch.device, classes: Tensor) -> Search:
    """Return the descent of a latent search with one start for classes (N,), one row for each.

    `build` makes the search against some answers. Noise is drawn by numbers that a row holds, so that rows
    are differentiated one by one (a chunk of 1).
    """
    answers = Answers(device)
    search = build(answers)
    method = search.method
    variable = method.start(classes)
    parts = {VARIABLE: variable, **method.optimizer.memory(variable)}
    rows = _Rows({name: tuple(part.shape[1:]) for name, part in parts.items()})

    def step(logits: Logits, latents: Tensor, classes: Tensor) -> Tensor:
        answers.logits = logits
        state, number = rows.unpacked(latents), rows.number(latents)

        def loss(variable: Tensor) -> Tensor:
            return method.scale * search.losses(variable, classes, number).sum()

        variable = state.pop(VARIABLE)
        moved, memory = method.optimizer.step(variable, grad(loss)(variable), state, number)
        return rows.packed({VARIABLE: method.project(moved), **memory}, number + 1, classes)

    def decode(latents: Tensor) -> Tensor:
        variable = rows.unpacked(latents)[VARIABLE]
        return search.images(variable, rows.classes(latents), rows.number(latents)).flatten(0, 1)

    return Search(step, rows.packed(parts, 1, classes), classes, decode)


@dataclass(frozen=True)
class _Rows:
    """Packs the parts of a search's state, (N, ...) each, into rows (N, M) and back."""

    shapes: Mapping[str, tuple[int, ...]]  # of each part, without rows

    def packed(self, parts: Mapping[str, Tensor], number: int, classes: Tensor) -> Tensor:
        """Return rows (N, M): the parts, the number of the next step and the class."""
        flat = [parts[name].flatten(1) for name in self.shapes]
        ends = torch.stack([torch.full_like(classes, number), classes], dim=1).to(flat[0])
        return torch.cat([*flat, ends], dim=1)

    def unpacked(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the parts (N, ...) by name."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        pieces = rows[:, :-2].split(sizes, dim=1)
        return {
            name: piece.unflatten(1, shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    @staticmethod
    def number(rows: Tensor) -> int:
        """Return the number of the next step, which all rows have."""
        return int(rows[0, -2])

    @staticmethod
    def classes(rows: Tensor) -> Tensor:
        """Return the class of each row, (N,)."""
        return rows[:, -1].to(torch.int64)

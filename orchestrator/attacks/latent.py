"""Latent search: one loop for attacks that search the latent space of a generative prior.

An attack fills the slots of a `Method`; the loop descends with every row of a batch for itself: no loss is a
mean over rows, networks are in evaluation mode, and each draw is seeded by the attack's seed and the row's
class, so that a row's image does not depend on the rows beside it (MID's noise at inference alone is drawn
for a whole batch). The state of a row is stored between segments.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.attacks.pixel_search import ACCELERATOR_BATCH, CPU_BATCH, SearchResult, joined
from orchestrator.attacks.row_search import State, advanced, joined_states, split_state
from orchestrator.threat import WhiteBox
from orchestrator.training.seeds import derive_seed

Identity = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""What the target sees, (N, C, S, S), and classes (N,) -> identity loss (N,), weighted, and the target's
logits (N, k)."""

SEGMENT = 100  # steps between two possible checkpoints
DESCENTS = 1024  # starts that are searched together where several images of a row come from one search
MEMORY = "memory."  # prefix of an optimiser's part of the state
KEPT, LOWEST = "kept", "lowest"  # parts of the state of a method that keeps more than the last variable


@dataclass(frozen=True, eq=False)
class GenerativePrior:
    """What the adversary has learned from public images."""

    generator: Any  # `StyleGenerator`: z (N, latent_size) -> images (N, C, S, S) in [0, 1], by way of styles
    critic: Any  # images (N, C, S, S) -> (N,), larger for public images; of KEDMI's an `InversionCritic`;
    # None where others trained the generator.
    # Of PLG-MI's a `ConditionalGenerator` and a `ProjectionCritic`, which read classes (N,) besides.
    students: Sequence[nn.Module] = ()  # copies of the target, images (N, C, S, S) -> logits (N, k)
    features: Tensor | None = None  # mean of the target's features over public images, (d,)

    def to(self, device: torch.device) -> "GenerativePrior":
        """Put all networks on a device, in evaluation mode, without gradients of their parameters."""
        for network in filter(None, (self.generator, self.critic, *self.students)):
            network.to(device).eval().requires_grad_(False)
        return self


class Optimizer(Protocol):
    """A rule of descent that treats each number of the variable (n, r, d) for itself."""

    def memory(self, variable: Tensor) -> dict[str, Tensor]:
        """Return what the rule remembers before the first step, by name, (n, r, d) each."""

    def step(
        self, variable: Tensor, gradient: Tensor, memory: Mapping[str, Tensor], number: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return variable and memory after step `number`, counted from 1."""


@dataclass(frozen=True)
class Nesterov:
    """Descent with Nesterov's momentum: v <- m v - eta g, w <- w + m v - eta g, as `torch.optim.SGD` does."""

    learning_rate: float
    momentum: float

    def memory(self, variable: Tensor) -> dict[str, Tensor]:
        """Return a velocity of 0, (n, r, d)."""
        return {"velocity": torch.zeros_like(variable)}

    def step(
        self, variable: Tensor, gradient: Tensor, memory: Mapping[str, Tensor], number: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return variable and velocity, (n, r, d), after a step."""
        change = self.learning_rate * gradient
        velocity = self.momentum * memory["velocity"] - change
        return variable + self.momentum * velocity - change, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), as `torch.optim.Adam` computes it."""

    learning_rate: float
    betas: tuple[float, float]
    schedule: Callable[[int], float] = lambda number: 1.0  # a step's number -> factor of the learning rate

    def memory(self, variable: Tensor) -> dict[str, Tensor]:
        """Return both moments, 0, (n, r, d)."""
        return {"first": torch.zeros_like(variable), "second": torch.zeros_like(variable)}

    def step(
        self, variable: Tensor, gradient: Tensor, memory: Mapping[str, Tensor], number: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return variable and moments, (n, r, d), after a step."""
        slow, square = self.betas
        first = slow * memory["first"] + (1 - slow) * gradient
        second = square * memory["second"] + (1 - square) * gradient.square()
        size = _root(second / (1 - square**number)) + 1e-8
        change = self.learning_rate * self.schedule(number) * first / (1 - slow**number) / size
        return variable - change, {"first": first, "second": second}


@dataclass(frozen=True)
class Method:
    """The slots of a latent search: r starts of d numbers for each of n rows."""

    steps: int
    """Steps of every start."""

    start: Callable[[Tensor], Tensor]
    """Classes (n,) -> the variable before the first step, (n, r, d)."""

    identity: Identity
    """The identity loss of the N images that the target sees."""

    plausibility: Callable[[Tensor], Tensor]
    """Images (N, C, S, S) -> prior loss (N,), weighted."""

    optimizer: Optimizer
    """Rule of descent."""

    project: Callable[[Tensor], Tensor]
    """Variable after a step -> the one kept, (n, r, d)."""

    choice: Callable[[Tensor, Tensor, Tensor], Tensor]
    """The last images (n, r, C, S, S), their logits (n, r, k) and classes (n,) -> scores (n, r); the start of
    the highest is the row's image."""

    starts: int = 1
    """r: how many starts a row has."""

    latents: Callable[[Tensor, Tensor, int], Tensor] = lambda variable, classes, number: variable
    """Variable (n, r, d), classes (n,) and a step's number -> the z (n, r, latent size) of the images."""

    is_drawn: bool = False
    """Whether `latents` draws, so that the numbers after the last step give any number of images of a row;
    else several images of a row are those of its best starts."""

    make: Callable[[Any, Tensor, Tensor], Tensor] = lambda generator, latents, classes: generator(latents)
    """The prior's generator, latents (N, latent size) and classes (N,) -> images (N, C, S, S)."""

    views: Callable[[Tensor, Tensor, int], Tensor] = lambda images, classes, number: images
    """Images (n, r, C, S, S), classes (n,) and a step's number -> the images (n, v r, C, S, S) that the
    target sees in it: v times all starts. Their identity losses are summed."""

    keep: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    """Variable before a step and after it, (n, r, d), and the losses before it, (n, r) -> a variable with
    losses to keep for a start if they are the lowest so far; None keeps the last variable."""

    scale: float = 1.0
    """Factor of the loss that is descended on; costs are without it."""


class LatentSearch:
    """A search by a method, against a target model, in the latent space of a prior."""

    def __init__(self, method: Method, target: WhiteBox, prior: GenerativePrior) -> None:
        self.method, self._target, self._prior = method, target, prior.to(target.device)

    def advance(self, rows: Tensor, state: State) -> State:
        """Do up to `SEGMENT` steps with rows of scores (n, k), of which the top class counts."""
        classes = rows.argmax(dim=1).split(self._batch())
        states = split_state(state, [len(batch) for batch in classes])
        return joined_states([self._segment(*batch) for batch in zip(classes, states, strict=True)])

    @property
    def chunk(self) -> int:
        """How many rows go together, so that a search of many starts is saved and stopped in time."""
        return max(1, DESCENTS // self.method.starts)

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the image of each row of scores (n, k) by the slot `choice`; its cost is the loss of it."""
        return self.draws(rows, state, 1)[0]

    def draws(self, rows: Tensor, state: State, number: int) -> list[SearchResult]:
        """Return a number of images of each row of scores (n, k): drawn, or those of the best starts."""
        classes = rows.argmax(dim=1).split(self._batch())
        states = split_state(state, [len(batch) for batch in classes])
        parts = [self._chosen(*batch, number) for batch in zip(classes, states, strict=True)]
        return [joined(list(images)) for images in zip(*parts, strict=True)]

    def _batch(self) -> int:
        """Return how many rows descend together, by the images that suit the device; results do not depend on
        it beyond rounding."""
        images = CPU_BATCH if self._target.device.type == "cpu" else ACCELERATOR_BATCH
        return max(1, images // self.method.starts)

    def _segment(self, classes: Tensor, state: State) -> State:
        begun, device = state or self._begun(classes), self._target.device
        step = functools.partial(self._stepped, classes.to(device))
        return advanced(step, begun, device, segment=SEGMENT, last=self.method.steps)

    def _begun(self, classes: Tensor) -> State:
        variable = self.method.start(classes).cpu()
        memory = self.method.optimizer.memory(variable)
        kept = {KEPT: variable.clone(), LOWEST: torch.full(variable.shape[:2], torch.inf)}
        return {
            "variable": variable,
            **(kept if self.method.keep else {}),
            "steps": torch.zeros(len(classes), dtype=torch.int64),
            "queries": torch.zeros(len(classes), dtype=torch.float64),
            **{MEMORY + name: tensor for name, tensor in memory.items()},
        }

    def _stepped(self, classes: Tensor, state: State, number: int) -> dict[str, Tensor]:
        variable, before = state["variable"].requires_grad_(), self._target.num_queries
        losses = self.losses(variable, classes, number)
        # Of a sum: the gradient of a row holds nothing of the others.
        (gradient,) = torch.autograd.grad(self.method.scale * losses.sum(), variable)
        memory = {
            name.removeprefix(MEMORY): tensor for name, tensor in state.items() if name.startswith(MEMORY)
        }
        earlier = variable.detach()
        variable, memory = self.method.optimizer.step(earlier, gradient, memory, number)
        variable = self.method.project(variable)
        return {
            "variable": variable,
            **self._kept(state, earlier, variable, losses.detach()),
            "steps": state["steps"] + 1,
            "queries": state["queries"] + (self._target.num_queries - before) / len(classes),
            **{MEMORY + name: tensor for name, tensor in memory.items()},
        }

    def _kept(self, state: State, before: Tensor, after: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Return the part of the state that keeps more than the last variable."""
        if self.method.keep is None:
            return {}
        offered, losses = self.method.keep(before, after, losses)
        is_lower = losses < state[LOWEST]
        return {
            KEPT: torch.where(is_lower[..., None], offered, state[KEPT]),
            LOWEST: torch.where(is_lower, losses, state[LOWEST]),
        }

    def losses(self, variable: Tensor, classes: Tensor, number: int) -> Tensor:
        """Return the losses (n, r) of a variable (n, r, d) in a step; each row descends on its own."""
        images = self.images(variable, classes, number)
        return self._losses(images, self.method.views(images, classes, number), classes)[0]

    def images(self, variable: Tensor, classes: Tensor, number: int) -> Tensor:
        """Return the images (n, r, C, S, S) of a variable (n, r, d) in a step."""
        latents = self.method.latents(variable, classes, number)
        wanted = classes.repeat_interleave(variable.shape[1])
        images = self.method.make(self._prior.generator, latents.flatten(0, 1), wanted)
        return images.unflatten(0, variable.shape[:2])

    def _losses(self, images: Tensor, views: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (n, r) of images (n, r, C, S, S), and the logits (n, v r, k) of their views
        (n, v r, C, S, S)."""
        wanted = classes.repeat_interleave(views.shape[1])
        identity, logits = self.method.identity(views.flatten(0, 1), wanted)
        identity = identity.view(len(images), -1, images.shape[1]).sum(dim=1)
        plausibility = self.method.plausibility(images.flatten(0, 1)).view(images.shape[:2])
        return identity + plausibility, logits.unflatten(0, views.shape[:2])

    def _chosen(self, classes: Tensor, state: State, number: int) -> list[SearchResult]:
        draws, starts = (number, 1) if self.method.is_drawn else (1, number)
        return [one for draw in range(draws) for one in self._best(classes, state, draw, starts)]

    @torch.no_grad()
    def _best(self, classes: Tensor, state: State, draw: int, number: int) -> list[SearchResult]:
        """Return the images of the best starts of each row, by a draw counted from 0."""
        variable, before = state.get(KEPT, state["variable"]), self._target.num_queries
        variable = variable.to(self._target.device)
        classes = classes.to(variable.device)
        images = self.images(variable, classes, self.method.steps + 1 + draw)
        losses, logits = self._losses(images, images, classes)
        scores = self.method.choice(images, logits, classes)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :number]
        rows = torch.arange(len(classes), device=variable.device)
        none = torch.zeros_like(state["queries"])
        searched = none if draw else state["queries"]
        first = searched + (self._target.num_queries - before) / len(classes)
        return [
            SearchResult(
                images[rows, best].clamp(0.0, 1.0).cpu(),  # StyleGAN2 has no bounded last layer
                state["steps"],
                losses[rows, best].cpu(),
                none if place else first,
            )
            for place, best in enumerate(order.unbind(dim=1))
        ]


def normal_rows(classes: Tensor, shape: tuple[int, ...], *key: object) -> Tensor:
    """Draw N(0, 1) for each of classes (n,), (n, *shape) on the CPU, by the key and the row's class alone."""
    return torch.stack([torch.randn(shape, generator=_row(*key, label)) for label in classes.tolist()])


def uniform_rows(classes: Tensor, shape: tuple[int, ...], *key: object) -> Tensor:
    """Draw from [0, 1) for each of classes (n,), (n, *shape) on the CPU, by the key and the row's class
    alone."""
    return torch.stack([torch.rand(shape, generator=_row(*key, label)) for label in classes.tolist()])


def of_logits(target: WhiteBox, loss: Callable[[Tensor, Tensor], Tensor], weight: float = 1.0) -> Identity:
    """Return the identity loss that maps the target's logits (N, k) and classes (N,) to losses (N,)."""

    def identity(views: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        logits = target.logits(views)
        return weight * loss(logits, classes), logits

    return identity


def cross_entropies(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy (N,) of each row of logits (N, k) with its class of classes (N,)."""
    return functional.cross_entropy(logits, classes, reduction="none")


def class_logits(images: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of each row's class, (n, r), of logits (n, r, k), for classes (n,)."""
    return logits.gather(2, classes[:, None, None].expand(*logits.shape[:2], 1))[..., 0]


def _root(squares: Tensor) -> Tensor:
    """Return the square root, with a derivative of 0 at 0, which numbers without a gradient have."""
    is_above = squares > 0
    return torch.where(is_above, torch.where(is_above, squares, 1.0).sqrt(), 0.0)


def _row(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("latent", *key))

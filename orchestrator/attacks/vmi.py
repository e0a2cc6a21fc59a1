"""VMI: variational model inversion, a distribution of latents for each class (Wang et al., NeurIPS 2021).

min over q of E_q CE(T(G(z)), y) + gamma KL(q || N(0, I)), equation 6, with a q for each style input of G: w_l
is mapped from a draw of q_l, the noise of which all l have in common as far as the family allows.
Authors' values: flows as in `flow.py`, gamma 0.001 times the mean over the inputs, 64 images a step, as
many other draws for the divergence, SGD 1e-4 with momentum 0.9, 31 epochs of 157 steps (Ho et al., Table 11,
have 320 iterations, which was not found in the code); 50 or 100 images of a class are drawn in the end.

Differences: they compute in float64, here all is float32. Their nuisance branch is multiplied by 0 with a
generator of ten inputs and is left out. Without a mapping there is one q, of z. Permutations are stored with
the parameters, so that a search goes on, and draws later, from the same q.
"""

import functools
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.flow import Flow
from orchestrator.attacks.gaussian import Gaussian
from orchestrator.attacks.latent import GenerativePrior, normal_rows
from orchestrator.attacks.pixel_search import ACCELERATOR_BATCH, CPU_BATCH, SearchResult, joined
from orchestrator.attacks.row_search import State, advanced, joined_states, split_state
from orchestrator.threat import WhiteBox
from orchestrator.training.seeds import derive_seed

SEGMENT = 50  # steps between two possible checkpoints
NUMBERS = 2**27  # of the state of rows that are searched together: half a gigabyte


class Family(Protocol):
    """Distributions of vectors, F at a time, by parameters (F, P) and what is fixed, (F, Q)."""

    @property
    def size(self) -> int:
        """Numbers of a vector."""

    @property
    def num_shared(self) -> int:
        """Leading numbers of the noise that the distributions of a row have in common."""

    @property
    def num_parameters(self) -> int:
        """Numbers of the parameters of one."""

    def begun(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the first parameters of a number of distributions, and what is fixed."""

    def drawn(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return values of noise from N(0, I), (F, N, size) each."""

    def divergence(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return the divergence from N(0, I) in nats, (F,), exact or the mean over noise (F, N, size)."""


def search(attack: config.VmiAttack, target: WhiteBox, prior: GenerativePrior) -> "VariationalSearch":
    """Return the search of a distribution for the top class of each row of scores (n, k)."""
    return VariationalSearch(attack, target, prior)


class VariationalSearch:
    """A search of a distribution for each row; the images of a row are draws."""

    def __init__(self, attack: config.VmiAttack, target: WhiteBox, prior: GenerativePrior) -> None:
        self._attack, self._target = attack, target
        self._generator = prior.to(target.device).generator
        self._inputs, size = self._generator.num_styles, self._generator.latent_size
        flow = Flow(size, attack.levels, attack.couplings, attack.width, attack.normalisation == "released")
        self._family: Family = flow if attack.family == "flow" else Gaussian(size)

    @property
    def chunk(self) -> int:
        """How many rows have a state that is held together with ease."""
        return max(1, NUMBERS // (2 * self._inputs * self._family.num_parameters))

    def advance(self, rows: Tensor, state: State) -> State:
        """Do up to `SEGMENT` steps with rows of scores (n, k), of which the top class counts."""
        images = CPU_BATCH if self._target.device.type == "cpu" else ACCELERATOR_BATCH
        classes = rows.argmax(dim=1).split(max(1, images // self._attack.samples))
        states = split_state(state, [len(batch) for batch in classes])
        return joined_states([self._segment(*batch) for batch in zip(classes, states, strict=True)])

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the first draw of each row, (n, C, S, S); its cost is the cross-entropy."""
        return self.draw(rows, state, 0)

    def draws(self, rows: Tensor, state: State, number: int) -> list[SearchResult]:
        """Return the first draws of each row, (n, C, S, S) each."""
        return [self.draw(rows, state, draw) for draw in range(number)]

    def draw(self, rows: Tensor, state: State, number: int) -> SearchResult:
        """Return the draw of a number, counted from 0, of each row, (n, C, S, S); steps and queries are those
        of the search with the first, and of the draw alone with others."""
        classes = rows.argmax(dim=1).split(CPU_BATCH)
        states = split_state(state, [len(batch) for batch in classes])
        return joined([self._draw(*batch, number) for batch in zip(classes, states, strict=True)])

    def _segment(self, classes: Tensor, state: State) -> State:
        step = functools.partial(self._stepped, classes)
        begun, device = state or self._begun(classes), self._target.device
        return advanced(step, begun, device, segment=SEGMENT, last=self._attack.steps)

    def _begun(self, classes: Tensor) -> State:
        begun = []
        for label in classes.tolist():
            generator = torch.Generator().manual_seed(derive_seed("vmi start", self._attack.seed, label))
            begun.append(self._family.begun(self._inputs, generator))
        parameters, fixed = (torch.stack(parts) for parts in zip(*begun, strict=True))
        return {
            "parameters": parameters,  # (n, L, P)
            "fixed": fixed,  # (n, L, Q)
            "velocity": torch.zeros_like(parameters),
            "steps": torch.zeros(len(classes), dtype=torch.int64),
            "queries": torch.zeros(len(classes), dtype=torch.float64),
        }

    def _stepped(self, classes: Tensor, state: State, number: int) -> dict[str, Tensor]:
        attack, before = self._attack, self._target.num_queries
        parameters, fixed = state["parameters"].detach().requires_grad_(), state["fixed"].flatten(0, 1)
        noise = self._noise(classes, "step", number)
        losses = self._cross_entropy(self._images(parameters, fixed, noise), classes).mean(dim=1)
        apart = self._family.divergence(parameters.flatten(0, 1), fixed, self._other_noise(classes, number))
        losses = losses + attack.divergence_weight * apart.view(len(classes), -1).mean(dim=1)
        # Of a sum: the gradient of a row holds nothing of the others.
        (gradient,) = torch.autograd.grad(losses.sum(), parameters)
        velocity = attack.momentum * state["velocity"] + gradient
        return {
            **state,
            "parameters": parameters.detach() - attack.learning_rate * velocity,
            "velocity": velocity,
            "steps": state["steps"] + 1,
            "queries": state["queries"] + (self._target.num_queries - before) / len(classes),
        }

    def _noise(self, classes: Tensor, use: str, number: int, samples: int | None = None) -> Tensor:
        """Draw noise (n L, N, d) of which the inputs of a row share the leading numbers."""
        samples, shared = samples or self._attack.samples, self._family.num_shared
        key = (f"vmi {use}", self._attack.seed, number)
        common = normal_rows(classes, (1, samples, shared), *key, "shared").expand(-1, self._inputs, -1, -1)
        own = normal_rows(classes, (self._inputs, samples, self._family.size - shared), *key, "own")
        return torch.cat([common, own], dim=3).flatten(0, 1).to(self._target.device)

    def _other_noise(self, classes: Tensor, number: int) -> Tensor:
        """Draw the noise (n L, N, d) of the divergence in a step."""
        shape = (self._inputs, self._attack.samples, self._family.size)
        drawn = normal_rows(classes, shape, "vmi divergence", self._attack.seed, number)
        return drawn.flatten(0, 1).to(self._target.device)

    def _images(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return images (n, N, C, S, S) in [0, 1] of parameters (n, L, P), (n L, Q) and noise (n L, N, d)."""
        latents = self._family.drawn(parameters.flatten(0, 1), fixed, noise)
        styles = self._generator.styles(latents.flatten(0, 1))[:, 0]  # of equal ones the first
        styles = styles.unflatten(0, (len(parameters), self._inputs, -1)).transpose(1, 2)  # (n, N, L, w)
        images = self._generator.clipped(styles.flatten(0, 1))
        return images.unflatten(0, (len(parameters), -1))

    def _cross_entropy(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the cross-entropy of images (n, N, C, S, S) with classes (n,), (n, N)."""
        logits = self._target.logits(images.flatten(0, 1))
        wanted = classes.to(logits.device).repeat_interleave(images.shape[1])
        return functional.cross_entropy(logits, wanted, reduction="none").view(images.shape[:2])

    @torch.no_grad()
    def _draw(self, classes: Tensor, state: State, number: int) -> SearchResult:
        device, before = self._target.device, self._target.num_queries
        noise = self._noise(classes, "draw", number, samples=1)
        images = self._images(state["parameters"].to(device), state["fixed"].flatten(0, 1).to(device), noise)
        costs = self._cross_entropy(images, classes)[:, 0].cpu()
        own = (self._target.num_queries - before) / len(classes)
        searched = state["queries"] if number == 0 else torch.zeros_like(state["queries"])
        return SearchResult(images[:, 0].cpu(), state["steps"], costs, searched + own)

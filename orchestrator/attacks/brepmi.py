"""BREPMI: boundary-repelling inversion from labels alone (Kahla et al., CVPR 2022, Algorithm 1).

From a z that the target labels as the class, move away from those points of a sphere around z that it labels
otherwise; when nearly all are of the class, the sphere grows, so that z ends deep inside. Authors' values: 32
points, first radius 2, growth 1.3, step min(R / 3, 3), z clipped to 1.5, an end after 1000 steps since the
last growth. As released, the radius grows when the mean of labels as +1 and -1 exceeds 3/4: 29 of 32 points;
any growth restarts the count of steps; the image is that of the last growth whose move the target accepted.

Differences: classes are given, where they take those that turn up first; a query budget ends a row, since
moves that the target rejects are not counted as steps, and so does a radius beyond `FARTHEST`, since without
a boundary in reach it grows for ever; a class whose first label does not turn up within the budget keeps a
random image; a row without such a growth keeps its last z, where released code counts a failure. The start is
the first z of the class in a batch.
"""

import math

import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks.latent import GenerativePrior, normal_rows
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import State, repeated
from orchestrator.threat import BlackBox

SEGMENT = 20  # moves between two possible checkpoints
IMAGES = 256  # generated together
FARTHEST = 10  # largest radius in diameters of the cube of z; beyond 1 no point of a sphere is in the cube


def search(attack: config.BrepmiAttack, target: BlackBox, prior: GenerativePrior) -> "BoundarySearch":
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    return BoundarySearch(attack, target, prior)


class BoundarySearch:
    """A search that moves rows away from the boundary of their class, each by labels of its own queries."""

    def __init__(self, attack: config.BrepmiAttack, target: BlackBox, prior: GenerativePrior) -> None:
        self._attack, self._target = attack, target
        self._generator = prior.generator.eval().requires_grad_(False)

    def advance(self, rows: Tensor, state: State) -> State:
        """Find the starts of rows of scores (n, k), of which the top class counts, or move up to `SEGMENT`
        times."""
        classes = rows.argmax(dim=1)
        return repeated(self._moved, classes, state, SEGMENT) if state else self._begun(classes)

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the image of each row at its last growth, or else its last; its cost is 1 if no z of its
        class was found, else 0."""
        latents = torch.where(state["has_grown"][:, None], state["kept"], state["latents"])
        costs = 1.0 - state["has_started"].float()
        return SearchResult(self._images(latents), state["steps"], costs, state["queries"])

    def _begun(self, classes: Tensor) -> State:
        started = [self._start(label) for label in classes.split(1)]
        latents = torch.stack([latent for latent, _, _ in started])
        has_started = torch.tensor([is_of_class for _, is_of_class, _ in started])
        radius = torch.full((len(classes),), self._attack.radius)
        none = torch.zeros(len(classes), dtype=torch.int64)
        queries = torch.tensor([queries for _, _, queries in started], dtype=torch.float64)
        return {
            "latents": latents,
            "kept": latents.clone(),
            "radius": radius,
            "steps": none,
            "since_growth": none.clone(),
            "has_grown": none.bool(),
            "has_started": has_started,
            "queries": queries,
            "finished": ~has_started | self._is_over(radius, queries),
        }

    def _start(self, label: Tensor) -> tuple[Tensor, bool, int]:
        """Return the first drawn z (d,) that is of the class (1,), or else the first one; whether it is, and
        the number of queries."""
        first, size, queries = None, (self._attack.batch, self._generator.latent_size), 0
        while queries + self._attack.batch <= self._attack.budget:
            drawn = normal_rows(label, size, "brepmi start", self._attack.seed, queries)[0]
            drawn = drawn.clamp(-self._attack.clip, self._attack.clip)
            queries += len(drawn)
            first = drawn[0] if first is None else first
            found = self._labels(drawn) == label
            if found.any():
                return drawn[found][0], True, queries
        assert first is not None  # a budget is at least a batch
        return first, False, queries

    def _moved(self, classes: Tensor, state: State) -> State:
        """Move rows once that are not finished; their number of moves is the same."""
        attack, latents, radius = self._attack, state["latents"], state["radius"]
        directions = self._directions(classes, int(state["steps"][0]))
        around = latents[:, None] + radius[:, None, None] * directions
        is_inside = (self._labels(around.flatten(0, 1)) == classes.repeat_interleave(attack.points)).view(
            len(classes), attack.points
        )
        grows = may_grow(is_inside, attack.margin)
        new_radius = torch.where(grows, attack.growth * radius, radius)
        length = (radius / 3).clamp(max=3.0) * radius / new_radius
        moved = latents + length[:, None] * repulsion(is_inside, directions, attack.signs)
        moved = moved.clamp(-attack.clip, attack.clip)
        is_accepted = self._labels(moved) == classes
        is_kept = is_accepted & grows
        since = torch.where(grows, 0, state["since_growth"] + is_accepted)
        queries = state["queries"] + attack.points + 1
        return {
            **state,
            "latents": torch.where(is_accepted[:, None], moved, latents),
            "kept": torch.where(is_kept[:, None], moved, state["kept"]),
            "radius": new_radius,
            "steps": state["steps"] + 1,
            "since_growth": since,
            "has_grown": state["has_grown"] | is_kept,
            "queries": queries,
            "finished": (since >= attack.patience) | self._is_over(new_radius, queries),
        }

    def _is_over(self, radius: Tensor, queries: Tensor) -> Tensor:
        """Mark the rows (n,) whose radius (n,) is beyond `FARTHEST` or whose budget does not allow another
        move after their queries (n,)."""
        diameter = 2 * self._attack.clip * math.sqrt(self._generator.latent_size)
        return (radius > FARTHEST * diameter) | (queries + self._attack.points + 1 > self._attack.budget)

    def _directions(self, classes: Tensor, move: int) -> Tensor:
        """Draw unit vectors (n, points, d) for each of classes (n,)."""
        size = (self._attack.points, self._generator.latent_size)
        drawn = normal_rows(classes, size, "brepmi directions", self._attack.seed, move)
        return drawn / drawn.norm(dim=2, keepdim=True)

    def _images(self, latents: Tensor) -> Tensor:
        """Return the images (N, C, S, S) of latents (N, d), on the CPU."""
        device = next(self._generator.parameters()).device
        with torch.inference_mode():
            made = [self._generator(batch.to(device)).cpu() for batch in latents.split(IMAGES)]
        return torch.cat(made)

    def _labels(self, latents: Tensor) -> Tensor:
        """Return the target's labels (N,) of the images of latents (N, d)."""
        return self._target.query(self._images(latents)).argmax(dim=1)


def may_grow(is_inside: Tensor, margin: float) -> Tensor:
    """Mark the rows (n,) whose points inside outnumber those outside by more than a share `margin` of all,
    0..1, of bools (n, p), True where a point is inside."""
    points = is_inside.shape[1]
    return (2 * is_inside.sum(dim=1) - points) > margin * points


def repulsion(is_inside: Tensor, directions: Tensor, signs: str) -> Tensor:
    """Return the mean (n, d) of directions (n, p, d) with weights: -1 of those that end outside and 0 of the
    others (`outside`), or -1 and 1 (`both`)."""
    weights = is_inside.float() - 1 if signs == "outside" else 2 * is_inside.float() - 1
    return (weights[..., None] * directions).mean(dim=1)

"""MIRROR with scores alone: a genetic search among the styles of a generator (An et al., NDSS 2022).

The best of a pool of w by the released score of a class are its first population. In each generation the best
w stays and the others are children: of two parents, drawn with probability p / sum p, each number is of one
or the other; some numbers are moved in P space; w is clipped there as in `mirror.py`. A search ends after a
number of generations or at a score.
Authors' values: 100,000 w, population 100 by default and 1000 in their scripts, 100 generations, a number is
moved with probability 0.1 by 0.1 times a uniform number within a deviation of the pool, score 0.95. All of a
population is queried in each generation, the best too.

Differences: a child takes a number from a parent with probability p1 / (p1 + p2); the released code has log p
in place of p, which prefers the worse parent (4.4 % from 0.9 beside 0.1), and one move for all children of a
generation: `crossover` and `moves` restore both. Scores are those that are released: one that truncation
leaves out is 0, and a population without a score has parents of equal probability.
"""

import functools

import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks.latent import GenerativePrior, uniform_rows
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.pool import Pool, answers, same_draws
from orchestrator.attacks.row_search import State, repeated
from orchestrator.attacks.style_space import StyleSpace
from orchestrator.threat import BlackBox

SEGMENT = 5  # generations between two possible checkpoints


def search(attack: config.MirrorBlackBoxAttack, target: BlackBox, prior: GenerativePrior) -> "GeneticSearch":
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    return GeneticSearch(attack, target, prior)


class GeneticSearch:
    """A search that breeds a population for each row, by released scores of its own queries."""

    def __init__(self, attack: config.MirrorBlackBoxAttack, target: BlackBox, prior: GenerativePrior) -> None:
        self._attack, self._target = attack, target
        generator = prior.generator.eval().requires_grad_(False)
        self._device = next(generator.parameters()).device
        self._space = StyleSpace(generator, attack.psi, attack.cutoff)

    def advance(self, rows: Tensor, state: State) -> State:
        """Choose the first populations of rows of scores (n, k), of which the top class counts, or breed up
        to `SEGMENT` generations."""
        classes = rows.argmax(dim=1)
        return repeated(self._bred, classes, state, SEGMENT) if state else self._begun(classes)

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the image of the best w of each row; its cost is 1 - its score."""
        scores, best = state["scores"].max(dim=1)
        styles = state["population"][torch.arange(len(best)), best]
        with torch.no_grad():
            images = self._space(styles.to(self._device)).cpu()
        return SearchResult(images, state["steps"], 1.0 - scores, state["queries"])

    @functools.cached_property
    def _styles(self) -> Tensor:
        return self._space.drawn(self._attack.pool, self._device, "mirror pool", self._attack.seed)

    @functools.cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        return self._space.bounds(self._styles, self._attack.deviations)

    @functools.cached_property
    def _spread(self) -> Tensor:
        return self._space.to_p(self._styles).std(dim=0, correction=0)

    @functools.cached_property
    def _pool(self) -> Pool:
        with same_draws("mirror pool", self._attack.seed, self._device):
            return Pool(self._styles, self._answers(self._styles))

    def _answers(self, styles: Tensor) -> Tensor:
        """Return released scores (N, k), on the CPU, of the images of styles (N, d)."""
        return answers(self._space, self._target.query, styles, self._device)

    def _begun(self, classes: Tensor) -> State:
        number = self._attack.population
        scores = self._pool.scores.T[classes].sort(dim=1, descending=True, stable=True).values[:, :number]
        none = torch.zeros(len(classes), dtype=torch.int64)
        return {
            "population": self._pool.best(classes, number),
            "scores": scores,
            "steps": none,
            "queries": none.double(),
            "finished": self._is_over(scores, none),
        }

    def _is_over(self, scores: Tensor, steps: Tensor) -> Tensor:
        return (scores.amax(dim=1) >= self._attack.score) | (steps >= self._attack.generations)

    def _bred(self, classes: Tensor, state: State) -> State:
        """Return the next generation of rows that are not finished; their number of generations is the
        same."""
        population, scores, number = state["population"], state["scores"], int(state["steps"][0])
        rows = torch.arange(len(classes))
        best = population[rows, scores.argmax(dim=1)][:, None]
        population = torch.cat([best, self._children(classes, population, scores, number)], dim=1)
        found = self._answers(population.flatten(0, 1)).unflatten(0, population.shape[:2])
        scores = found[rows, :, classes]
        return {
            "population": population,
            "scores": scores,
            "steps": state["steps"] + 1,
            "queries": state["queries"] + population.shape[1],
            "finished": self._is_over(scores, state["steps"] + 1),
        }

    def _children(self, classes: Tensor, population: Tensor, scores: Tensor, number: int) -> Tensor:
        """Return the children (n, P - 1, d) of populations (n, P, d) with scores (n, P)."""
        attack, (_, size, count) = self._attack, population.shape
        draw = functools.partial(uniform_rows, classes)
        key = (attack.seed, number)
        pairs = parents(scores, draw((2 * (size - 1),), "mirror parents", *key)).chunk(2, dim=1)
        one, other = (population.gather(1, places[..., None].expand(-1, -1, count)) for places in pairs)
        first, second = (scores.gather(1, places) for places in pairs)
        shares = share_of_first(first, second, attack.crossover)
        is_first = draw((size - 1, count), "mirror crossover", *key) < shares[..., None]
        children = self._space.to_p(torch.where(is_first, one, other))
        is_moved = draw((size - 1, count), "mirror mutation", *key) < attack.mutation
        moves = 2 * draw((size - 1 if attack.moves == "corrected" else 1, count), "mirror moves", *key) - 1
        children = children + torch.where(is_moved, attack.reach * self._spread * moves, 0.0)
        return self._space.from_p(children).clamp(*self._bounds)


def parents(scores: Tensor, drawn: Tensor) -> Tensor:
    """Return places (n, m) in populations with scores (n, P), by their share of the sum, of numbers in [0, 1)
    drawn, (n, m); of a population without a score all are as likely."""
    weights = torch.where(scores.sum(dim=1, keepdim=True) > 0, scores, 1.0).double()
    ends = weights.cumsum(dim=1)
    places = torch.searchsorted(ends, drawn.double() * ends[:, -1:], right=True)
    return places.clamp(max=scores.shape[1] - 1)


def share_of_first(one: Tensor, other: Tensor, crossover: str) -> Tensor:
    """Return the probability that a child takes a number from the first of two parents with scores p,
    (n, m) each: p1 / (p1 + p2) if `corrected`, of log p in place of p if `released`; else half."""
    if crossover == "released":
        smallest = torch.finfo(one.dtype).tiny
        one, other = one.clamp(min=smallest).log(), other.clamp(min=smallest).log()
    total = one + other
    return torch.where(total == 0, 0.5, one / torch.where(total == 0, 1.0, total))

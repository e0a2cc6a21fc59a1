"""MIRROR: descent among the styles of a generator, clipped in P space (An et al., NDSS 2022, section IV).

1. The best of a pool of w by the target's score of a class are the starts of its row. 2. Adam on the
cross-entropy of images that are mirrored by a coin; after each step w is clipped to mean +- deviation of the
pool in P space. 3. Each start keeps the w of its lowest loss. 4. Of the starts the one whose five first
labels agree most with the others', of equal ones the one with the highest score.
Authors' values: 100,000 w, 8 starts, weight 10, Adam 0.25 with betas (0.9, 0.999), warm-up over a twentieth
of the steps, cosine to 0 over the last quarter, truncation 0.7 of 8 layers inside the generator, one w for
all layers; 20,000 steps (500 in Ho et al., Table 11, the default).

Differences: with `coupling: none` the starts of an image share neither coin nor step, and the w kept is the
one that had the loss; `released` is their code, in which it is the one after it. Without a mapping (plain
GANs) z is searched, clipped to mean +- deviation of the pool's z, as their code clips z. The last w, whose
loss is not taken, is kept in neither; the last step has size 0.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.latent import (
    Adam,
    GenerativePrior,
    LatentSearch,
    Method,
    cross_entropies,
    of_logits,
    uniform_rows,
)
from orchestrator.attacks.pool import Pool, answers, same_draws
from orchestrator.attacks.style_space import StyleSpace
from orchestrator.threat import WhiteBox

BETAS = (0.9, 0.999)
WARM_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps
COMPARED = 5  # first labels of an image


def search(attack: config.MirrorAttack, target: WhiteBox, prior: GenerativePrior) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    prior = prior.to(target.device)
    space = StyleSpace(prior.generator, attack.psi, attack.cutoff)

    @functools.cache
    def styles() -> Tensor:
        return space.drawn(attack.pool, target.device, "mirror pool", attack.seed)

    @functools.cache
    def bounds() -> tuple[Tensor, Tensor]:
        low, high = space.bounds(styles(), attack.deviations)
        return low.to(target.device), high.to(target.device)

    @functools.cache
    def pool() -> Pool:
        with same_draws("mirror pool", attack.seed, target.device):
            scores = answers(space, lambda images: target.logits(images).softmax(1), styles(), target.device)
        return Pool(styles(), scores)

    def mirrored(images: Tensor, classes: Tensor, number: int) -> Tensor:
        coins = attack.starts if attack.coupling == "none" else 1
        drawn = uniform_rows(classes, (coins, 1, 1, 1), "mirror coin", attack.seed, number)
        is_mirrored = (drawn < (0.5 if attack.mirrors else 0.0)).to(images.device)
        return torch.where(is_mirrored, images.flip(4), images)

    method = Method(
        steps=attack.steps,
        start=lambda classes: pool().best(classes, attack.starts),
        identity=of_logits(target, cross_entropies, attack.identity_weight),
        plausibility=lambda images: images.new_zeros(len(images)),
        optimizer=Adam(attack.learning_rate, BETAS, functools.partial(rate, steps=attack.steps)),
        project=lambda variable: variable.clamp(*bounds()),
        choice=agreement,
        starts=attack.starts,
        views=mirrored,
        keep=lowest if attack.coupling == "none" else after_lowest_mean,
    )
    return LatentSearch(method, target, GenerativePrior(space, prior.critic))


def rate(number: int, *, steps: int) -> float:
    """Return the factor of the step size in step `number`, 1..steps: warm-up, 1, cosine to 0."""
    done = number / steps
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - done) / RAMP_DOWN))
    return fall * min(1.0, done / WARM_UP)


def lowest(before: Tensor, after: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Offer the variable that had the losses (n, r)."""
    return before, losses


def after_lowest_mean(before: Tensor, after: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Offer the variable after the step at the mean of the losses (n, r) over the starts, as released."""
    return after, losses.mean(dim=1, keepdim=True).expand_as(losses)


def agreement(images: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """Return how many of the first five labels of each start are those of the others too, plus the class's
    score as fraction: (n, r), of logits (n, r, k), for classes (n,)."""
    k = logits.shape[2]
    first = logits.topk(min(COMPARED, k), dim=2).indices
    named = functional.one_hot(first, k).sum(dim=2).to(torch.float64)  # (n, r, k)
    shared = (named * named.sum(dim=1, keepdim=True)).sum(dim=2)
    scores = logits.double().softmax(dim=2).gather(2, classes[:, None, None].expand(*logits.shape[:2], 1))
    return shared + 0.5 * scores[..., 0]

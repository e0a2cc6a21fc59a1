"""PPA: plug & play attacks (Struppek et al., ICML 2022), in the style or latent space of any generator.

1. One pool of z ~ N(0, I) for all classes, mapped to truncated w where there is a mapping; the target's mean
   score of a class over the image and its mirror image ranks them, and the best are the starts of the class's
   row. 2. Adam on the Poincare distance of the target's logits from the class, of a random crop at each step.
3. Of the starts the one whose class has the highest mean score over random crops and flips.
Authors' values: pool 2000 (FaceScrub) or 5000 (CelebA), 200 starts of which 50 are kept for a class, 50 steps
(70 with MetFaces and CelebA), Adam 0.005 with betas (0.1, 0.1), crops of area 0.9 to 1 with ratio 1, then 100
crops of area 0.5 to 0.9 with ratio 0.8 to 1.2; psi 0.5 in 8 layers; images are not clipped in the loop.

Differences: without a mapping (plain GANs) z is searched, clipped to a cube. By default a row keeps one of
`starts`, and each candidate has a pool of its own; with `candidates: released` a class has one search, whose
most robust starts are its images. They draw one crop for a whole batch, here each image has its own. Their
distance divides by zero where one logit holds all the weight; here the norm of u is bounded.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.crops import NUMBERS, random_crops
from orchestrator.attacks.latent import (
    Adam,
    GenerativePrior,
    LatentSearch,
    Method,
    class_logits,
    of_logits,
    uniform_rows,
)
from orchestrator.attacks.pool import Pool, answers, same_draws
from orchestrator.attacks.style_space import StyleSpace
from orchestrator.models.generator import StyleGenerator
from orchestrator.threat import WhiteBox

ROBUST_SCALE, ROBUST_RATIO = (0.5, 0.9), (0.8, 1.2)
CONFIDENCE = 1.0 - 1e-4  # of the class in v
LONGEST = 1.0 - 1e-7  # bound of the squared norm of u


def search(attack: config.PpaAttack, target: WhiteBox, prior: GenerativePrior) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    prior = prior.to(target.device)
    scored = StyleSpace(prior.generator, attack.psi, attack.cutoff)
    is_repeated = scored.has_mapping and attack.truncation == "released"
    psi, cutoff = (1.0, 0) if is_repeated else (attack.psi, attack.cutoff)
    searched = StyleSpace(prior.generator, psi, cutoff, clips=False)
    flip = 0.5 if attack.mirrors else 0.0

    def bound(variable: Tensor) -> Tensor:
        return variable if scored.has_mapping else variable.clamp(-attack.clip, attack.clip)

    @functools.cache
    def pool() -> Pool:
        drawn = bound(scored.drawn(attack.pool, target.device, "ppa pool", attack.seed))
        with same_draws("ppa pool", attack.seed, target.device):
            scores = pool_scores(target, scored, drawn, mirrors=attack.mirrors)
        return Pool(_truncated(scored, drawn, target.device) if is_repeated else drawn, scores)

    def crops(images: Tensor, classes: Tensor, number: int) -> Tensor:
        drawn = uniform_rows(classes, (attack.starts, NUMBERS), "ppa crop", attack.seed, number)
        cropped = random_crops(
            images.flatten(0, 1), drawn.flatten(0, 1), scale=(attack.crop, 1.0), ratio=(1.0, 1.0), flip=0.0
        )
        return cropped.view_as(images)

    def robust(images: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        if attack.starts == 1:
            return class_logits(images, logits, classes)
        total = torch.zeros(images.shape[:2], device=images.device)
        for view in range(attack.views):
            drawn = uniform_rows(classes, (attack.starts, NUMBERS), "ppa view", attack.seed, view)
            cropped = random_crops(
                images.flatten(0, 1), drawn.flatten(0, 1), scale=ROBUST_SCALE, ratio=ROBUST_RATIO, flip=flip
            )
            scores = target.logits(cropped).softmax(dim=1).unflatten(0, images.shape[:2])
            total += class_logits(images, scores, classes)
        return total

    method = Method(
        steps=attack.steps,
        start=lambda classes: pool().best(classes, attack.starts),
        identity=of_logits(target, poincare),
        plausibility=lambda images: images.new_zeros(len(images)),
        optimizer=Adam(attack.learning_rate, attack.betas),
        project=bound,
        choice=robust,
        starts=attack.starts,
        views=crops,
    )
    return LatentSearch(method, target, GenerativePrior(searched, prior.critic))


def _truncated(space: StyleSpace, styles: Tensor, device: torch.device) -> Tensor:
    return space.truncated(styles.to(device)).cpu()


def poincare(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the Poincare distance (N,) of logits (N, k) from classes (N,).

    arcosh(1 + 2 |u - v|^2 / ((1 - |u|^2) (1 - |v|^2))), u the logits by their sum of absolute values, v
    0.9999 at the class and 0 elsewhere.
    """
    u = logits / logits.abs().sum(dim=1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)
    v = CONFIDENCE * functional.one_hot(classes, logits.shape[1]).to(logits.dtype)
    norm, apart = u.square().sum(dim=1), (u - v).square().sum(dim=1)
    ratio = apart / ((1 - norm.clamp(max=LONGEST)) * (1 - CONFIDENCE**2))
    return torch.acosh(1 + 2 * ratio)


def pool_scores(target: WhiteBox, generator: StyleGenerator, latents: Tensor, *, mirrors: bool) -> Tensor:
    """Return the target's scores (N, k), on the CPU, of the images of latents (N, latent_size): those of the
    image, or the mean of its and its mirror image's."""

    def scored(images: Tensor) -> Tensor:
        scores = target.logits(images).softmax(dim=1)
        return (scores + target.logits(images.flip(3)).softmax(dim=1)) / 2 if mirrors else scores

    return answers(generator, scored, latents, target.device)

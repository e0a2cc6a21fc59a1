"""Optimisation-based inversion of a given prediction (AMI, equations 4 and 5 and section II-B).

Minimises sum_i (F(x)_i - f_i)^2 over the known entries i, plus priors, over the pixels of x. Adam keeps
torch's betas (0.9, 0.999), sgd its momentum of 0.9; pixels are clamped to [0, 1] after each step. Blur and
clipping follow Yosinski et al. (2015), the penalties Mahendran and Vedaldi (2015).
"""

import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks import image_priors as priors
from orchestrator.attacks.pixel_search import BestImages, SearchResult, first_image, in_batches
from orchestrator.threat import WhiteBox, largest
from orchestrator.training.optimizers import SGD, Adam


def invert(
    attack: config.OptimizationAttack, target: WhiteBox, scores: Tensor, m: int, shape: tuple[int, int, int]
) -> SearchResult:
    """Find an image (C, S, S) for each row of released scores (N, k), of which the m largest are known.

    Return the image of lowest cost of each row. With jitter, a step knows the cost of a shifted
    image only, and blur and clipping are priors that no cost contains, so that the lowest cost would favour
    the image treated least; with any of them the last image is returned.
    """
    return in_batches(lambda part: _descend(attack, target, part, m, shape), scores, target.device)


def _descend(
    attack: config.OptimizationAttack, target: WhiteBox, scores: Tensor, m: int, shape: tuple[int, int, int]
) -> SearchResult:
    """Descend from the same start for each row of scores (N, k)."""
    scores = scores.to(target.device, torch.float32)
    known = largest(scores, m)
    # One noise image for all rows: drawn by position, it would depend on how workers share the rows.
    start = first_image(attack.start, attack.noise, shape, attack.seed).to(target.device)
    images = start.expand(len(scores), *shape).clone().requires_grad_()
    optimizer = _optimizer(attack, images)
    rows, lowest = torch.arange(len(scores), device=target.device), BestImages(images)
    for step in range(attack.steps):
        shift = priors.draw_shift(attack.jitter, attack.seed, step)
        shifted = priors.jitter(images, shift)
        costs = _distances(target, shifted, scores, known) + _penalties(attack, images)
        # Of a sum: the gradient of an image holds nothing of the others.
        (images.grad,) = torch.autograd.grad(costs.sum(), images)
        if _cost_is_complete(attack):
            lowest.offer(rows, images, costs)
        optimizer.step()
        with torch.no_grad():
            images.clamp_(0.0, 1.0)
            if (step + 1) % attack.treat_every == 0:
                images.copy_(_treated(attack, images, images.grad))
    with torch.no_grad():
        costs = _distances(target, images, scores, known) + _penalties(attack, images)
    lowest.offer(rows, images, costs)
    steps = torch.full((len(scores),), attack.steps)
    return SearchResult(lowest.images.cpu(), steps, lowest.costs.cpu(), queries=steps + 1)


def _optimizer(attack: config.OptimizationAttack, images: Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of images (N, C, S, S); either works pixel by pixel, so rows stay independent."""
    if attack.optimizer == "sgd":
        return SGD([images], lr=attack.learning_rate, momentum=0.9)
    return Adam([images], lr=attack.learning_rate)


def _distances(target: WhiteBox, images: Tensor, scores: Tensor, known: Tensor) -> Tensor:
    """Return the squared distance of known scores, (N,)."""
    return torch.where(known, target.logits(images).softmax(dim=1) - scores, 0.0).square().sum(dim=1)


def _penalties(attack: config.OptimizationAttack, images: Tensor) -> Tensor:
    """Return the weighted priors of images as they are, not as shifted, (N,)."""
    total = images.new_zeros(len(images))
    if attack.alpha_weight:
        total = total + attack.alpha_weight * priors.alpha_norm(images, attack.alpha)
    if attack.variation_weight:
        total = total + attack.variation_weight * priors.total_variation(images, attack.variation_beta)
    return total


def _cost_is_complete(attack: config.OptimizationAttack) -> bool:
    return not (attack.jitter or attack.blur or attack.clip_norm or attack.clip_contribution)


def _treated(attack: config.OptimizationAttack, images: Tensor, gradients: Tensor) -> Tensor:
    """Blur, then clip by norm, then by contribution, to which the step's own gradients serve once more."""
    if attack.blur:
        images = priors.blur(images, attack.blur)
    if attack.clip_norm:
        images = priors.clip_smallest(images, priors.pixel_norms(images), attack.clip_norm)
    if attack.clip_contribution:
        contributions = priors.contributions(images, gradients)
        images = priors.clip_smallest(images, contributions, attack.clip_contribution)
    return images

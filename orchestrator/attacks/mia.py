"""MIA: model inversion of Fredrikson, Jha and Ristenpart (2015), Algorithm 1, for many classes at once.

x <- Process(x - lambda * dc/dx), c(x) = 1 - F(x)_y; their alpha, beta, gamma, lambda are `steps`, `patience`,
`score` and `learning_rate`. Where we differ: pixels are clamped to [0, 1]; gamma bounds the score, since a
bound of 0.99 on the cost ends at once; patience begins when that many costs exist, as the algorithm names
costs before the first. There is no auxiliary term. The start is black, or the mean of their auxiliary images;
Process is theirs of faces, a median filter and unsharp masking, or nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.image_priors import denoise, sharpen
from orchestrator.attacks.pixel_search import BestImages, SearchResult, first_image, in_batches
from orchestrator.threat import WhiteBox


def invert(
    attack: config.MiaAttack,
    target: WhiteBox,
    scores: Tensor,
    m: int,
    shape: tuple[int, int, int],
    mean: Tensor | None = None,
) -> SearchResult:
    """Find the image (C, S, S) of lowest cost for the top class of each row of scores (N, k), from a grey
    level or from `mean` (C, S, S) in [0, 1], which the adversary has if the attack starts there.

    Only the class of a row is used, so m (the truncation of its scores) has no effect. `SearchResult.steps`
    is the number of the step after which a row stopped.
    """
    start = mean if isinstance(attack.start, str) else attack.start
    assert start is not None

    def descend(part: Tensor) -> SearchResult:
        classes = part.argmax(dim=1)
        # Noise by (seed, class): independent of the row's position and of the other rows.
        firsts = [first_image(start, attack.noise, shape, attack.seed, label) for label in classes.tolist()]
        return _descend(attack, target, classes, torch.stack(firsts))

    return in_batches(descend, scores, target.device)


@dataclass
class _Rows:
    """The n rows that have not stopped."""

    numbers: Tensor  # (n,) places in the batch
    classes: Tensor  # (n,)
    images: Tensor  # (n, C, S, S) in [0, 1]
    window: Tensor  # (n, patience), the latest cross-entropies, infinite until there are that many

    def drop(self, stopped: Tensor) -> None:
        """Remove the rows that are marked (n,), so that no further forward pass computes them."""
        if stopped.any():
            on = ~stopped
            self.numbers, self.classes = self.numbers[on], self.classes[on]
            self.images, self.window = self.images[on], self.window[on]


def _descend(attack: config.MiaAttack, target: WhiteBox, classes: Tensor, firsts: Tensor) -> SearchResult:
    """Descend from first images (N, C, S, S) for classes (N,) until every row has stopped."""
    rows = _begin(attack, classes.to(target.device), firsts.to(target.device))
    lowest = BestImages(rows.images)
    steps = torch.full_like(rows.classes, attack.steps)
    for step in range(attack.steps + 1):
        images = rows.images.requires_grad_()
        entropies = functional.cross_entropy(target.logits(images), rows.classes, reduction="none")
        lowest.offer(rows.numbers, images, entropies)
        stopped = _stopped(attack, entropies.detach(), rows.window)
        steps[rows.numbers[stopped]] = step
        if step == attack.steps or stopped.all():
            break
        (gradients,) = torch.autograd.grad(cost(attack, entropies).sum(), images)
        rows.images = _next(attack, images.detach(), gradients, step + 1)
        rows.window[:, step % attack.patience] = entropies.detach()
        rows.drop(stopped)
    costs = cost(attack, lowest.costs)
    return SearchResult(lowest.images.cpu(), steps.cpu(), costs.cpu(), queries=steps.cpu() + 1)


def _begin(attack: config.MiaAttack, classes: Tensor, firsts: Tensor) -> _Rows:
    return _Rows(
        numbers=torch.arange(len(classes), device=classes.device),
        classes=classes,
        images=firsts,
        window=torch.full((len(classes), attack.patience), torch.inf, device=classes.device),
    )


def cost(attack: config.MiaAttack, entropies: Tensor) -> Tensor:
    """Turn -log F(x)_y (n,) into the cost (n,)."""
    # Not expm1, whose slope torch takes from its rounded value: 0 for small scores.
    return entropies if attack.cost == "cross-entropy" else 1.0 - torch.exp(-entropies)


def _stopped(attack: config.MiaAttack, entropies: Tensor, window: Tensor) -> Tensor:
    """Mark the rows whose score suffices or whose cost is not below the largest in the window, (n,).

    Both costs rise with -log F(x)_y, so it is compared for both: 1 - F is 1 for every F below 6e-8.
    """
    return ((-entropies).exp() >= attack.score) | (entropies >= window.amax(dim=1))


def _next(attack: config.MiaAttack, images: Tensor, gradients: Tensor, step: int) -> Tensor:
    images = images - attack.learning_rate * gradients
    if attack.process == "denoise-sharpen" and step % attack.process_every == 0:
        images = sharpen(denoise(images))
    return images.clamp(0.0, 1.0)

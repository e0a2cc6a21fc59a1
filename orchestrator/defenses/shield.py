"""Stealthy Shield Defense, SSD (Zhuang et al., ICLR 2025, Algorithms 1 to 3), `config.Shield`.

Draw a class y of probability softmax(f / T) from an image's scores f; q is F's mean answer to images of y.
Release p that minimises KL(p || q) with ||p - f||_1 <= epsilon H(f): q itself if it is that near; otherwise
the scores below w_a q are raised to it and those above w_b q lowered to it, with w_a < w_b such that either
side moves half of the budget (water-filling, found by sorting f / q). Read in the paper and in the authors'
listing; computed in float64. Differences: they draw for each query, so that asking often averages the draw
out; here it follows from the image's 256 levels and a seed, so that an answer is the same whenever it is
asked for.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from orchestrator.config import Shield
from orchestrator.training.pairs import as_stored

Mover = Callable[[Tensor, Tensor], Tensor]
"""Images (N, C, S, S), uint8 or in [0, 1], and scores (N, k) of them -> the scores that leave the service."""

LEAST = 1e-30  # of a mean answer, which is divided by


def mover(shield: Shield, means: Tensor) -> Mover:
    """Return what moves answers towards class means (k, k), row y the mean scores of class y."""

    def moved(images: Tensor, scores: Tensor) -> Tensor:
        draws = image_draws(images, shield.seed).to(scores.device)
        return shielded(scores, draws, means.to(scores.device), shield)

    return moved


def shielded(scores: Tensor, draws: Tensor, means: Tensor, shield: Shield) -> Tensor:
    """Return scores (N, k) moved by draws (N,) in [0, 1) towards class means (k, k), float32 (N, k)."""
    exact = scores.double()
    labels = drawn_labels(exact, draws, shield.temperature)
    return moved_towards(exact, means.double()[labels], shield.budget * entropy(exact)).float()


def drawn_labels(scores: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """Return a class of each row of scores (N, k) by its draw (N,) in [0, 1) from softmax(scores / T)."""
    reached = (scores / temperature).softmax(dim=1).cumsum(dim=1)
    return (reached <= draws[:, None] * reached[:, -1:]).sum(dim=1).clamp_max(scores.shape[1] - 1)


def entropy(scores: Tensor) -> Tensor:
    """Return the entropy of each row of scores (N, k) in nats, (N,)."""
    return -torch.xlogy(scores, scores).sum(dim=1)


def moved_towards(scores: Tensor, goals: Tensor, budget: Tensor) -> Tensor:
    """Return the distributions (N, k) nearest to `goals` (N, k) by KL that are within an l1 distance (N,) of
    `scores` (N, k); each row sums to 1."""
    goals, half = goals.clamp_min(LEAST), (budget / 2)[:, None]
    floor, ceiling = (_level(scores, goals, half, sign) for sign in (1, -1))
    is_near = (scores - goals).abs().sum(1, keepdim=True) <= 2 * half
    return torch.where(is_near, goals, scores.clamp(floor * goals, ceiling * goals))


def _level(scores: Tensor, goals: Tensor, half: Tensor, sign: int) -> Tensor:
    """Return the ratio to goals (N, k), (N, 1), to which the lowest scores are raised (`sign` 1), or the
    highest lowered (-1), by `half` (N, 1) in all."""
    ratios, order = (scores / goals).sort(dim=1, descending=sign < 0)
    filled, base = scores.gather(1, order).cumsum(1), goals.gather(1, order).cumsum(1)
    # Moving the first j to the ratio of the next one takes more with every j.
    taken = sign * (ratios[:, 1:] * base[:, :-1] - filled[:, :-1])
    last = (taken <= half).sum(1, keepdim=True)
    return (filled.gather(1, last) + sign * half) / base.gather(1, last)


def image_draws(images: Tensor, seed: int) -> Tensor:
    """Return a number in [0, 1) for each image (N, C, S, S), uint8 or in [0, 1], by its 256 levels and a
    seed, float64 (N,)."""
    stored = images if images.dtype == torch.uint8 else as_stored(images)
    rows = stored.cpu().contiguous().flatten(1).numpy()
    key = seed.to_bytes(8, "little")
    words = (hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows)
    numbers = [(int.from_bytes(word, "little") >> 11) / 2**53 for word in words]
    return torch.tensor(numbers, dtype=torch.float64)


def class_means(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of scores (N, k) of each class of labels (N,), float64 (k, k), and how many images each
    class has, (k,); the mean of a class without any is 0."""
    k = scores.shape[1]
    sums = torch.zeros(k, k, dtype=torch.float64).index_add_(0, labels, scores.double())
    counts = labels.bincount(minlength=k)
    return sums / counts.clamp_min(1)[:, None], counts

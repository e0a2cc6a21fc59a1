"""Class count: a target's classes and their number, by its answers (AMI, section IV-B)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassCount:
    """Estimates of k from the top labels of answers."""

    seen: int
    """Distinct top labels: a lower bound of k, and AMI's estimate of it."""

    chao1: float
    """Chao's (1984) estimate, which adds the classes that were probably missed."""


def named_classes(scores: Tensor) -> Tensor:
    """Return the classes, ascending int64, that released scores (N, k) name: those with a score in some row.

    Of labels, or of m = 1, these are the distinct top labels; a full release names all k.
    """
    return (scores > 0).any(dim=0).nonzero()[:, 0]


def class_count(labels: Tensor) -> ClassCount:
    """Count the distinct labels (N,) int64 and estimate how many there are.

    Chao1 is S + f1^2 / (2 f2), with f1 and f2 the classes seen once and twice; without classes seen twice its
    bias-corrected form S + f1 (f1 - 1) / 2.
    """
    times = torch.bincount(labels)
    seen, once, twice = (int(count) for count in ((times > 0).sum(), (times == 1).sum(), (times == 2).sum()))
    missed = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    return ClassCount(seen, seen + missed)

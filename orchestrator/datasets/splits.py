"""Splits: every image of a data set is in `train`, `auxiliary` or `evaluation`, stratified by class.

Three parts, because an inverter trained on held-out images must not be tested on them again.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.config.base import Refused

PARTS = ("train", "auxiliary", "evaluation")
"""Parts by their code in a split file."""


def num_parts(fractions: Sequence[float]) -> int:
    """Return how many parts have images, which is how many every class needs."""
    return sum(fraction > 0 for fraction in fractions)


def make_split(
    labels: np.ndarray, fractions: Sequence[float], seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Return each image's part, (N,) uint8 positions in PARTS, for labels (N,) integers 0..K-1.

    Each class is divided by `fractions` as exactly as possible, with at least one image in each part of
    nonzero fraction. Raise `Refused`, with the class's name if there are K names, if a class is too small for
    that or the fractions are not three that sum to 1.
    """
    _check_fractions(fractions)
    needed = num_parts(fractions)
    sizes = np.bincount(labels)
    small = np.flatnonzero(sizes < needed)
    if small.size:
        name = class_names[small[0]] if class_names else small[0]
        few = f"{small.size} of {sizes.size} classes have fewer (class {name} has {sizes[small[0]]})"
        rule = f"need {needed} images in every class, but {few}"
        single = "use a split of one part such as default=1,0,0@0"
        way_out = f"leave small classes out with --min-images {needed} or {single}"
        raise Refused("split.fractions", _spell(fractions), rule, way_out)
    rng = np.random.default_rng(seed)
    codes = np.empty(labels.shape, dtype=np.uint8)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1]):
        codes[rng.permutation(members)] = np.repeat(np.arange(len(PARTS)), _shares(members.size, fractions))
    return codes


def _check_fractions(fractions: Sequence[float]) -> None:
    whole = abs(sum(fractions) - 1.0) < 1e-6
    if len(fractions) != len(PARTS) or min(fractions, default=0.0) < 0 or not whole:
        rule = f"must be three numbers >= 0 that sum to 1, for {', '.join(PARTS)}"
        raise Refused("split.fractions", _spell(fractions), rule, "write for instance 0.5,0.25,0.25")


def _shares(count: int, fractions: Sequence[float]) -> np.ndarray:
    """Divide `count` by largest remainder, then move one image of the largest part to each empty part."""
    exact = np.asarray(fractions, dtype=np.float64) * count
    shares = np.floor(exact + 1e-9).astype(np.int64)
    for part in np.argsort(shares - exact, kind="stable")[: count - shares.sum()]:
        shares[part] += 1
    for part, fraction in enumerate(fractions):
        if fraction > 0 and shares[part] == 0:
            shares[np.argmax(shares)] -= 1
            shares[part] = 1
    return shares


def _spell(fractions: Sequence[float]) -> str:
    return ",".join(f"{fraction:g}" for fraction in fractions)

"""Filtering: which images and classes of a source are kept, from what reading each image once has shown.

The size of a class is the number of its images that can be used and differ from each other, so that limits
apply to what is kept, not to files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchestrator.datasets.manifest import Options

PER_CLASS_SEED = 0
TOO_SMALL, TOO_LARGE, NOT_DRAWN = "class too small", "class too large", "beyond --per-class"


@dataclass(frozen=True, eq=False)
class Examined:
    """What is known of the N images of a source."""

    labels: np.ndarray  # (N,) int64
    num_classes: int
    contents: Sequence[str | None]  # digest of each image's pixels; None: not read, or unusable
    reasons: Mapping[int, str]  # index -> why an image that was read cannot be used


@dataclass(frozen=True, eq=False)
class Choice:
    """The images that are kept, and why others are not."""

    kept: np.ndarray  # (n,) int64, ascending indices
    stays: np.ndarray  # (K,) bool: classes that are kept
    dropped: Sequence[tuple[int, str]]  # index and reason, ascending


class Renumbered(NamedTuple):
    """Labels and names of the classes that are kept."""

    labels: np.ndarray  # (n,) int64
    class_names: tuple[str, ...]


def class_sizes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of images of each class, (K,) int64."""
    return np.bincount(labels, minlength=num_classes)


def within_limits(sizes: np.ndarray, options: Options) -> np.ndarray:
    """Return whether classes of these sizes are kept, (K,) bool."""
    return (sizes >= options.min_images) & (sizes <= (options.max_images or sizes.max(initial=0)))


def drawn(labels: np.ndarray, usable: np.ndarray, num_classes: int, options: Options) -> np.ndarray:
    """Return whether each image is among the `per_class` drawn of its class's usable ones, (N,) bool.

    labels (N,) integers, usable (N,) bool.
    """
    if options.per_class is None:
        return usable.copy()
    order = np.random.default_rng(PER_CLASS_SEED).permutation(len(labels))
    order = order[usable[order]]
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = class_sizes(labels[usable], num_classes)
    rank = np.arange(len(by_class)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class[rank < options.per_class]] = True
    return chosen


def choose(examined: Examined, options: Options) -> Choice:
    """Apply duplicates, limits and draws; a class that is left out makes no image of another a duplicate."""
    labels, num_classes = examined.labels, examined.num_classes
    is_readable = np.array([content is not None for content in examined.contents], dtype=bool)
    stays = class_sizes(labels, num_classes) >= options.min_images
    is_small = ~stays
    while True:
        repeats = _repeats(examined, stays, options)
        usable = is_readable & stays[labels]
        usable[list(repeats)] = False
        sizes = class_sizes(labels[usable], num_classes)
        leaves = stays & ~within_limits(sizes, options)
        if not leaves.any():
            break
        is_small |= leaves & (sizes < options.min_images)
        stays &= ~leaves
    kept = drawn(labels, usable, num_classes, options)
    reasons = {int(index): NOT_DRAWN for index in np.flatnonzero(~kept)}
    reasons |= repeats | dict(examined.reasons) | _left_out(examined, stays, is_small, options)
    return Choice(np.flatnonzero(kept), stays, sorted(reasons.items()))


def by_files(labels: np.ndarray, num_classes: int, options: Options) -> Choice:
    """Return the choice if every file, labels (N,), were an image unlike the others."""
    return choose(Examined(labels, num_classes, [str(index) for index in range(len(labels))], {}), options)


def renumbered(labels: np.ndarray, class_names: Sequence[str], choice: Choice) -> Renumbered:
    """Return labels (n,) int64 of the images kept, without the classes left out, and the others' names."""
    names = tuple(name for name, stays in zip(class_names, choice.stays, strict=True) if stays)
    return Renumbered((np.cumsum(choice.stays) - 1)[labels[choice.kept]].astype(np.int64), names)


def _repeats(examined: Examined, stays: np.ndarray, options: Options) -> dict[int, str]:
    """Return the images of staying classes that equal an earlier one: index -> reason."""
    seen: dict[str, int] = {}  # content -> label
    repeats = {}
    for index, content in enumerate(examined.contents):
        label = int(examined.labels[index])
        if content is None or not stays[label] or options.duplicates == "keep":
            continue
        if content in seen:
            repeats[index] = "duplicate" if seen[content] == label else "duplicate of another class"
        else:
            seen[content] = label
    return repeats


def _left_out(
    examined: Examined, stays: np.ndarray, is_small: np.ndarray, options: Options
) -> dict[int, str]:
    """Return the images of classes that are left out: index -> reason.

    Those that are unusable keep their own reason, unless the number of files alone is beyond the limits.
    """
    labels = examined.labels
    by_files = ~within_limits(class_sizes(labels, examined.num_classes), options)
    return {
        int(index): TOO_SMALL if is_small[labels[index]] else TOO_LARGE
        for index in np.flatnonzero(~stays[labels])
        if by_files[labels[index]] or index not in examined.reasons
    }

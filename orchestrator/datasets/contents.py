"""Contents: which images of sets equal each other as they are staged, found before anything is trained.

Every claim of privacy rests on images that somebody has not seen, and a set may hold one image several
times (`--duplicates keep`) or share some with another. Equal staged images are equal in every size, so that
no torch is needed; those that only become equal when they are converted are found by `selection`.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.config import Data
from orchestrator.config.base import Refused
from orchestrator.datasets.catalog import Dataset
from orchestrator.datasets.classes import private_classes, public_classes
from orchestrator.datasets.splits import PARTS

CHUNK = 1024  # images in memory at a time


def check_prior_contents(private: Dataset, other: Dataset | None, data: Data, k: int) -> None:
    """Raise `Refused` if images that a prior is trained on equal ones that the target was trained or is
    evaluated on: all of `other`, or the private set's public classes without their evaluation part."""
    public = () if other else public_classes(private, data)
    trained_on = digests(other) if other else of_classes(private, data, public, ("train", "auxiliary"))
    for part in ("train", "evaluation"):
        known = set(of_classes(private, data, private_classes(private, data, k), (part,)))
        if shared := sum(one in known for one in trained_on):
            equal = f"{shared} of {len(trained_on)} equal one of its {part} images"
            name = other.description.name if other else "null"
            raise not_unseen("prior.dataset", name, equal, private, "prior.dataset")


def check_judge_contents(
    private: Dataset, data: Data, k: int, others: Mapping[str, Sequence[bytes]], field: str
) -> None:
    """Raise `Refused` of a judge's `field` if images of the target's classes in the part `auxiliary` equal
    some that the target is trained on, or `others` that the adversary has, in words -> digests."""
    classes = private_classes(private, data, k)
    judged = of_classes(private, data, classes, ("auxiliary",))
    seen = {"the target's images": of_classes(private, data, classes, ("train",)), **others}
    for words, images in seen.items():
        known = set(images)
        if shared := sum(one in known for one in judged):
            rule = f"promises images that neither target nor adversary has, but {shared} of {len(judged)} "
            way_out = f"use train, or stage {private.description.name} again without duplicates"
            raise Refused(field, "auxiliary", f"{rule}equal one of {words}", way_out)


def not_unseen(field: str, value: str, equal: str, private: Dataset, source: str) -> Refused:
    """Return the refusal of images that are promised to be unknown to the target, some of which are not."""
    rule = f"promises images unknown to the target, but {equal}"
    again = f"stage {private.description.name} again without duplicates"
    return Refused(field, value, rule, f"choose another {source} or {again}")


@functools.lru_cache(maxsize=8)
def digests(dataset: Dataset) -> tuple[bytes, ...]:
    """Return the SHA-256 of every image of a set as it is staged."""
    starts = range(0, len(dataset.labels), CHUNK)
    parts = (dataset.images[start : start + CHUNK] for start in starts)
    return tuple(hashlib.sha256(image.tobytes()).digest() for part in parts for image in part)


def of_classes(
    dataset: Dataset, data: Data, classes: Sequence[int], parts: Sequence[str] | None
) -> Sequence[bytes]:
    """Return the digests of the images of some classes in some parts; None takes every part."""
    chosen = np.isin(dataset.labels, classes)
    if parts is not None:
        chosen &= np.isin(dataset.splits[data.split], [PARTS.index(part) for part in parts])
    every = digests(dataset)
    return [every[place] for place in np.flatnonzero(chosen)]

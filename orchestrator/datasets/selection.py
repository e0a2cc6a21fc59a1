"""Selection: images for the target, the evaluation model, pretraining and the adversary (AMI, section 4.2).

The overlap that an auxiliary kind excludes is checked on class names and on pixels, because every privacy
claim rests on it. The functions raise `Refused` if the set lacks the classes, the split or images of a part.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from orchestrator.config import Auxiliary, Data, Prior
from orchestrator.config.base import Refused
from orchestrator.datasets.catalog import Dataset
from orchestrator.datasets.classes import (
    PRIVATE_PARTS,
    SAME_PARTS,
    auxiliary_dataset_name,
    check_auxiliary,
    check_data,
    check_labelled,
    check_public,
    class_order,
    classes_map,
    no_images,
    other_classes,
    private_classes,
    public_classes,
    shared_identities,
)
from orchestrator.datasets.contents import not_unseen
from orchestrator.datasets.gathered import Images, at, gather, joined
from orchestrator.datasets.images import CHUNK, prepare, rescale
from orchestrator.datasets.splits import PARTS

__all__ = [
    "ImageSet",
    "auxiliary_dataset_name",
    "auxiliary_images",
    "check_prior_images",
    "class_counts",
    "class_order",
    "classes_map",
    "judge_images",
    "prior_images",
    "private_classes",
    "public_classes",
    "public_images",
    "shared_identities",
    "target_images",
    "whole",
]

MOST_KEPT_BYTES = 256 * 2**20
"""Of a set's converted images that are kept for the next stage."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of a network's size and channels, with labels 0..num_classes-1."""

    images: Images  # (N, C, S, S) uint8; more than fit `HELD_BYTES` are read a batch at a time
    labels: torch.Tensor  # (N,) int64
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, index: torch.Tensor) -> "ImageSet":
        """Return the images at positions (n,) int64, in that order."""
        return ImageSet(at(self.images, index), self.labels[index], self.num_classes)


def target_images(dataset: Dataset, data: Data, k: int, part: str) -> ImageSet:
    """Return the private images of one part, (N, C, S, S) uint8; label i is the i-th private class."""
    return _pick(dataset, data, private_classes(dataset, data, k), (part,))


def public_images(dataset: Dataset, data: Data) -> ImageSet:
    """Return the public classes' train and auxiliary images, (N, C, S, S) uint8, for pretraining.

    The evaluation part, on which the evaluation model is tested, is left out.
    """
    check_public(dataset.description, data, "public training on the private data set")
    return _pick(dataset, data, public_classes(dataset, data), ("train", "auxiliary"))


def judge_images(dataset: Dataset, data: Data, part: str) -> ImageSet:
    """Return one part of every class, (N, C, S, S) uint8, under original labels."""
    return _pick(dataset, data, range(dataset.description.num_classes), (part,))


def class_counts(dataset: Dataset, data: Data, part: str) -> np.ndarray:
    """Return how many images of one part each class of the set has, int64 (K,) of its K, by original id."""
    is_of_part = dataset.splits[data.split] == PARTS.index(part)
    return np.bincount(dataset.labels[is_of_part], minlength=dataset.description.num_classes)


def whole(dataset: Dataset, data: Data) -> ImageSet:
    """Return all images of a set with classes, (N, C, S, S) uint8, prepared like those of the private set."""
    check_labelled(dataset.description, "target.pretrain.dataset")
    return _pick(dataset, data, range(dataset.description.num_classes), None)


def prior_images(dataset: Dataset, data: Data, prior: Prior) -> Images:
    """Return the public images that a prior is trained on, (N, C, S, S) uint8.

    All of the set that it names, or the private set's public classes without their evaluation part.
    """
    if prior.dataset is None:
        return public_images(dataset, data).images
    return _pick(dataset, data, range(dataset.description.num_classes), None).images


def auxiliary_images(
    private: Dataset, other: Dataset | None, data: Data, k: int, auxiliary: Auxiliary
) -> ImageSet:
    """Return the adversary's first `auxiliary.size` images in seeded order, (N, C, S, S) uint8.

    Smaller sets are nested in larger ones. `other` is the set named by `auxiliary_dataset_name`. Labels are
    for reference only: private classes come first, others are numbered after them. Raise `Refused` if the
    size exceeds the images, or if an image that must be unknown to the target is not.
    """
    everything = _of_kind(private, other, data, k, auxiliary)
    available = len(everything)
    size = available if auxiliary.size is None else auxiliary.size
    if size > available:
        rule = f"must lie in 1..{available}, the images of kind {auxiliary.kind}"
        raise Refused("auxiliary.size", size, rule, "lower auxiliary.size or use null for all")
    order = torch.from_numpy(np.random.default_rng(auxiliary.seed).permutation(available)[:size])
    return everything.at(order)


def _of_kind(private: Dataset, other: Dataset | None, data: Data, k: int, auxiliary: Auxiliary) -> ImageSet:
    check_auxiliary(private.description, data, auxiliary)
    if SAME_PARTS.get(auxiliary.kind) == "train":
        return target_images(private, data, k, "train")
    unseen = _unseen(private, other, data, k, auxiliary)
    _check_unseen(private, other, data, k, auxiliary.but(size=None, seed=0))
    if auxiliary.kind == "augmented":
        return _join(target_images(private, data, k, PRIVATE_PARTS[auxiliary.kind]), unseen)
    return unseen


def _unseen(private: Dataset, other: Dataset | None, data: Data, k: int, auxiliary: Auxiliary) -> ImageSet:
    part = SAME_PARTS.get(auxiliary.kind)
    if part is not None:
        return target_images(private, data, k, part)
    classes = other_classes(private, other, data, auxiliary)
    return _pick(private if other is None else other, data, classes, None)


@functools.lru_cache(maxsize=64)
def _check_unseen(private: Dataset, other: Dataset | None, data: Data, k: int, auxiliary: Auxiliary) -> None:
    """Raise `Refused` if images equal ones that the target was trained or is evaluated on.

    The kind `same-test` consists of the evaluation images and is compared with the training images only.
    What was compared once in a process is not read again: several stages of a trial select the same images.
    """
    parts = ("train",) if auxiliary.kind == "same-test" else ("train", "evaluation")
    unseen = _unseen(private, other, data, k, auxiliary).images
    equal = _known(unseen, private, data, k, parts)
    if equal:
        raise not_unseen("auxiliary.kind", auxiliary.kind, equal, private, "auxiliary.dataset")


@functools.lru_cache(maxsize=64)
def check_prior_images(private: Dataset, other: Dataset | None, data: Data, k: int) -> None:
    """Raise `Refused` if a prior's images equal ones that the target was trained or is evaluated on.

    They are all of `other`, the set that `prior.dataset` names, or the private set's public classes. Their
    pixels are compared before `data.normalisation`, which differs between sets that share images.
    """
    data, name = data.but(normalisation="fixed"), other.description.name if other else None
    images = prior_images(other or private, data, Prior(dataset=name))
    equal = _known(images, private, data, k, ("train", "evaluation"))
    if equal:
        raise not_unseen("prior.dataset", name or "null", equal, private, "prior.dataset")


def _known(images: Images, private: Dataset, data: Data, k: int, parts: Sequence[str]) -> str | None:
    """Return how many of the images equal private ones of the first part that holds any, in words."""
    for part in parts:
        known = set(_contents(target_images(private, data, k, part).images))
        shared = sum(content in known for content in _contents(images))
        if shared:
            return f"{shared} of {len(images)} equal one of its {part} images"
    return None


def _contents(images: Images) -> Iterator[bytes]:
    return (hashlib.sha256(image).digest() for part in images.split(CHUNK) for image in part.numpy())


def _join(first: ImageSet, second: ImageSet) -> ImageSet:
    return ImageSet(
        images=joined(first.images, second.images),
        labels=torch.cat([first.labels, second.labels + first.num_classes]),
        num_classes=first.num_classes + second.num_classes,
    )


def _pick(dataset: Dataset, data: Data, classes: Sequence[int], parts: tuple[str, ...] | None) -> ImageSet:
    """Select by class and part, in stored order; labels are positions in `classes`; None takes every part."""
    position = np.full(dataset.description.num_classes, -1, dtype=np.int64)
    position[list(classes)] = np.arange(len(classes))
    labels = position[dataset.labels]
    chosen = labels >= 0
    if parts is not None:
        check_data(dataset.description, data, 1)
        chosen &= np.isin(dataset.splits[data.split], [PARTS.index(part) for part in parts])
        if not chosen.any():
            raise no_images(dataset.description, data, parts)
    positions = torch.from_numpy(np.flatnonzero(chosen))
    image_shape = (data.channels, data.image_size, data.image_size)
    images = gather(_Reading(dataset, data), positions, image_shape)
    return ImageSet(images, torch.from_numpy(labels[chosen]), len(classes))


class _Reading:
    """Reads images of a set and converts them for a network; all of a small set are converted once."""

    def __init__(self, dataset: Dataset, data: Data) -> None:
        self._dataset, self._size, self._channels = dataset, data.image_size, data.channels
        num_bytes = len(dataset.images) * data.channels * data.image_size**2
        is_alike = dataset.images.shape[1:] == (data.image_size, data.image_size, data.channels)
        self._is_kept = num_bytes <= MOST_KEPT_BYTES and not is_alike
        self._extremes = None
        if data.normalisation == "per-position":
            self._extremes = _extremes(dataset, data.image_size, data.channels)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the images at positions (n,) int64, (n, C, S, S) uint8."""
        if self._is_kept:
            images = _every(self._dataset, self._size, self._channels)[positions]
        else:
            images = prepare(self._dataset.images[positions.numpy()], self._size, self._channels)
        return rescale(images, *self._extremes) if self._extremes else images


@functools.lru_cache(maxsize=4)
def _every(dataset: Dataset, size: int, channels: int) -> torch.Tensor:
    """Return all images of a set as `prepare` does: each stage of a sweep selects from the same ones."""
    return prepare(dataset.images, size, channels)


@functools.lru_cache(maxsize=8)
def _extremes(dataset: Dataset, size: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and greatest value of each position over a whole set, (C, S, S) uint8 each."""
    least = torch.full((channels, size, size), 255, dtype=torch.uint8)
    greatest = torch.zeros_like(least)
    for start in range(0, len(dataset.images), CHUNK):
        part = prepare(dataset.images[start : start + CHUNK], size, channels)
        least, greatest = torch.minimum(least, part.amin(0)), torch.maximum(greatest, part.amax(0))
    return least, greatest

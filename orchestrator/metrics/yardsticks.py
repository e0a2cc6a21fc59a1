"""Yardsticks: errors of guesses that need no training, made of the adversary's own images and their scores.

A trained attack that does no better gained nothing over a look-up. A guess never uses the private
image itself: where the adversary holds that very image, its pixels are left out, since a look-up would return
it with error 0. Images are uint8, scores as released, labels their largest entries (the lower of equal ones);
sums and errors are float64.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from orchestrator.training.pairs import Rows

BINS = 4
"""Bins of the top score within each label, between its quantiles."""

GREY = 127.5
"""The constant guess of an adversary without images, in 0..255."""

CHUNK = 128  # images whose guesses are in memory at a time


@dataclass(frozen=True, eq=False)
class Owned:
    """The adversary's images (A, C, S, S) uint8, A >= 1, with what the target released for them, (A, k)."""

    images: Rows
    scores: np.ndarray

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """Return the images at places (n,) in rows, uint8 (n, P)."""
        return _pixels(self.images, places)

    @cached_property
    def labels(self) -> np.ndarray:
        """Released labels, int64 (A,) in 0..k-1."""
        labels: np.ndarray = self.scores.argmax(axis=1)
        return labels

    @cached_property
    def edges(self) -> np.ndarray:
        """Quantiles between the bins of each label's top scores, (k, BINS - 1); 0 for a label of no image."""
        top, edges = self.scores.max(axis=1), np.zeros((self.scores.shape[1], BINS - 1))
        for label in np.unique(self.labels):
            edges[label] = np.quantile(top[self.labels == label], np.arange(1, BINS) / BINS)
        return edges

    @cached_property
    def cells(self) -> np.ndarray:
        """Label and score bin of each image as one number, int64 (A,) in 0..k*BINS-1."""
        return self.cells_of(self.scores)

    def cells_of(self, scores: np.ndarray) -> np.ndarray:
        """Return label and score bin of scores (N, k) as one number, int64 (N,) in 0..k*BINS-1."""
        labels = scores.argmax(axis=1)
        bins = (scores.max(axis=1)[:, None] >= self.edges[labels]).sum(axis=1)
        return labels * BINS + bins

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of images by label and score bin, float64 (k, BINS, P), and their numbers, int64 (k, BINS)."""
        k = self.scores.shape[1]
        sums, counts = grouped(self.images, self.cells, k * BINS)
        return sums.reshape(k, BINS, -1), counts.reshape(k, BINS)

    @cached_property
    def label_sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of images by label, float64 (k, P), and their numbers, int64 (k,)."""
        return self.sums[0].sum(axis=1), self.sums[1].sum(axis=1)

    @cached_property
    def total(self) -> np.ndarray:
        """Sum of all images, float64 (1, P)."""
        total: np.ndarray = self.label_sums[0].sum(axis=0, keepdims=True)
        return total


def constant_errors(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the error of mid-grey, all that an adversary without images has, at images (N, C, S, S) uint8:
    `grey` -> squared intensity with pixels in [0, 1], float64 (N,)."""
    return {"grey": _errors(images.reshape(len(images), -1), np.float64(GREY))}


def look_up_errors(owned: Owned, images: torch.Tensor, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return the errors of guesses for private images (N, C, S, S) uint8 with released scores (N, k):
    guess -> squared intensity with pixels in [0, 1], float64 (N,).

    `mean` is the adversary's mean image; `label` that of the released label, `mean` where it has none;
    `bins` that of label and score bin, `label` where there is none; `nearest` its image with the nearest
    released scores (Euclidean, the first of equals), `mean` where it has no other image.
    """
    pixels = images.numpy().reshape(len(images), -1)
    owned_contents, contents = _contents(owned.images, images)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        is_held: np.ndarray = np.equal(contents[part, None], owned_contents)
        guesses = _guesses(owned, pixels[part], scores[part], is_held)
        parts.append({name: _errors(pixels[part], guess) for name, guess in guesses})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def class_guesses(owned: Owned, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return images of classes (N,) int64 that need no training, guess -> float32 (N, C, S, S) in [0, 1].

    `label` is the mean of the adversary's images that the target gives the class, `random` one of them, drawn
    for each; of a class that no image was given, the mean or one of all images.
    """
    generator = np.random.default_rng(seed)
    sums, counts = (part[labels] for part in owned.label_sums)
    means = np.repeat(owned.total / len(owned.images), len(labels), axis=0)
    of_label = np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)
    given = [np.flatnonzero(owned.labels == label) for label in labels]
    chosen = [generator.choice(places if len(places) else len(owned.labels)) for places in given]
    shape = (len(labels), *owned.images.shape[1:])
    guesses = {"label": of_label, "random": owned.pixels(np.array(chosen))}
    return {name: (guess / 255.0).astype(np.float32).reshape(shape) for name, guess in guesses.items()}


def class_errors(
    guesses: np.ndarray, labels: np.ndarray, training: Rows, training_labels: np.ndarray
) -> np.ndarray:
    """Return the squared distance of guesses (N, C, S, S) in [0, 1] of classes (N,) to the class's mean
    training image, float64 (N,); training images (M, C, S, S) are uint8, their labels (M,) in 0..k-1.

    Raise `ValueError` if a class has no training image.
    """
    sums, counts = grouped(training, training_labels, int(training_labels.max()) + 1)
    if not set(labels.tolist()) <= set(training_labels.tolist()):
        raise ValueError("a class has no training image to compare with.")
    means = sums[labels] / counts[labels, None] / 255.0
    distances: np.ndarray = np.square(guesses.reshape(len(labels), -1) - means).mean(axis=1)
    return distances


def grouped(images: Rows, groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of images (N, ...) of P values by group, (N,) in 0..num_groups-1, float64 (num_groups, P),
    and the groups' sizes, int64 (num_groups,)."""
    sums = np.zeros((num_groups, math.prod(images.shape[1:])))
    order = np.argsort(groups, kind="stable")
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        members = groups[part]
        starts = np.flatnonzero(np.diff(members, prepend=-1))
        sums[members[starts]] += np.add.reduceat(_pixels(images, part).astype(np.float64), starts, axis=0)
    return sums, np.bincount(groups, minlength=num_groups)


def _guesses(
    owned: Owned, pixels: np.ndarray, scores: np.ndarray, is_held: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield guesses (n, P) in 0..255 of private images (n, P) whose very pixels are `is_held` (n, A)."""
    labels, cells = scores.argmax(axis=1), owned.cells_of(scores)
    (by_cell, in_cell), (by_label, in_label) = owned.sums, owned.label_sums
    grey = np.full(pixels.shape, GREY)
    size = np.array([len(owned.images)])
    mean = _mean_of_others(owned.total, size, pixels, is_held.sum(axis=1), grey)
    yield "mean", mean
    held = (is_held & (owned.labels == labels[:, None])).sum(axis=1)
    of_label = _mean_of_others(by_label[labels], in_label[labels], pixels, held, mean)
    yield "label", of_label
    held, places = (is_held & (owned.cells == cells[:, None])).sum(axis=1), (labels, cells % BINS)
    yield "bins", _mean_of_others(by_cell[places], in_cell[places], pixels, held, of_label)
    others = np.where(is_held, np.inf, _distances(scores, owned.scores))
    nearest = owned.pixels(others.argmin(axis=1)).astype(np.float64)
    yield "nearest", np.where(is_held.all(axis=1, keepdims=True), mean, nearest)


def _mean_of_others(
    sums: np.ndarray, counts: np.ndarray, pixels: np.ndarray, held: np.ndarray, otherwise: np.ndarray
) -> np.ndarray:
    """Return means (n, P) of groups with these sums and sizes without `held` (n,) copies of the image itself;
    `otherwise` (n, P) where nothing is left."""
    left = (counts - held)[:, None]
    own = sums - held[:, None] * pixels.astype(np.float64)
    return np.divide(own, left, out=otherwise.copy(), where=left > 0)


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return squared Euclidean distances of rows (n, k) and (A, k), float64 (n, A)."""
    some, others = some.astype(np.float64), others.astype(np.float64)
    squares = np.square(some).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    distances: np.ndarray = squares - 2.0 * (some @ others.T)
    return distances


def _contents(some: Rows, others: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of the contents of images (A, ...) and (N, ...), (A,) and (N,): equal ones have one
    number."""
    digests = [
        hashlib.sha256(image).digest()
        for images in (some, others)
        for part in images.split(CHUNK)
        for image in part.numpy()
    ]
    numbers = np.unique(np.frombuffer(b"".join(digests), dtype="V32"), return_inverse=True)[1]
    return numbers[: len(some)], numbers[len(some) :]


def _pixels(images: Rows, places: np.ndarray) -> np.ndarray:
    """Return images at places (n,) in rows, (n, P)."""
    pixels: np.ndarray = images[torch.from_numpy(places)].numpy()
    return pixels.reshape(len(places), -1)


def _errors(pixels: np.ndarray, guess: np.ndarray | np.float64) -> np.ndarray:
    """Return mean squared differences of rows (n, P), in squared intensity with pixels in [0, 1]."""
    errors: np.ndarray = np.square((pixels.astype(np.float64) - guess) / 255.0).mean(axis=1)
    return errors

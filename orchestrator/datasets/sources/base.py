"""Source: what a reader of a file format returns to the staging, labels at once, images one by one."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused

UNLABELLED = "unlabelled"  # the one class of images without classes
Crop = tuple[int, int, int]  # left, top, side in pixels


class BadImage(Refused):
    """An image that cannot be used; `reason` is its short name in the counts of dropped images.

    With `--on-bad skip` the image is dropped and counted instead.
    """

    def __init__(self, field: str, value: object, rule: str, way_out: str, reason: str = "bad image") -> None:
        super().__init__(field, value, rule, way_out)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels 0..len(class_names)-1, read one at a time."""

    kind: str  # format, such as `image-folder`; in the manifest
    name: str  # default name of the staged set
    class_names: tuple[str, ...]
    labels: np.ndarray  # (N,) int64
    read: Callable[[int], np.ndarray]  # index -> (H, W, C) uint8; raises BadImage
    label_of: Callable[[int], str]  # index -> the image's name in messages
    fingerprint: str  # SHA-256 over names and bytes of the source's files
    splits: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Published splits: name -> (N,) positions in PARTS."""

    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason -> names of listed or present files that are not images of the set."""

    crop: Crop | None = None  # default of --crop
    stretch: bool = False  # default of --stretch

    def unlabelled(self) -> "Source":
        """Return the same images in one class, without the published splits."""
        return replace(self, class_names=(UNLABELLED,), labels=np.zeros_like(self.labels), splits={})

    def renamed(self, name: str) -> "Source":
        """Return the same images under another default name."""
        return replace(self, name=name)

    def restricted(self, kept: np.ndarray, classes: Sequence[int], reason: str) -> "Source":
        """Return the images at ascending positions (n,) int64 only, all others left out for `reason`.

        `classes` are the labels of the classes that stay, in their new order; those of the images kept are
        among them.
        """
        number = np.full(len(self.class_names), -1, dtype=np.int64)
        number[list(classes)] = np.arange(len(classes))
        removed = np.setdiff1d(np.arange(len(self.labels)), kept)
        names = (*self.left_out.get(reason, ()), *(self.label_of(int(index)) for index in removed))
        return replace(
            self,
            class_names=tuple(self.class_names[one] for one in classes),
            labels=number[self.labels[kept]],
            read=lambda index: self.read(int(kept[index])),
            label_of=lambda index: self.label_of(int(kept[index])),
            splits={split: codes[kept] for split, codes in self.splits.items()},
            left_out={**self.left_out, reason: names},
        )

    def converted(self, convert: Callable[[np.ndarray, str], np.ndarray]) -> "Source":
        """Return the same source with `convert(image, name)` applied to every image (H, W, C) uint8 read."""
        return replace(self, read=lambda index: convert(self.read(index), self.label_of(index)))


def array_source(
    kind: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Iterable[str],
    fingerprint: str,
    splits: Mapping[str, np.ndarray] | None = None,
) -> Source:
    """Return images that are in memory as a source.

    images (N, H, W, C) uint8; labels (N,) integers; splits: name -> (N,) positions in PARTS.
    """
    return Source(
        kind=kind,
        name=kind,
        class_names=tuple(class_names),
        labels=labels.astype(np.int64),
        read=lambda index: images[index],
        label_of=lambda index: f"image {index}",
        fingerprint=fingerprint,
        splits=splits or {},
    )


def fingerprint_of(parts: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 hex digest over names and contents, in the given order."""
    whole = hashlib.sha256()
    for name, data in parts:
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()


def check_labels(labels: np.ndarray, class_names: tuple[str, ...], where: str) -> None:
    """Raise `Refused` unless the labels (N,) are exactly 0..K-1 for K class names.

    K is at least 2, or 1 for images without classes.
    """
    num_classes = len(class_names)
    if labels.size == 0:
        way_out = "check the source, --exclude, --min-images, --max-images"
        raise Refused(where, NO_VALUE, "has no images", way_out)
    if num_classes < 2 and class_names != (UNLABELLED,):
        rule = f"has {num_classes} class(es), but a classifier needs at least 2"
        raise Refused(where, NO_VALUE, rule, "add classes")
    if labels.min() < 0 or labels.max() >= num_classes:
        bad = int(labels.min() if labels.min() < 0 else labels.max())
        rule = f"has label {bad}, but labels must lie in 0..{num_classes - 1}, one per class name"
        raise Refused(where, NO_VALUE, rule, "renumber the labels")
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if missing.size:
        rule = (
            f"has no image of class {missing[0]} ({class_names[missing[0]]}), and {missing.size} of "
            f"{num_classes} classes are empty"
        )
        raise Refused(where, NO_VALUE, rule, "renumber the labels without gaps")

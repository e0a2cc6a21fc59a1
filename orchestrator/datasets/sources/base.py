"""What a reader of some file format hands to the staging: labels first, images one by one."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

Crop = tuple[int, int, int]  # left, top, side in pixels


class BadImage(ValueError):
    """A file that is not an acceptable image; `reason` is its short name in the counts."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels 0..len(class_names)-1 that can be read one after another."""

    kind: str
    name: str  # default name of the staged set
    class_names: tuple[str, ...]
    labels: np.ndarray  # (N,) int64
    read: Callable[[int], np.ndarray]  # index -> (H, W, C) uint8; raises BadImage
    label_of: Callable[[int], str]  # index -> what to call the image in a message
    fingerprint: str  # SHA-256 over names and bytes of the source's files
    splits: Mapping[str, np.ndarray] = field(default_factory=dict)  # part codes that the source itself fixes
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> what is no image here
    crop: Crop | None = None  # applied unless another is asked for
    stretch: bool = False  # images are not square on purpose

    def renamed(self, name: str) -> "Source":
        """Return the same images under another default name."""
        return replace(self, name=name)

    def converted(self, convert: Callable[[np.ndarray, str], np.ndarray]) -> "Source":
        """Return the same source with every image passed through `convert` with what to call it."""
        return replace(self, read=lambda index: convert(self.read(index), self.label_of(index)))


def array_source(
    kind: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Iterable[str],
    fingerprint: str,
    splits: Mapping[str, np.ndarray] | None = None,
) -> Source:
    """Wrap images that are in memory, (N, H, W, C) uint8."""
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
    """Digest names and contents in the given order."""
    whole = hashlib.sha256()
    for name, data in parts:
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()


def check_labels(labels: np.ndarray, class_names: tuple[str, ...], where: str) -> None:
    """Raise unless the labels are exactly 0..K-1 for K class names, K >= 2."""
    num_classes = len(class_names)
    if labels.size == 0:
        raise ValueError(f"{where} has no images; check the source, --exclude, --min-images, --max-images.")
    if num_classes < 2:
        raise ValueError(
            f"{where} has {num_classes} class(es), but a classifier needs at least 2; add classes."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        bad = int(labels.min() if labels.min() < 0 else labels.max())
        raise ValueError(
            f"{where} has label {bad}, but labels must lie in 0..{num_classes - 1}, one per class name; "
            "renumber the labels."
        )
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if missing.size:
        raise ValueError(
            f"{where} has no image of class {missing[0]} ({class_names[missing[0]]}), and {missing.size} of "
            f"{num_classes} classes are empty; renumber the labels without gaps."
        )

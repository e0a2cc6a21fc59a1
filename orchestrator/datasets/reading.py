"""Reading: every image of a source examined before any is written, and held for that where memory allows."""

from collections.abc import Callable, Iterable

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.filtering import Examined, by_files, class_sizes
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources.base import BadImage, Source
from orchestrator.store.blobs import sha256

HELD_BYTES = 512 * 2**20  # images beyond are read a second time

Progress = Callable[[Iterable[int]], Iterable[int]]


class Reader:
    """Images of a source, with what is known of them."""

    def __init__(self, source: Source, options: Options) -> None:
        self._source, self._options = source, options
        self._reasons: dict[int, str] = {}
        self._errors: dict[int, BadImage] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._held: dict[int, np.ndarray] = {}
        self._room = HELD_BYTES

    def examine(self, progress: Progress = iter) -> Examined:
        """Read each image of the classes that have enough files.

        With `options.on_bad` `error` raise `BadImage` of the first that is kept if all files are images;
        others count as images until `check`.
        """
        labels, num_classes = self._source.labels, len(self._source.class_names)
        has_enough = class_sizes(labels, num_classes) >= self._options.min_images
        is_expected = np.zeros(len(labels), dtype=bool)
        is_expected[by_files(labels, num_classes, self._options).kept] = True
        contents: list[str | None] = [None] * len(labels)
        for index in progress(range(len(labels))):
            if has_enough[labels[index]]:
                contents[index] = self._examine(index, is_expected=bool(is_expected[index]))
        return Examined(labels, num_classes, contents, self._reasons)

    def _examine(self, index: int, *, is_expected: bool) -> str | None:
        """Return the digest of an image's pixels, or None if it cannot be used."""
        try:
            image = self._source.read(index)
        except BadImage as error:
            if self._options.on_bad == "skip":
                self._reasons[index] = error.reason
                return None
            if is_expected:
                raise
            self._errors[index] = error
            return f"bad image {index}"
        self._shapes[index] = image.shape
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._held[index] = image
        return sha256(image.tobytes())

    def check(self, kept: np.ndarray, name: str) -> None:
        """Raise `BadImage` or `Refused` unless the images kept, (n,) indices, exist and have one shape.

        `name` is the set's.
        """
        bad = [self._errors[index] for index in kept.tolist() if index in self._errors]
        if bad:
            raise bad[0]
        shapes = list(dict.fromkeys(self._shapes[index] for index in kept.tolist()))
        if len(shapes) > 1:
            first, second = ("x".join(map(str, shape)) for shape in shapes[:2])
            rule = f"differ in size or channels ({first} and {second})"
            raise Refused(f"images of {name}", NO_VALUE, rule, "pass --size and --channels")

    def image(self, index: int) -> np.ndarray:
        """Return an image that is kept, (H, W, C) uint8, once."""
        image = self._held.pop(index, None)
        return self._source.read(index) if image is None else image

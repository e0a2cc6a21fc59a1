"""Image counts: how many images of each kind the data sets of a plan have; reads labels and splits only."""

from collections.abc import Mapping

import numpy as np

from orchestrator.config import Auxiliary, Data, Target
from orchestrator.datasets import PARTS, Description, Labels, Location, load_labels
from orchestrator.datasets.classes import (
    SAME_PARTS,
    auxiliary_dataset_name,
    other_classes,
    private_classes,
    public_classes,
)


class ImageCounts:
    """Implements `stages.workload.Sizes` for sets that have been described; each count is made once."""

    def __init__(self, location: Location, descriptions: Mapping[str, Description]) -> None:
        self._location, self._descriptions = location, descriptions
        self._labels: dict[str, Labels] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def stand_in(self, name: str, labels: Labels) -> None:
        """Take labels for those of a set that is not staged."""
        self._labels[name] = labels

    def labels(self, name: str) -> Labels:
        """Return the labels and splits of a set."""
        if name not in self._labels:
            self._labels[name] = load_labels(name, self._location)
        return self._labels[name]

    def private(self, data: Data, classes: int, part: str) -> int:
        """Return how many images one part of the target's classes has."""
        same = ("private", data.text, str(classes), part)
        if same not in self._counts:
            ids = private_classes(self._descriptions[data.dataset], data, classes)
            self._counts[same] = self._in_part(data, part, ids)
        return self._counts[same]

    def every(self, data: Data, part: str) -> int:
        """Return how many images one part of all classes has."""
        same = ("every", data.dataset, data.split, part)
        if same not in self._counts:
            self._counts[same] = self._in_part(data, part, None)
        return self._counts[same]

    def public(self, data: Data) -> int:
        """Return how many images the public classes have, those of the evaluation part left out."""
        same = ("public", data.text)
        if same not in self._counts:
            labels, splits = self.labels(data.dataset)
            is_public = np.isin(labels, public_classes(self._descriptions[data.dataset], data))
            self._counts[same] = int((is_public & (splits[data.split] != PARTS.index("evaluation"))).sum())
        return self._counts[same]

    def whole(self, name: str) -> int:
        """Return how many images a set has."""
        return self._descriptions[name].num_images

    def auxiliary(self, data: Data, target: Target, auxiliary: Auxiliary) -> int:
        """Return how many images the adversary has."""
        if auxiliary.size is not None:
            return auxiliary.size
        return self.available(data, target, auxiliary)

    def available(self, data: Data, target: Target, auxiliary: Auxiliary) -> int:
        """Return how many images the adversary has before `size` cuts; raise `Refused` if private classes are
        among those that must be others."""
        same = ("auxiliary", data.text, str(target.classes), auxiliary.but(size=None).text)
        if same not in self._counts:
            self._counts[same] = self._available(data, target.classes, auxiliary)
        return self._counts[same]

    def _available(self, data: Data, classes: int, auxiliary: Auxiliary) -> int:
        if auxiliary.kind in SAME_PARTS:
            return self.private(data, classes, SAME_PARTS[auxiliary.kind])
        name = auxiliary_dataset_name(auxiliary, data)
        other = None if name is None else self._descriptions[name]
        chosen = other_classes(self._descriptions[data.dataset], other, data, auxiliary)
        labels, _ = self.labels(name or data.dataset)
        augmented = self.private(data, classes, "train") if auxiliary.kind == "augmented" else 0
        return int(np.isin(labels, chosen).sum()) + augmented

    def _in_part(self, data: Data, part: str, ids: tuple[int, ...] | None) -> int:
        labels, splits = self.labels(data.dataset)
        in_part = splits[data.split] == PARTS.index(part)
        return int((in_part if ids is None else in_part & np.isin(labels, ids)).sum())

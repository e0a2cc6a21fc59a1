"""Values by image: what stages keep of every image, with its class, which is a unit of resampling.

The stage `evaluation` keeps every metric of the reconstructions (`per_image_PART.npy`), the target's own
stage whether it is right about each of its test images (`accuracy_test.npy`). Files have the target's labels;
which class of the data set a label is follows from the trial's data spec.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.datasets.classes import ordered
from orchestrator.metrics.names import ImageFile, MetricName
from orchestrator.report.crossed import ByClass
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord

CLASS_SEED, CLASS_ORDER = "data.class_seed", "data.class_order"
MOST_CLASSES = 2**32  # of one data set, among which identities are numbered


@dataclass(frozen=True, eq=False)
class _Grouped:
    """A file's images by class."""

    identities: np.ndarray  # of the classes, ascending
    places: np.ndarray  # of each image's class among them, (N,)

    def means(self, values: np.ndarray) -> ByClass:
        """Return the mean of the images that have a value over each class that has one; `values` (N,)."""
        there = ~np.isnan(values)
        sizes = np.bincount(self.places[there], minlength=len(self.identities))
        sums = np.bincount(self.places[there], weights=values[there], minlength=len(self.identities))
        measured = sizes > 0
        return ByClass(self.identities[measured], sums[measured] / sizes[measured])


class PerImage:
    """Reads and caches values by image; each file is read once."""

    def __init__(self, store: Artifacts) -> None:
        self._store = store
        self._read: dict[tuple[str, str], np.ndarray | None] = {}
        self._grouped: dict[tuple[str, str, str, int, str, int], _Grouped] = {}
        self._means: dict[tuple[_Grouped, str], ByClass] = {}
        self._sets: dict[str, int] = {}  # digest of a data set -> its number

    def of(self, record: TrialRecord, metric: str) -> np.ndarray | None:
        """Return a structured array (N,) with `label` and a field named like the metric (without stage and
        part).

        None where the trial kept no such values. Raise `Refused` for an unknown metric, `Corrupt` for damage.
        """
        place = MetricName.parse(metric).file()
        key = None if place is None else _key(record, place)
        if place is None or key is None:
            return None
        if (key, place.file) not in self._read:
            self._read[key, place.file] = self._load(key, place.file)
        rows = self._read[key, place.file]
        return rows if rows is not None and place.field in (rows.dtype.names or ()) else None

    def by_class(self, record: TrialRecord, metric: str) -> ByClass | None:
        """Return the metric's mean over each class's images, classes by their identity in the data set.

        Images without a value are left out. None where the trial kept no image's value. Raise as `of`.
        """
        rows = self.of(record, metric)
        place = MetricName.parse(metric).file()
        if rows is None or place is None or not len(rows):
            return None
        grouped = self._group(record, place, rows["label"])
        if (grouped, place.field) not in self._means:
            self._means[grouped, place.field] = grouped.means(rows[place.field].astype(np.float64))
        return self._means[grouped, place.field]

    def _group(self, record: TrialRecord, place: ImageFile, labels: np.ndarray) -> "_Grouped":
        """Return a file's images by class."""
        private = next((one for one in record.datasets if one.context == "private"), None)
        digest, size = (private.digest, private.num_classes) if private else ("", 0)
        seed = int(record.params.get(CLASS_SEED, 0))
        order: Any = record.params.get(CLASS_ORDER, "seeded")  # ids are a list
        cached = (str(_key(record, place)), place.file, digest, size, str(order), seed)
        if cached not in self._grouped:
            found, places = np.unique(labels, return_inverse=True)
            classes = found.astype(np.int64) if private is None else ordered(size, order, seed)[found]
            number = self._sets.setdefault(digest, len(self._sets))
            ranks = np.argsort(np.argsort(classes))
            self._grouped[cached] = _Grouped(number * MOST_CLASSES + np.sort(classes), ranks[places])
        return self._grouped[cached]

    def _load(self, key: str, name: str) -> np.ndarray | None:
        artifact = self._store.find(key)
        if artifact is None or name not in artifact.files:
            return None
        rows: np.ndarray = np.load(io.BytesIO(self._store.read(artifact, name)), allow_pickle=False)
        return rows


def _key(record: TrialRecord, place: ImageFile) -> str | None:
    """Return the key of the first of the file's stages that the trial has."""
    return next((record.stage_keys[stage] for stage in place.stages if stage in record.stage_keys), None)


def present(rows: np.ndarray, field: str) -> np.ndarray:
    """Return the rows that have a value in a field: not every image has one of every metric (NaN)."""
    there: np.ndarray = rows[~np.isnan(rows[field])]
    return there


def class_means(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels that occur, ascending int64, how many images each has, and their means."""
    classes, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return classes.astype(np.int64), sizes, np.bincount(places, weights=values) / sizes

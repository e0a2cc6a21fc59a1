"""Values by image: what stages keep of every image, with its class, which is the unit of resampling.

The stage `evaluation` keeps every metric of the reconstructions (`per_image_PART.npy`), the target's own
stage whether it is right about each of its test images (`accuracy_test.npy`).
"""

import io

import numpy as np

from orchestrator.metrics.names import ImageFile, MetricName
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord


class PerImage:
    """Reads and caches values by image; each file is read once."""

    def __init__(self, store: Artifacts) -> None:
        self._store = store
        self._read: dict[tuple[str, str], np.ndarray | None] = {}

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

    def _load(self, key: str, name: str) -> np.ndarray | None:
        artifact = self._store.find(key)
        if artifact is None or name not in artifact.files:
            return None
        rows: np.ndarray = np.load(io.BytesIO(self._store.read(artifact, name)), allow_pickle=False)
        return rows


def _key(record: TrialRecord, place: ImageFile) -> str | None:
    """Return the key of the first of the file's stages that the trial has."""
    return next((record.stage_keys[stage] for stage in place.stages if stage in record.stage_keys), None)

"""What trials keep image by image, with each image's class: the identity is the unit of resampling.

`evaluation` keeps every measure of the reconstructions (`per_image_PART.npy`), the victim's own stage whether
it is right about each of its test images (`accuracy_test.npy`).
"""

import io
import logging

import numpy as np

from orchestrator.metrics.names import image_field
from orchestrator.store.artifacts import Artifacts, Corrupt
from orchestrator.sweep.records import TrialRecord

logger = logging.getLogger(__name__)


class PerImage:
    """Reads what stages keep by image; each file once."""

    def __init__(self, store: Artifacts) -> None:
        self._store = store
        self._read: dict[tuple[str, str], np.ndarray | None] = {}

    def of(self, record: TrialRecord, metric: str) -> np.ndarray | None:
        """Return the rows (label and fields) that hold a metric by image, or None where it has no such."""
        place = image_field(metric)
        keys = (
            [record.stage_keys[stage] for stage in place.stages if stage in record.stage_keys]
            if place
            else []
        )
        if place is None or not keys:
            return None
        key = keys[0]
        if (key, place.file) not in self._read:
            self._read[key, place.file] = self._load(key, place.file)
        rows = self._read[key, place.file]
        return rows if rows is not None and place.field in (rows.dtype.names or ()) else None

    def _load(self, key: str, name: str) -> np.ndarray | None:
        artifact = self._store.find(key)
        if artifact is None or name not in artifact.files:
            return None
        try:
            rows: np.ndarray = np.load(io.BytesIO(self._store.read(artifact, name)), allow_pickle=False)
        except Corrupt as error:  # quarantined: the next sweep rebuilds it
            logger.warning("event=no_values_by_image reason=%s", error)
            return None
        return rows

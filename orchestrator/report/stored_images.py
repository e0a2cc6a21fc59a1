"""Stored images of trials: what evaluations keep of each part, private images and their reconstructions."""

import io
from collections.abc import Sequence

import numpy as np

from orchestrator.metrics.names import per_image_file
from orchestrator.store.artifacts import Artifact, Artifacts, gone
from orchestrator.sweep.records import TrialRecord

Images = np.ndarray  # (n, C, S, S) uint8


def kept_images(
    record: TrialRecord, parts: Sequence[str], store: Artifacts
) -> dict[str, tuple[Images, Images]]:
    """Return part -> (private images, reconstructions), (n, C, S, S) uint8 each, where the trial has them.

    Raise `Corrupt` if the trial's evaluation is damaged or no longer in the store.
    """
    artifact = _evaluation(record, store)
    kept = {}
    for part in parts:
        names = (f"victims_{part}.npy", f"reconstructions_{part}.npy")
        if all(name in artifact.files for name in names):
            first, second = (_array(store, artifact, name) for name in names)
            kept[part] = (first, second)
    return kept


def kept_labels(record: TrialRecord, part: str, store: Artifacts) -> np.ndarray:
    """Return the target's class of each measured image of a part, (N,) int32; kept images are the first ones.

    Raise `Corrupt` as `kept_images` does.
    """
    artifact = _evaluation(record, store)
    labels: np.ndarray = _array(store, artifact, per_image_file(part))["label"]
    return labels


def _evaluation(record: TrialRecord, store: Artifacts) -> Artifact:
    artifact = store.find(record.stage_keys["evaluation"])
    if artifact is None:
        raise gone(record.stage_keys["evaluation"])
    return artifact


def _array(store: Artifacts, artifact: Artifact, name: str) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False)
    return array

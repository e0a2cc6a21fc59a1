"""Images that evaluations keep: by part, with their classes, and what is lost."""

import io

import numpy as np
import pytest

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.stored_images import kept_images, kept_labels
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from tests.report.trials import record


def npy(array: np.ndarray) -> bytes:
    """Return an array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_images_and_classes_of_the_parts_that_are_there() -> None:
    store, private = Artifacts(MemoryBlobs("memory")), np.arange(2 * 4, dtype=np.uint8).reshape(2, 1, 2, 2)
    table = np.array([(7, 0.5), (3, 0.25), (1, 0.0)], [("label", np.int32), ("mse", np.float32)])
    files = {"victims_test.npy": npy(private), "reconstructions_test.npy": npy(private + 1)}
    files |= {"per_image_test.npy": npy(table), "victims_class.npy": b""}
    store.publish(Artifact("a" * 64, "evaluation", 1, {}), files)
    trial = record(0, {}, stage_keys={"evaluation": "a" * 64})
    (kept,) = kept_images(trial, ["test", "train", "class"], store).items()
    assert kept[0] == "test"
    assert np.array_equal(kept[1][0], private)
    assert np.array_equal(kept[1][1], private + 1)
    assert kept_labels(trial, "test", store).tolist() == [7, 3, 1]


def test_an_evaluation_that_is_gone_is_corrupt() -> None:
    trial = record(0, {}, stage_keys={"evaluation": "b" * 64})
    with pytest.raises(Corrupt, match="want a published stage, got nothing"):
        kept_images(trial, ["test"], Artifacts(MemoryBlobs("memory")))

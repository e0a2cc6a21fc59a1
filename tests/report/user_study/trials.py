"""Trials with stored images for the tests of user studies."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.user_study.key import Key
from orchestrator.report.user_study.pairs import Question, choose
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests.report.trials import record

SIDE = 8
FULL: dict[str, Scalar] = {"budget": "full"}
FROZEN: dict[str, Scalar] = {"budget": "conv4_1"}


def picture(*numbers: int) -> np.ndarray:
    """Return an image (3, S, S) uint8 that depends on the numbers."""
    return np.random.default_rng(numbers).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)


def new_store() -> Artifacts:
    """Return an empty store."""
    return Artifacts(MemoryBlobs("memory"))


def trial(
    store: Artifacts,
    index: int,
    axes: Mapping[str, Scalar],
    *,
    labels: Sequence[int] = (0, 0, 1, 2),
    private: Sequence[np.ndarray] = (),
    rebuilt: Sequence[np.ndarray] = (),
) -> TrialRecord:
    """Publish an evaluation and return its trial; images are made up where none are given."""
    number = len(labels)
    originals = list(private) or [picture(0, place) for place in range(number)]
    images = list(rebuilt) or [picture(1 + index, place) for place in range(number)]
    table = np.array([(label, 0.0) for label in labels], [("label", np.int32), ("mse", np.float32)])
    arrays = {
        "victims_test.npy": np.stack(originals),
        "reconstructions_test.npy": np.stack(images),
        "per_image_test.npy": table,
    }
    files = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[name] = buffer.getvalue()
    key = f"{index:064d}"
    store.publish(Artifact(key, "evaluation", 1, {}), files)
    return record(index, axes, stage_keys={"evaluation": key})


def sweep(store: Artifacts, seeds: int = 2) -> list[TrialRecord]:
    """Return trials of both settings over seeds."""
    axes: list[dict[str, Scalar]] = [
        {**setting, "seed": seed} for setting in (FULL, FROZEN) for seed in range(seeds)
    ]
    return [trial(store, index, one) for index, one in enumerate(axes)]


def study(num_pairs: int = 100, seed: int = 3, seeds: int = 2) -> tuple[list[Question], Key]:
    """Return the questions and the key of made-up trials."""
    store = new_store()
    records = sweep(store, seeds)
    return choose(records, store, "test", (FULL, FROZEN), study="faces", num_pairs=num_pairs, seed=seed)

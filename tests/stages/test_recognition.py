"""Recognition of a tiny trial's reconstructions by a descriptor with random weights, computed once more."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.config import TrialSpec
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, load, weights
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import target_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.metrics.perceptual import features_of
from orchestrator.models.face_descriptor import SIDE, face_descriptor
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.models.faces import random_weights
from tests.stages.test_pretrain import built, planned

RECIPE = {**tiny.RECIPE, "batch_size": 8}
RECOGNISER = {"weights": "face", "pairs": 6}
CHANGES: dict[str, Any] = {
    "data": {"dataset": "few", "split": "mine"},
    "target": {"classes": 3, "model": tiny.DIGIT, "recipe": RECIPE, "seed": 3},
    "auxiliary": {"kind": "distinct", "size": 16},
    "attack": {"model": tiny.DIGIT, "recipe": RECIPE},
    "judge.recipe": RECIPE,
    "evaluation.images": 6,
    "judges": {"recogniser": RECOGNISER},
}
EACH = 10  # pictures of a class: 5 to train on, 2 auxiliary, 3 for tests


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return a data location with a few digits and the weights of a descriptor."""
    digits, blobs = load("digits", Location()), DirectoryBlobs(tmp_path_factory.mktemp("data"))
    chosen = np.concatenate([np.flatnonzero(digits.labels == label)[:EACH] for label in range(3)])
    parts = np.tile(np.repeat([0, 1, 2], [5, 2, 3]), 3)
    images, labels = digits.images[chosen], digits.labels[chosen]
    source = array_source("npz", images, labels, ("zero", "one", "two"), "0" * 64, {"mine": parts})
    publish(source, Options(), blobs, "few")
    weights.stage(random_weights(), "test", blobs, "face")
    weights.stage({"fc": torch.zeros(1)}, "test", blobs, "other")
    return Location(blobs)


@pytest.mark.parametrize("task", ["reconstruction", "class-inference"])
def test_images_are_accepted_by_their_distance_to_the_class(
    task: str, location: Location, tmp_path: Path
) -> None:
    spec: TrialSpec = tiny.spec({**CHANGES, "evaluation.task": task})
    store, stages = built(spec, location, tmp_path), planned(spec, location)
    artifact = store.find(stages["recognition"].key)
    assert artifact is not None
    found = artifact.metrics
    network, few = face_descriptor(random_weights()), load("few", location)

    def described(images: Images) -> np.ndarray:
        return features_of(network, images, SIDE, "cpu", normalise="descriptor").double().numpy()

    known = target_images(few, spec.data, 3, "train")
    references, labels = described(known.images), known.labels.numpy()

    def distances(images: Images) -> np.ndarray:
        every = np.linalg.norm(described(images)[:, None] - references[None], axis=2)
        return np.stack([every[:, labels == label].mean(axis=1) for label in range(3)], axis=1)

    photographs = target_images(few, spec.data, 3, "evaluation")
    nearest = distances(photographs.images).argmin(axis=1)
    if RECOGNISER["pairs"] == len(photographs):
        assert found["recogniser/accuracy"] == pytest.approx((nearest == photographs.labels.numpy()).mean())
    for part in ("class",) if task == "class-inference" else ("train", "test"):
        end = "" if part == "class" else f"_{part}"
        family = "class" if part == "class" else "attack"
        table, own = (
            np.load(io.BytesIO(store.read(one, f"per_image_{part}.npy")))
            for one in (artifact, store.find(stages["evaluation"].key))
            if one is not None
        )
        made = store.find(stages["reconstructions"].key)
        assert made is not None
        images = np.load(io.BytesIO(store.read(made, f"reconstructions_{part}.npy")))
        every = distances(torch.from_numpy(images))
        right = every[np.arange(len(every)), own["label"]]
        assert table["label"].tolist() == own["label"].tolist()
        assert table["recogniser_rank"].tolist() == (1 + (every < right[:, None]).sum(axis=1)).tolist()
        assert table["recogniser_top1"].tolist() == (every.argmin(axis=1) == own["label"]).tolist()
        accepted = right <= found["recogniser/threshold"]
        assert table["recogniser_accepted"].tolist() == accepted.tolist()
        assert found[f"{family}/recogniser_accepted{end}"] == pytest.approx(accepted.mean())
        judged = own["judge_top1" if part == "class" else "accuracy_top1"] == 1
        share = found.get(f"{family}/false_positives{end}")
        assert share == (pytest.approx((~accepted)[judged].mean()) if judged.any() else None)


def test_nobody_recognises_a_class_that_no_answer_names(location: Location, tmp_path: Path) -> None:
    attack = {"model": tiny.DIGIT, "recipe": RECIPE, "classes": "estimated"}
    spec = tiny.spec({**CHANGES, "attack": attack, "evaluation.task": "class-inference"})
    store, stages = built(spec, location, tmp_path), planned(spec, location)
    made, table = (
        np.load(io.BytesIO(store.read(artifact, name)))
        for stage, name in (("reconstructions", "made_class.npy"), ("recognition", "per_image_class.npy"))
        if (artifact := store.find(stages[stage].key)) is not None
    )
    assert 0 < made.sum() < 3
    assert (table["recogniser_rank"][~made] == 3).all()
    for field in ("recogniser_accepted", "recogniser_top1"):
        assert not table[field][~made].any(), field


def test_errors_and_threshold_are_left(location: Location, tmp_path: Path) -> None:
    spec = tiny.spec({**CHANGES, "judges": {"recogniser": {**RECOGNISER, "pairs": 9}}})
    store, stages = built(spec, location, tmp_path), planned(spec, location)
    artifact = store.find(stages["recognition"].key)
    assert artifact is not None
    found = artifact.metrics
    assert found["recogniser/threshold"] > 0
    assert 4 * found["recogniser/false_accepts"] in range(5)  # 9 pairs: 5 choose, 4 measure
    assert 4 * found["recogniser/false_rejects"] in range(5)
    assert 0 <= found["recogniser/accuracy"] <= 1


def test_photographs_are_described_once_for_all_targets_and_attacks(location: Location) -> None:
    one, other = (
        planned(
            tiny.spec({**CHANGES, "target": {**CHANGES["target"], "seed": seed}, "data.class_seed": seed}),
            location,
        )
        for seed in (3, 4)
    )
    assert one["target"].key != other["target"].key
    assert one["recognition"].key != other["recognition"].key
    assert one["descriptors"].key == other["descriptors"].key


def test_other_weights_are_refused_before_anything_starts(location: Location) -> None:
    changes = {**CHANGES, "judges": {"recogniser": {"weights": "other"}}}
    (point,) = expand(tiny.study({"seed": [0]}, changes))[0]
    with pytest.raises(StudyError, match=r"^judges.recogniser.weights=other are not the face descriptor's"):
        Preflight(location).resolve(point)
    changes = {**CHANGES, "judges": {"recogniser": {"weights": "absent"}}}
    (point,) = expand(tiny.study({"seed": [0]}, changes))[0]
    with pytest.raises(StudyError, match=r"^judges.recogniser.weights=absent is unknown; staged at .* face"):
        Preflight(location).resolve(point)

"""Stage `reconstructions`: every attacked image, in the order of the values that `evaluation` measured."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import target_images
from orchestrator.stages.graph import IMAGES
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.pairs import hold_out
from orchestrator.training.seeds import derive_seed
from tests import tiny

CLASSES = {"evaluation.task": "class-inference"}
JOINT = {"attack": {"name": "joint", "model": tiny.DIGIT, "seed": 5}}
SEARCH = {"attack": {"name": "optimization", "steps": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("reconstructions")


def array(folder: Path, trial: TrialSpec, stage: str, name: str) -> np.ndarray:
    """Return an array that a stage of a trial left."""
    tiny.run(trial, folder)
    store = Artifacts(DirectoryBlobs(folder))
    artifact = store.find(tiny.stages(trial)[stage].key)
    assert artifact is not None
    return np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False)


def kept(folder: Path, trial: TrialSpec, part: str) -> np.ndarray:
    """Return all reconstructions of a part, wherever the attack of the trial leaves them."""
    stage = next(name for name in IMAGES if name in tiny.stages(trial))
    return array(folder, trial, stage, f"reconstructions_{part}.npy")


def attacked(trial: TrialSpec, part: str) -> np.ndarray:
    """Return the attacked private images, drawn here again: a seeded order cut to `evaluation.images`."""
    images = target_images(load("digits", Location()), trial.data, 3, "evaluation").images
    if part == "train":
        images = target_images(load("digits", Location()), trial.data, 3, "train").images
        images = images[hold_out(len(images), 0.1, trial.target.seed)[0]]
    generator = torch.Generator().manual_seed(derive_seed("evaluation", trial.evaluation.seed))
    order = torch.randperm(len(images), generator=generator)
    return images[order[: trial.evaluation.images]].numpy()


@pytest.mark.parametrize("changes", [{}, JOINT, SEARCH], ids=["inverter", "joint", "search"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_every_reconstruction_is_kept_beside_its_row(
    folder: Path, changes: dict[str, Any], part: str
) -> None:
    """Errors by image that are computed again from kept images are those that were measured, up to
    rounding: each pixel moves by half a level at most."""
    trial = tiny.spec(changes)
    images = kept(folder, trial, part)
    assert (images.dtype, images.shape) == (np.uint8, (16, 1, 32, 32))
    rows = array(folder, trial, "evaluation", f"per_image_{part}.npy")
    error = ((images / 255.0 - attacked(trial, part) / 255.0) ** 2).mean(axis=(1, 2, 3))
    assert rows["mse"] == pytest.approx(error, abs=0.5 / 255 * 2)
    assert np.corrcoef(rows["mse"], error)[0, 1] > 0.9999
    shown = array(folder, trial, "evaluation", f"reconstructions_{part}.npy")
    assert np.array_equal(images[: trial.evaluation.grid], shown)


def test_images_of_classes_are_kept(folder: Path) -> None:
    trial = tiny.spec({**CLASSES, "evaluation.classes": [2, 0]})
    images = kept(folder, trial, "class")
    assert images.shape == (2, 1, 32, 32)
    assert np.array_equal(images, array(folder, trial, "evaluation", "reconstructions_class.npy"))
    every = kept(folder, tiny.spec(CLASSES), "class")
    assert np.array_equal(images, every[[2, 0]])


def test_they_depend_on_no_judge_and_a_search_has_left_them() -> None:
    stages = tiny.stages(tiny.spec())
    for changes in ({"judge.seed": 9}, {"evaluation.grid": 2}):
        assert tiny.stages(tiny.spec(changes))["reconstructions"].key == stages["reconstructions"].key
    for changes in ({"evaluation.images": 8}, {"release.truncation": 2}, {"attack.seed": 9}):
        assert tiny.stages(tiny.spec(changes))["reconstructions"].key != stages["reconstructions"].key
    assert "reconstructions" not in tiny.stages(tiny.spec(SEARCH))

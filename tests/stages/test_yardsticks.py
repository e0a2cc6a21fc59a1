"""Stage `yardsticks`: which images and scores each adversary has, and what is left of them by image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import auxiliary_images, target_images
from orchestrator.metrics.skill import best_yardstick
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.threat import released
from orchestrator.training.pairs import hold_out
from tests import tiny

JOINT = {"attack": {"name": "joint", "model": tiny.DIGIT}}
SEARCH = {"attack": {"name": "optimization", "steps": 2}}
CLASSES = {"evaluation.task": "class-inference"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("yardsticks")


def artifact(folder: Path, trial: TrialSpec, stage: str = "yardsticks") -> Artifact:
    """Return what a stage of a trial left."""
    tiny.run(trial, folder)
    found = Artifacts(DirectoryBlobs(folder)).find(tiny.stages(trial)[stage].key)
    assert found is not None
    return found


def array(folder: Path, trial: TrialSpec, stage: str, name: str) -> np.ndarray:
    """Return an array that a stage of a trial left."""
    data = Artifacts(DirectoryBlobs(folder)).read(artifact(folder, trial, stage), name)
    return np.load(io.BytesIO(data), allow_pickle=False)


def parts(folder: Path, trial: TrialSpec, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the private images of a part (N, P) in [0, 1] and the released scores of them (N, k)."""
    digits, k = load("digits", Location()), trial.target.classes
    scores = torch.from_numpy(array(folder, trial, "victims", f"scores_{part}.npy"))
    images = target_images(digits, trial.data, k, "evaluation" if part == "test" else "train").images
    if part == "train":
        images = images[hold_out(len(images), 0.1, trial.target.seed)[0]]
    shown = array(folder, trial, "evaluation", f"victims_{part}.npy")  # the first of those attacked
    rows = images[:].numpy().reshape(len(images), -1)
    assert {row.tobytes() for row in shown.reshape(len(shown), -1)} <= {row.tobytes() for row in rows}
    return shown.reshape(len(shown), -1) / 255.0, released(scores, trial.release).numpy()


@pytest.mark.parametrize("release", [{"truncation": 1}, {"truncation": 2}, {"labels_only": True}], ids=str)
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_adversary_looks_up_what_it_was_released(
    folder: Path, release: dict[str, Any], part: str
) -> None:
    """Derived again from the auxiliary images, the stored full scores and the released ones alone."""
    trial = tiny.spec({"release": release})
    own = auxiliary_images(load("digits", Location()), None, trial.data, 3, trial.auxiliary).images
    images = own[:].numpy().reshape(len(own), -1) / 255.0
    full = torch.from_numpy(array(folder, trial, "predictions", "scores.npy"))
    answers = released(full, trial.release).numpy().astype(float)
    private, scores = parts(folder, trial, part)
    rows = array(folder, trial, "yardsticks", f"per_image_{part}.npy")
    for place, (image, score) in enumerate(zip(private, scores, strict=False)):
        of_label = images[answers.argmax(1) == score.argmax()]
        nearest = images[((answers - score.astype(float)) ** 2).sum(axis=1).argmin()]
        guesses = {"mean": images.mean(axis=0), "label": of_label.mean(axis=0), "nearest": nearest}
        for name, guess in guesses.items():
            assert rows[f"{name}_mse"][place] == pytest.approx(((guess - image) ** 2).mean(), rel=1e-5), name


@pytest.mark.parametrize("changes", [{}, JOINT, SEARCH, {"auxiliary": {"kind": "same-train"}}], ids=str)
def test_values_are_kept_in_the_order_of_the_attacks(folder: Path, changes: dict[str, Any]) -> None:
    trial = tiny.spec(changes)
    metrics = tiny.run(trial, folder)
    guesses = ["grey"] if changes == SEARCH else ["mean", "label", "bins", "nearest"]
    for part in ("train", "test"):
        rows, attacked = (
            array(folder, trial, stage, f"per_image_{part}.npy") for stage in ("yardsticks", "evaluation")
        )
        assert rows.dtype.names == ("label", *(f"{name}_mse" for name in guesses))
        assert rows["label"].tolist() == attacked["label"].tolist()
        for name in guesses:
            mean = metrics[f"yardstick/{name}_mse_{part}"]
            assert rows[f"{name}_mse"].mean(dtype=np.float64) == pytest.approx(mean, rel=1e-6)
            assert mean > 0
        best = metrics[f"yardstick/{best_yardstick(metrics, part)}_mse_{part}"]
        own = metrics[f"inversion/mse_{part}"]
        assert metrics[f"inversion/skill_{part}"] == pytest.approx(1 - own / best)


def test_a_held_image_is_not_looked_up(folder: Path) -> None:
    """With every training image in hand each one's own would be its nearest, with error 0."""
    trial = tiny.spec({"auxiliary": {"kind": "same-train"}, "release": {}})
    rows = array(folder, trial, "yardsticks", "per_image_train.npy")
    assert rows["nearest_mse"].min() > 0


def test_a_developer_has_the_training_images(folder: Path) -> None:
    trial = tiny.spec(JOINT)
    own = target_images(load("digits", Location()), trial.data, 3, "train").images
    fitted = own[hold_out(len(own), 0.1, trial.target.seed)[0]].numpy().reshape(-1, 32 * 32) / 255.0
    private, _ = parts(folder, trial, "test")
    rows = array(folder, trial, "yardsticks", "per_image_test.npy")
    expected = ((fitted.mean(axis=0) - private) ** 2).mean(axis=1)
    assert rows["mean_mse"][: len(private)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("attack", "guesses"),
    [
        ({}, ["label", "random"]),
        (JOINT, ["label", "random"]),
        ({"attack": {"name": "mia", "steps": 2}}, ["grey"]),
    ],
    ids=str,
)
def test_images_of_classes_are_judged(folder: Path, attack: dict[str, Any], guesses: list[str]) -> None:
    trial = tiny.spec({**attack, **CLASSES})
    metrics = tiny.run(trial, folder)
    rows = array(folder, trial, "yardsticks", "per_image_class.npy")
    names = [f"yardstick_{guess}_{what}" for guess in guesses for what in ("mse", "top1")]
    assert rows.dtype.names == ("label", *names)
    assert rows["label"].tolist() == [0, 1, 2]
    assert {name for name in metrics if "yardstick_" in name} == {f"class/{name}" for name in names}
    assert all(set(rows[name].tolist()) <= {0.0, 1.0} for name in names if name.endswith("top1"))
    assert {"class/skill", "class/over_chance"} <= metrics.keys()
    if guesses != ["grey"]:  # the mean of photographs of a class is nearer to its mean than one of them
        assert metrics["class/yardstick_label_mse"] < metrics["class/yardstick_random_mse"]


def test_chance_is_that_of_the_test_images(folder: Path) -> None:
    trial = tiny.spec()
    metrics, digits = tiny.run(trial, folder), load("digits", Location())
    own = np.bincount(target_images(digits, trial.data, 3, "evaluation").labels)
    assert metrics["yardstick/target_images"] == own.sum()
    assert metrics["yardstick/target_chance"] == own.max() / own.sum()
    every = np.bincount(digits.labels[digits.splits["default"] == 2])
    assert metrics["yardstick/judge_images"] == every.sum()
    assert metrics["yardstick/judge_chance"] == every.max() / every.sum()
    assert metrics["yardstick/chance"] == 0.1

"""Images of a notebook: staged once under the name of their content, and read by a study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.api.arrays import stage_images
from orchestrator.api.study import Study
from orchestrator.config.base import Refused
from orchestrator.datasets import load
from orchestrator.datasets.catalog import verify
from orchestrator.runtime.open_store import open_location
from tests import tiny

NUM, CLASSES = 160, 5
LABELS = np.arange(NUM) % CLASSES


def images(seed: int = 0) -> np.ndarray:
    """Return random images, (160, 1, 8, 8) uint8, all different."""
    return np.random.default_rng(seed).integers(0, 256, (NUM, 1, 8, 8), dtype=np.uint8)


def test_what_is_staged_is_what_was_given(tmp_path: Path) -> None:
    pixels = images()
    name = stage_images(pixels, LABELS, data=tmp_path, name="mine")
    assert name.startswith("mine-")
    location = open_location(str(tmp_path), None)
    read = load(name, location)
    assert np.array_equal(np.asarray(read.images)[..., 0], pixels[:, 0])
    assert np.array_equal(read.labels, LABELS)
    assert read.class_names == tuple("01234")
    assert set(read.splits) == {"default", "half", "eighty"}


def test_the_same_images_have_the_same_name_and_others_another(tmp_path: Path) -> None:
    pixels = images()
    name = stage_images(pixels, LABELS, data=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    floats = torch.tensor(pixels / 255.0, dtype=torch.float32, requires_grad=True)
    assert stage_images(floats, torch.tensor(LABELS), data=str(tmp_path)) == name
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    others = {
        stage_images(images(1), LABELS, data=tmp_path),
        stage_images(pixels, LABELS[::-1], data=tmp_path),
        stage_images(pixels, LABELS, data=tmp_path, class_names=list("abcde")),
        stage_images(pixels, LABELS, data=tmp_path, parts=["train", "evaluation"] * (NUM // 2)),
        stage_images(pixels, data=tmp_path),
        stage_images(pixels.reshape(NUM // 4, 1, 16, 16), LABELS[: NUM // 4], data=tmp_path),
        name,
    }
    assert len(others) == 7


def test_parts_are_a_split_and_no_labels_are_no_classes(tmp_path: Path) -> None:
    parts = ["train"] * 80 + ["auxiliary"] * 40 + ["evaluation"] * 40
    name = stage_images(images(), LABELS, data=tmp_path, parts=parts)
    location = open_location(str(tmp_path), None)
    assert {split: np.bincount(codes).tolist() for split, codes in load(name, location).splits.items()} == {
        "given": [80, 40, 40]
    }
    assert verify(stage_images(images(), data=tmp_path), location).num_classes == 1


def test_a_study_takes_the_name(tmp_path: Path) -> None:
    parts = ["train"] * 80 + ["auxiliary"] * 40 + ["evaluation"] * 40
    name = stage_images(images(), LABELS, data=tmp_path / "data", parts=parts)
    changes = {"data.dataset": name, "data.class_pool": 3}
    study = Study.load(tiny.write(tmp_path / "tiny.yaml", {"seed": [0]}, changes))
    study = study.with_({"data.split": "given", "auxiliary.size": 20, "evaluation.images": 8})
    plan = study.plan(data=tmp_path / "data", out=tmp_path / "out")
    assert plan.trials["missing"].tolist() == [10]
    with pytest.raises(ValueError, match=rf"data.dataset={name} is unknown"):
        study.plan(out=tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"images": images()[:, 0]}, r"^images of shape \(160, 8, 8\) must be \(N, C, S, S\)"),
        ({"images": images().astype(np.int64)}, "^images are int64 of 0 to 255, but must be uint8 or floats"),
        ({"images": images() / 200}, r"^images are float64 of 0 to 1.275, but must be .*; undo their norm"),
        (
            {"labels": LABELS[1:]},
            r"^labels are int64 \(159,\), but must be an integer for each of 160 images",
        ),
        ({"labels": LABELS / 2}, "^labels are float64"),
        (
            {"parts": ["test"] * NUM},
            "^parts=test must be one of train, auxiliary, evaluation for each of 160",
        ),
        ({"parts": ["train"]}, "^parts must be one of"),
        ({"name": "My Images"}, "must be lower-case letters"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"images": images(), "labels": LABELS, **changes}
    with pytest.raises(Refused, match=fault):
        stage_images(**given, data=tmp_path)

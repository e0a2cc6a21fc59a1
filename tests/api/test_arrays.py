"""Images of a notebook: staged once under the name of their content, and read by a study."""

import logging
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
    bare = load(stage_images(images(), data=tmp_path, parts=parts), location)
    assert {split: codes.tolist() for split, codes in bare.splits.items()} == {
        "given": [0] * 80 + [1] * 40 + [2] * 40
    }
    assert bare.class_names == ("unlabelled",)


def test_the_location_is_that_of_a_study_s_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVERSION_DATA", str(tmp_path / "data"))
    name = stage_images(images(), LABELS)
    assert (tmp_path / "data" / name / "manifest.json").is_file()
    monkeypatch.delenv("INVERSION_DATA")
    with pytest.raises(Refused, match=r"^data names no data location; give a folder, or set INVERSION_DATA"):
        stage_images(images(), LABELS)


def test_class_names_are_any_values_that_differ(tmp_path: Path) -> None:
    names = [
        stage_images(images(), LABELS, data=tmp_path, class_names=given)
        for given in (np.array(list("56789")), np.arange(5, 10), range(5, 10))
    ]
    assert len(set(names)) == 1
    assert load(names[0], open_location(str(tmp_path), None)).class_names == tuple("56789")


def test_images_that_are_dropped_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = images()
    with caplog.at_level(logging.WARNING):
        stage_images(pixels, LABELS, data=tmp_path)
        assert not caplog.messages
        pixels[5] = pixels[0]
        name = stage_images(pixels, LABELS, data=tmp_path)
    assert caplog.messages == [f"event=images_dropped name={name} reasons={{'duplicate': 1}}"]


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
        (
            {"class_names": list("abcba")},
            r"^class_names=a is the name of several classes \(2 of 3 names are\); give each",
        ),
        ({"name": "My Images"}, "must be lower-case letters"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"images": images(), "labels": LABELS, **changes}
    with pytest.raises(Refused, match=fault):
        stage_images(**given, data=tmp_path)

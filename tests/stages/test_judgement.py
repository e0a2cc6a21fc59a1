"""Further judges of a tiny trial: what they accept, against their weights and the stored images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import judge_images, private_classes
from orchestrator.models.build import build_classifier
from orchestrator.stages.graph import Stage
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny

WIDE = {"model": {"name": "ami-digit", "width": 0.05}, "recipe": {**tiny.RECIPE, "epochs": 2}, "seed": 50}
OTHER = {**WIDE, "images": "auxiliary"}
CLASSES = {"evaluation.task": "class-inference", "evaluation.candidates": 1}
DISTINCT = {"auxiliary": {"kind": "distinct", "size": 64}}
TASKS: dict[str, dict[str, Any]] = {"reconstruction": DISTINCT, "class-inference": {**DISTINCT, **CLASSES}}
PARTS = {"reconstruction": ("test", "train"), "class-inference": ("class",)}


def trial(task: str, **classifiers: Any) -> TrialSpec:
    """Return the tiny trial of a task with further judges."""
    return tiny.spec({**TASKS[task], "judges": {"classifiers": classifiers}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of these tests."""
    return tmp_path_factory.mktemp("judgement")


def array(folder: Path, stage: Stage, name: str) -> np.ndarray:
    """Return an array that a stage left."""
    store = Artifacts(DirectoryBlobs(folder))
    artifact = store.find(stage.key)
    assert artifact is not None
    return np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False)


@pytest.mark.parametrize("task", TASKS)
def test_further_judges_see_every_stored_image(task: str, folder: Path) -> None:
    """Two of them, of another width and other images, beside the trial's own."""
    spec = trial(task, wide=WIDE, other=OTHER)
    metrics, stages = tiny.run(spec, folder), tiny.stages(spec)
    digits = load("digits", Location())
    classes = np.array(private_classes(digits, spec.data, 3))
    store = Artifacts(DirectoryBlobs(folder))
    for name, judge in spec.judges.classifiers.items():
        network = build_classifier(judge.model, classes=10, channels=1, image_size=32)
        artifact = store.find(stages[f"judge.{name}"].key)
        assert artifact is not None
        network.load_state_dict(load_tensors(store.read(artifact, "model.safetensors")))
        network.eval()
        for part in PARTS[task]:
            own = array(folder, stages["evaluation"], f"per_image_{part}.npy")
            kept = next(stages[stage] for stage in ("reconstructions", "optimization") if stage in stages)
            images = torch.from_numpy(array(folder, kept, f"reconstructions_{part}.npy"))
            assert len(images) == len(own)
            with torch.no_grad():
                found = network(images / 255.0).argmax(1).numpy()
            accepted = found == classes[own["label"]]
            first = own["judge_top1" if part == "class" else "accuracy_top1"] == 1
            table = array(folder, stages[f"judgement.{name}"], f"per_image_{part}.npy")
            assert table["label"].tolist() == own["label"].tolist()
            assert table["agreement"].tolist() == (accepted == first).tolist()
            prefix = f"class.{name}/judge_top1" if part == "class" else f"attack.{name}/accuracy_top1_{part}"
            assert metrics[prefix] == pytest.approx(accepted.mean())
            end = "" if part == "class" else f"_{part}"
            family = prefix.partition("/")[0]
            assert metrics[f"{family}/agreement{end}"] == pytest.approx((accepted == first).mean())


def test_a_judge_is_added_without_another_attack(folder: Path) -> None:
    before = {stage.key for stage in tiny.stages(trial("reconstruction", wide=WIDE)).values()}
    after = tiny.stages(trial("reconstruction", wide=WIDE, third={**WIDE, "seed": 51}))
    assert {label for label, stage in after.items() if stage.key not in before} == {
        "judge.third",
        "judgement.third",
    }


def test_a_judge_of_auxiliary_images_has_seen_no_image_of_the_target(folder: Path) -> None:
    digits, data = load("digits", Location()), tiny.spec().data
    sets = {part: judge_images(digits, data, part) for part in ("train", "auxiliary")}
    contents = {part: {image.numpy().tobytes() for image in one.images[:]} for part, one in sets.items()}
    assert contents["train"] & contents["auxiliary"] == set()
    spec = trial("reconstruction", wide=WIDE, other=OTHER)
    tiny.run(spec, folder)
    keys = tiny.stages(spec)
    wide, other = (array(folder, keys[f"judge.{name}"], "labels_train.npy") for name in ("wide", "other"))
    assert wide.tolist() == other.tolist() == sets["train"].labels.tolist()  # features are of train images
    first, second = (array(folder, keys[f"judge.{name}"], "features_train.npy") for name in ("wide", "other"))
    assert first.shape == second.shape
    assert not np.allclose(first, second)
    artifact = Artifacts(DirectoryBlobs(folder)).find(keys["judge.other"].key)
    assert artifact is not None
    held_out = round(0.1 * len(sets["auxiliary"]))
    assert artifact.cost["images_seen"] == 2 * (len(sets["auxiliary"]) - held_out)

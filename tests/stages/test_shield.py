"""The stage of a shield: what it leaves, who reads it, and attacks that it does not concern."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import target_images
from orchestrator.defenses.shield import image_draws, mover
from orchestrator.metrics.names import measured
from orchestrator.stages import runner
from orchestrator.stages.images import (
    auxiliary_images,
    fitted_images,
    held_out_images,
    private_images,
)
from orchestrator.stages.io import Inputs
from orchestrator.stages.networks import black_box
from orchestrator.stages.target_model import stored_target
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.adversary import BEYOND, queries_beyond_release
from orchestrator.training.pairs import as_unit
from orchestrator.training.world import World
from tests import tiny

SHIELD: dict[str, Any] = {"release.shield": {"budget": 0.9, "seed": 16}}
INFERENCE = {"evaluation.task": "class-inference"}
BREPMI = {
    **INFERENCE,
    "attack": {"name": "brepmi", "batch": 8, "budget": 40},
    "prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("shield")


def left(folder: Path, spec: TrialSpec, stage: str, name: str) -> torch.Tensor:
    """Return an array that a stage of a finished trial left."""
    store = Artifacts(DirectoryBlobs(folder))
    artifact = store.find(tiny.stages(spec)[stage].key)
    assert artifact is not None
    return torch.from_numpy(np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False))


def inputs_of(folder: Path, spec: TrialSpec) -> Inputs:
    """Return inputs of a stage that reads target and shield."""
    store, stages = Artifacts(DirectoryBlobs(folder)), tiny.stages(spec)

    def read(role: str, name: str) -> bytes:
        artifact = store.find(stages[role].key)
        assert artifact is not None
        return store.read(artifact, name)

    return Inputs(World(), lambda name: load(name, Location()), read)


def test_stored_answers_are_those_of_the_service(folder: Path) -> None:
    """Scores moved in the store equal those that a black box moves when it is asked."""
    spec = tiny.spec(SHIELD)
    metrics = tiny.run(spec, folder)
    assert set(metrics) <= set(measured())
    assert 0.0 <= metrics["shield/accuracy"] <= 1.0
    inputs, shield = inputs_of(folder, spec), spec.release.shield
    assert shield is not None
    box = black_box(inputs, stored_target(inputs, spec.data, spec.target), spec.release.but(truncation=None))
    asked: dict[str, Any] = {"scores.npy": auxiliary_images(inputs, spec.data, spec.target, spec.auxiliary)}
    drawn = private_images(inputs, spec.data, spec.target, spec.evaluation)
    asked |= {f"scores_{part}.npy": images for part, (images, _) in drawn.items()}
    for name, images in asked.items():
        moved = left(folder, spec, "shield", name)
        torch.testing.assert_close(box.query(as_unit(images)), moved, atol=1e-6, rtol=0)
        before = left(folder, spec, "predictions" if name == "scores.npy" else "victims", name)
        means = left(folder, spec, "shield", "means.npy")
        torch.testing.assert_close(mover(shield, means)(images, before), moved)
        assert ((moved - before).abs().sum(1) > 1e-4).float().mean() > 0.5
        assert len(image_draws(images, 16).unique()) > len(images) // 2


def test_means_are_of_held_out_images(folder: Path) -> None:
    spec = tiny.spec(SHIELD)
    tiny.run(spec, folder)
    inputs = inputs_of(folder, spec)
    held = held_out_images(inputs, spec.data, spec.target)
    network = stored_target(inputs, spec.data, spec.target)
    with torch.inference_mode():
        scores = network(as_unit(held.images[torch.arange(len(held))])).softmax(1)
    means = left(folder, spec, "shield", "means.npy")
    assert set(held.labels.tolist()) == {0, 1, 2}
    for label in range(3):
        torch.testing.assert_close(means[label], scores[held.labels == label].mean(0), atol=1e-6, rtol=0)
    others = tiny.spec({**SHIELD, "release.shield.means": "train"})
    plan = tiny.stages(others)["shield"]
    runner.run(plan, World(), Artifacts(DirectoryBlobs(folder)), Location())
    assert not torch.equal(left(folder, others, "shield", "means.npy"), means)


def test_a_class_without_held_out_images_has_the_mean_of_its_training_images(folder: Path) -> None:
    """One image is held out, so that two of three classes have none."""
    spec = tiny.spec({**SHIELD, "target.recipe.validation_fraction": 0.001})
    tiny.run(spec, folder)
    inputs = inputs_of(folder, spec)
    held = held_out_images(inputs, spec.data, spec.target)
    fitted = fitted_images(inputs, spec.data, spec.target)
    assert len(held) == 1
    network = stored_target(inputs, spec.data, spec.target)
    means = left(folder, spec, "shield", "means.npy")
    for label in range(3):
        images = held if label == held.labels[0] else fitted.at((fitted.labels == label).nonzero().flatten())
        with torch.inference_mode():
            scores = network(as_unit(images.images[torch.arange(len(images))])).softmax(1)
        torch.testing.assert_close(means[label], scores.mean(0), atol=1e-6, rtol=0)


def test_accuracy_is_of_moved_answers(folder: Path) -> None:
    """A hot draw and a budget without end answer with the mean of any class."""
    spec = tiny.spec({"release.shield": {"temperature": 100.0, "budget": 100.0, "seed": 16}})
    metrics = tiny.run(spec, folder)
    inputs = inputs_of(folder, spec)
    test = target_images(inputs.datasets(spec.data.dataset), spec.data, 3, "evaluation")
    network = stored_target(inputs, spec.data, spec.target)
    box = black_box(inputs, network, spec.release.but(truncation=None))
    answers = box.query(as_unit(test.images[torch.arange(len(test))]))
    right = (answers.argmax(1) == test.labels).double().mean().item()
    assert metrics["shield/accuracy"] == pytest.approx(right)
    assert right < metrics["target/accuracy"]


@pytest.mark.parametrize("changes", [INFERENCE, BREPMI], ids=["inverter", "brepmi"])
def test_classes_are_inferred_behind_a_shield_and_it_repeats(
    changes: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    spec = tiny.spec({**changes, **SHIELD, "release.shield.means": "train"})
    metrics = tiny.run(spec, folder)
    assert metrics == tiny.run(spec, tmp_path)
    plain = tiny.stages(tiny.spec(changes))
    stage = "optimization" if "prior" in changes else "inversion"
    assert tiny.stages(spec)[stage].key != plain[stage].key


def test_shielded_answers_take_the_place_of_those_that_they_are_made_of() -> None:
    stages = tiny.stages(tiny.spec(SHIELD))
    names = {stage.key: name for name, stage in stages.items()}
    needs = {name: {role: names[key] for role, key in stage.needs.items()} for name, stage in stages.items()}
    assert needs["shield"] == {"target": "target", "predictions": "predictions", "victims": "victims"}
    assert needs["inversion"] == {"predictions": "shield"}
    assert needs["reconstructions"]["victims"] == needs["evaluation"]["victims"] == "shield"
    assert needs["yardsticks"] == {"victims": "shield", "predictions": "shield"}


def test_an_unaligned_inverter_has_no_more_than_shielded_answers() -> None:
    spec = tiny.spec({**SHIELD, "release.truncation": None, "attack.align": False})
    aligned = tiny.spec({**SHIELD, "release.truncation": None})
    assert tiny.stages(spec)["inversion"].key == tiny.stages(aligned)["inversion"].key
    assert queries_beyond_release(spec, {"attack/queries": 64.0}) == {BEYOND: 0.0}


NAMED = "release.shield moves answers, and attack.name=gmi asks for none: it has F's weights"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**INFERENCE, "attack": {"name": "gmi"}, "prior": {}}, NAMED),
    (
        {"attack": {"name": "joint", "model": tiny.DIGIT}},
        "release.shield draws classes, through which attack.name=joint cannot differentiate",
    ),
    (
        {"evaluation.fisher": {}},
        "release.shield draws classes, through which evaluation.fisher cannot differentiate",
    ),
    (
        {"target.selection": "test"},
        "release.shield.means=held-out needs images held out from training, and target.selection=test holds",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_what_a_shield_does_not_concern_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        tiny.spec({**SHIELD, **changes})
    tiny.spec(changes)


def test_a_search_among_pixels_for_a_shielded_answer_is_not_refused() -> None:
    stages = tiny.stages(tiny.spec({**SHIELD, "attack": {"name": "optimization"}}))
    assert stages["optimization"].needs["victims"] == stages["shield"].key

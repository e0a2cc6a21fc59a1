"""The stage `student`: a copy that agrees with F, from random or public weights, under its own names."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.nn import functional

from orchestrator.config import Data, Student
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import public_images
from orchestrator.stages import student
from orchestrator.stages.io import Inputs
from orchestrator.stages.networks import new_classifier
from orchestrator.training.loop import fit
from orchestrator.training.objectives import distillation
from orchestrator.training.pairs import Pairs
from orchestrator.training.world import World
from tests import tiny

DATA = Data(dataset="digits", image_size=32, channels=1, class_pool=3)
LEARNS: dict[str, Any] = {
    "model": {"name": "ami-digit", "width": 0.05},
    "recipe": {"epochs": 6, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.05},
}


def run(settings: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> Any:
    """Distil a target that names the brighter half of an image."""
    images = public_images(load("digits", Location()), DATA).images[:]
    upper, lower = images.float().mean(dim=(1, 3)).chunk(2, dim=1)
    scores = torch.stack([upper.mean(1), lower.mean(1)], dim=1).div(4).softmax(dim=1)
    buffer = io.BytesIO()
    np.save(buffer, scores.numpy())
    inputs = Inputs(
        World(),
        lambda name: load(name, Location()),
        lambda role, name: {("answers", "scores.npy"): buffer.getvalue()}[role, name],
        weights=lambda role: weights if role == "start" else None,
    )
    return student.run(inputs, DATA, Student.model_validate(settings)), images, scores


def test_a_student_learns_what_the_target_answers() -> None:
    outputs, images, scores = run(LEARNS)
    network = new_classifier(Student.model_validate(LEARNS).model, 2, DATA, 0)
    network.load_state_dict(load_tensors(outputs.files["model.safetensors"]))
    with torch.no_grad():
        logits = network.eval()(images.float() / 255)
    agreement = (logits.argmax(1) == scores.argmax(1)).float().mean().item()
    assert agreement > max(0.9, scores.argmax(1).float().mean().item() + 0.02)
    divergence = functional.kl_div(logits.log_softmax(1), scores, reduction="batchmean")
    own = functional.kl_div(scores.mean(0).log().expand_as(scores), scores, reduction="batchmean")
    assert 0 <= divergence < 0.6 * own


def test_it_starts_from_public_weights_but_for_the_head() -> None:
    still = {**LEARNS, "recipe": {"epochs": 1, "batch_size": 64, "optimizer": "sgd", "learning_rate": 1e-12}}
    public = new_classifier(Student.model_validate(still).model, 7, DATA, 9)
    outputs, _, _ = run({**still, "weights": "some"}, public.state_dict())
    found = load_tensors(outputs.files["model.safetensors"])
    name = next(name for name, one in public.named_parameters() if name.startswith("blocks."))
    torch.testing.assert_close(found[name], public.state_dict()[name])
    own = new_classifier(Student.model_validate(still).model, 2, DATA, 0).state_dict()
    assert not torch.allclose(found[name], own[name])
    head = next(name for name in own if name.startswith("head."))
    torch.testing.assert_close(found[head], own[head])


def test_weights_of_another_network_are_refused() -> None:
    other = new_classifier(tiny.spec().judge.model.but(width=0.2), 7, DATA, 9)
    with pytest.raises(ValueError, match="weights some do not fit AmiClassifier"):
        run({**LEARNS, "weights": "some"}, other.state_dict())


def test_a_student_goes_by_its_own_seed_and_recipe() -> None:
    """First weights, order and held-out images are those of its seed."""
    short = Student.model_validate({**LEARNS, "recipe": {**LEARNS["recipe"], "epochs": 1}, "seed": 9})
    outputs, images, scores = run(short.model_dump())
    network = new_classifier(short.model, 2, DATA, 9)
    fit(network, Pairs(images, scores), distillation(), short.recipe, 9, World())
    found = load_tensors(outputs.files["model.safetensors"])
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found[name], tensor)

"""Trainings that would have too few images or too small batches are refused before anything starts."""

from collections import defaultdict
from typing import Any

import pytest

from orchestrator.config.base import num_held_out
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location
from orchestrator.sweep.fits import fits
from orchestrator.sweep.points import expand
from orchestrator.sweep.validation import Preflight
from orchestrator.training.pairs import hold_out
from tests import tiny

SURROGATE = {"features": 0.1, "surrogate": {"model": tiny.DIGIT, "recipe": {"validation_fraction": 0.99}}}


def refusal(changes: dict[str, Any], workers: int = 1) -> str:
    """Return why the tiny trial cannot be trained."""
    (point,) = expand(tiny.study({"seed": [0]}, changes))[0]
    with pytest.raises(StudyError) as caught:
        Preflight(Location(), lambda stage: workers).resolve(point)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "workers", "text"),
    [
        (
            {"auxiliary.size": 1},
            1,
            "auxiliary.size=1 leaves 0 of 1 images to train on by attack.recipe, and 2 are needed, a batch "
            "of two; give more images.",
        ),
        ({"auxiliary.size": 2}, 1, "auxiliary.size=2 leaves 1 of 2 images to train on by attack.recipe"),
        ({"auxiliary.size": 4}, 2, "auxiliary.size=4 leaves 3 of 4 images to train on by attack.recipe"),
        (
            {"auxiliary.size": 64},
            40,
            "attack.recipe.batch_size=64 must be at least 80, two for each of 40 workers; set it to 80 or "
            "more.",
        ),
        (
            {"target.recipe.batch_size": 1},
            1,
            "target.recipe.batch_size=1 must be at least 2, a batch of two;",
        ),
        (
            {"attack.recipe.validation_fraction": 0.99},
            1,
            "attack.recipe.validation_fraction=0.99 leaves 1 of 64 images to train on by attack.recipe, and "
            "2 are needed, a batch of two; lower it.",
        ),
        *(
            (
                {f"{path}.validation_fraction": 0.9999},
                1,
                f"{path}.validation_fraction=0.9999 leaves 0 of {images} images to train on by {path}",
            )
            for path, images in (
                ("target.recipe", 267),
                ("judge.recipe", 899),
                ("target.pretrain.recipe", 678),
            )
        ),
        (
            {"attack.losses": SURROGATE},
            1,
            "attack.losses.surrogate.recipe.validation_fraction=0.99 leaves 1 of 64 images",
        ),
        (
            {"attack": {"name": "joint", "model": tiny.DIGIT}, "target.recipe.validation_fraction": 0.999},
            1,
            "target.recipe.validation_fraction=0.999 leaves 0 of 267 images",
        ),
        (
            {"data.class_pool": 9},
            1,
            "data.class_pool=9 leaves one public class of the 10 of digits, and pretraining needs two; lower "
            "data.class_pool or name another set in target.pretrain.dataset.",
        ),
    ],
    ids=str,
)
def test_a_training_without_images_is_refused(changes: dict[str, Any], workers: int, text: str) -> None:
    for fit in ("target.recipe", "judge.recipe", "target.pretrain.recipe") if workers > 1 else ():
        changes = {**changes, f"{fit}.batch_size": 80}
    assert text in refusal(changes, workers)


KEDMI = {"attack": {"name": "kedmi"}, "prior": {"loss": "kedmi"}, "evaluation.task": "class-inference"}


def test_several_workers_of_a_prior_whose_loss_is_of_a_whole_batch_are_refused() -> None:
    """Its features are compared by their means over a batch and its entropy is a sum."""
    text = (
        "prior.loss=kedmi compares the images of a whole batch with each other, but 2 workers would "
        "share it; set resources.stages.prior.workers to 1."
    )
    assert text in refusal(KEDMI, workers=2)
    for changes, workers in ((KEDMI, {}), ({**KEDMI, "attack": {"name": "gmi"}, "prior": {}}, {"prior": 2})):
        (point,) = expand(tiny.study({"seed": [0]}, changes))[0]
        Preflight(Location(), defaultdict(lambda: 1, workers).__getitem__).resolve(point)


def test_a_conditional_prior_learns_from_the_chosen_images_of_its_classes() -> None:
    changes = {
        "attack": {"name": "plg-mi"},
        "prior": {"loss": "plg", "images_per_class": 2},
        "evaluation.task": "class-inference",
    }
    text = "prior.images_per_class=2 leaves 5 of 6 images to train on by prior, and 6 are needed"
    for dataset in (None, "photo-patches"):
        assert text in refusal({**changes, "prior.dataset": dataset}, workers=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"auxiliary.size": 3},
        {"target.recipe.validation_fraction": 0.999, "target.selection": "test"},
        {"attack.recipe.validation_fraction": 0.999, "attack.selection": "victim-train"},
        {"target.pretrain": None, "target.budget": "full", "data.class_pool": 9},
    ],
    ids=str,
)
def test_a_training_with_enough_images_passes(changes: dict[str, Any]) -> None:
    (point,) = expand(tiny.study({"seed": [0]}, changes))[0]
    Preflight(Location()).resolve(point)


def test_every_training_of_a_trial_is_checked() -> None:
    other = {"model": tiny.DIGIT, "seed": 8, "images": "auxiliary"}
    trial = tiny.spec({"attack.losses": SURROGATE, "judges": {"classifiers": {"b": other}}})
    assert [fit.images for fit in fits(trial) if fit.stage == "judge"] == ["every train", "every auxiliary"]
    assert [(fit.stage, fit.field) for fit in fits(trial)] == [
        ("target", "target.recipe"),
        ("judge", "judge.recipe"),
        ("judge", "judges.classifiers.b.recipe"),
        ("pretrain", "target.pretrain.recipe"),
        ("surrogate", "attack.losses.surrogate.recipe"),
        ("inversion", "attack.recipe"),
    ]


@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.5, 0.99])
def test_as_many_are_held_out_as_are_counted(fraction: float) -> None:
    assert len(hold_out(64, fraction, 0)[1]) == num_held_out(64, fraction)

"""The prior's spec: released values of the loss that is named, and what it refuses."""

from typing import Any

import pytest

from orchestrator.config import Prior


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ({}, (100, 4e-4, 1, 0.99, "brightness-shift")),
        ({"loss": "hinge", "epochs": 3}, (3, 4e-4, 1, 0.99, "brightness-shift")),
        ({"loss": "wgan-gp"}, (280, 2e-4, 5, 0.0, "none")),
        ({"loss": "kedmi"}, (120, 2e-4, 5, 0.0, "none")),
        ({"loss": "plg"}, (320, 2e-4, 5, 0.0, "none")),
        ({"loss": "wgan-gp", "epochs": 3, "average": 0.5}, (3, 2e-4, 5, 0.5, "none")),
    ],
)
def test_fields_left_out_are_those_of_the_loss(raw: dict[str, Any], values: tuple[object, ...]) -> None:
    prior = Prior.model_validate(raw)
    assert (
        prior.epochs,
        prior.critic_learning_rate,
        prior.critic_steps,
        prior.average,
        prior.augmentation,
    ) == values
    assert (prior.recipe.epochs, prior.recipe.batch_size) == (values[0], 64)
    assert Prior.model_validate(prior.plain) == prior


def test_the_conditional_prior_has_its_generator_and_betas() -> None:
    prior = Prior.model_validate({"loss": "plg"})
    assert (prior.model.name, prior.betas) == ("plg", (0.0, 0.9))
    assert (prior.images_per_class, prior.inversion_weight, prior.output_range) == (30, 0.2, "corrected")
    assert (Prior().model.name, Prior().betas) == ("gmi", (0.5, 0.999))
    own = {"images_per_class": 5, "inversion_weight": 1.0, "output_range": "released"}
    assert prior.but(**own).canonical() == prior.but(**own)
    assert Prior().but(**own).canonical() == Prior()


def test_another_loss_of_the_same_prior_keeps_its_values() -> None:
    assert Prior().but(loss="wgan-gp").epochs == 100


def test_a_scaling_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.scaling=signed is of a classifier's images"):
        Prior.model_validate({"model": {"name": "gmi", "scaling": "signed"}})

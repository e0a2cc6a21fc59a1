"""Networks by name: unknown names, unfit sizes, and layers put before a network."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from orchestrator import config
from orchestrator.models import CLASSIFIERS, INVERTERS
from orchestrator.models.build import build_classifier, build_critic, build_generator, build_inverter
from orchestrator.models.classifier import Classifier
from orchestrator.models.conditional_gan import ProjectionCritic
from orchestrator.models.gan import Critic, InversionCritic, SpectralCritic


def meta(name: str, **settings: str) -> Classifier:
    """Build a classifier without weights."""
    model = config.Model.model_validate({"name": name, "width": 0.1, **settings})
    with torch.device("meta"):
        return build_classifier(model, classes=5, channels=3, image_size=64)


@pytest.mark.parametrize("name", INVERTERS)
def test_inverters_are_made_for_the_images_of_the_classifier_of_their_name(name: str) -> None:
    assert INVERTERS[name].image_size == CLASSIFIERS[name].image_size


@pytest.mark.parametrize("name", ["vgg16", "ir152"])
def test_a_layer_in_front_moves_the_cuts_and_keeps_the_names_of_the_weights(name: str) -> None:
    plain, scaled = meta(name), meta(name, scaling="signed")
    assert scaled.state_dict().keys() == plain.state_dict().keys()
    assert scaled.cut_points == {cut: place + 1 for cut, place in plain.cut_points.items()}
    assert scaled.layer_groups == tuple(place + 1 for place in plain.layer_groups)
    assert scaled.hidden_taps == tuple(place + 1 for place in plain.hidden_taps)
    frozen = {budget: [place + 1 for place in places] for budget, places in plain.released.items()}
    assert {budget: list(places) for budget, places in scaled.released.items()} == frozen


def test_an_evaluation_model_resizes_images_to_its_own_side() -> None:
    model, images = config.Model(name="ami-digit", width=0.1), torch.rand(2, 1, 64, 64)
    networks = []
    for side, resizes in ((32, False), (64, True)):
        torch.manual_seed(0)
        network = build_classifier(model, classes=3, channels=1, image_size=side, resizes=resizes)
        networks.append(network.eval())
    small = functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    assert torch.equal(networks[1](images), networks[0](small))


@pytest.mark.parametrize("build", [build_classifier, build_inverter])
def test_unknown_network_lists_the_known(build: object) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=r"\.model\.name=vgg is unknown; choose one of ami-digit, ami-face"):
        build(config.Model(name="vgg"), classes=10, channels=1, image_size=32)


def test_wrong_image_size_names_the_fitting_network() -> None:
    expected = r"data.image_size=64 must be 32 for judge.model.name=ami-digit; .* made for 64 \(ami-face, "
    with pytest.raises(ValueError, match=expected):
        build_classifier(
            config.Model(name="ami-digit"), classes=10, channels=1, image_size=64, field="judge.model"
        )


def test_a_generator_and_the_critic_of_its_loss() -> None:
    shapes: Any = {"classes": 7, "channels": 1, "image_size": 32}

    def prior(loss: str, model: str) -> config.Prior:
        return config.Prior.model_validate({"loss": loss, "model": {"name": model, "width": 0.1}})

    images = build_generator(prior("hinge", "gmi"), **shapes)(torch.randn(2, 100))
    assert images.shape == (2, 1, 32, 32)
    for loss, kind in (("hinge", SpectralCritic), ("wgan-gp", Critic), ("kedmi", InversionCritic)):
        critic = build_critic(prior(loss, "gmi"), **shapes)
        assert isinstance(critic, kind)
        assert critic(images).shape == ((2, 7) if loss == "kedmi" else (2,))
    classes = torch.tensor([6, 0])
    images = build_generator(prior("plg", "plg"), **shapes)(torch.randn(2, 128), classes)
    critic = build_critic(prior("plg", "plg"), **shapes)
    assert isinstance(critic, ProjectionCritic)
    assert critic(images, classes).shape == (2,)
    with pytest.raises(ValueError, match=r"prior\.model\.name=dcgan is unknown; choose one of gmi, plg\."):
        build_generator(prior("hinge", "dcgan"), **shapes)

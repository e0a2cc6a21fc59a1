"""Operations equal what torch counts on the networks that they stand for."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.config import Prior
from orchestrator.config.base import Model
from orchestrator.models import CLASSIFIERS, operations
from orchestrator.models.build import build_classifier, build_critic, build_generator, build_inverter
from orchestrator.models.dcgan import Dcgan
from orchestrator.models.discriminator import Discriminator
from orchestrator.models.freezing import freeze
from orchestrator.models.stylegan2 import StyleGan2

FAST = ("ami-digit", "ami-face", "vgg16", "facenet64", "resnet18", "efficientnet_b0", "inception_v3")
"""Networks that are counted here; the tables of the others were made in the same way."""
SIDES = {"ami-digit": 32, "inception_v3": 299}
GROUPED = ("efficientnet_b0",)
"""Networks of grouped convolutions, whose gradients torch's counter takes for those of whole ones."""
TOLERANCE = 0.03
"""Of a table, whose networks round sides up."""


def counted(network: nn.Module, *inputs: Tensor, trains: bool = False) -> float:
    """Return the multiply-adds that torch counts for one image of two."""
    with FlopCounterMode(display=False) as counter:
        made = network(*inputs)
        if trains:
            made.sum().backward()
    return counter.get_total_flops() / 4


@pytest.mark.parametrize("name", FAST)
def test_a_classifier_has_the_operations_that_torch_counts(name: str) -> None:
    side, widths = SIDES.get(name, 64), [1.0, 0.25] if name in ("ami-face", "vgg16", "facenet64") else [1.0]
    for width, (classes, channels) in itertools.product(widths, [(7, 1), (530, 3)]):
        shapes: dict[str, Any] = {"classes": classes, "channels": channels, "image_size": side}
        model = Model(name=name, width=width)
        with torch.device("meta"):
            network = build_classifier(model, **shapes).train()
            images = torch.empty(2, channels, side, side)
        found = operations.classifier(model, **shapes)
        assert found.family == CLASSIFIERS[name].path
        assert found.forward == pytest.approx(counted(network, images), rel=TOLERANCE)
        if name not in GROUPED:
            trained = counted(network, images, trains=True)
            assert found.trained == pytest.approx(trained, rel=TOLERANCE)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_has_operations_at_every_cut(name: str) -> None:
    side = CLASSIFIERS[name].image_size
    shapes: dict[str, Any] = {"classes": 10, "channels": 3, "image_size": side}
    full = operations.classifier(Model(name=name), **shapes)
    assert full.forward > 0
    assert full.activations > side**2
    cuts = operations.outline(Model(name=name), **shapes).cut_points
    trained = [operations.classifier(Model(name=name), **shapes, budget=cut).trained for cut in cuts]
    assert trained == sorted(trained, reverse=True)
    assert full.trained > trained[0]
    assert trained[-1] < full.forward * 1.2


def test_frozen_layers_take_no_gradients() -> None:
    shapes: dict[str, Any] = {"classes": 5, "channels": 1, "image_size": 32}
    model = Model(name="ami-digit", width=0.25)
    with torch.device("meta"):
        network = build_classifier(model, **shapes)
        images = torch.empty(2, 1, 32, 32)
    freeze(network, "block2", "weights")
    found = operations.classifier(model, **shapes, budget="block2")
    assert found.trained == pytest.approx(counted(network.train(), images, trains=True), rel=TOLERANCE)


@pytest.mark.parametrize(("name", "side"), [("ami-digit", 32), ("ami-face", 64)])
def test_an_inverter_has_the_operations_that_torch_counts(name: str, side: int) -> None:
    model = Model(name=name, width=0.5)
    shapes: dict[str, Any] = {"classes": 7, "channels": 1, "image_size": side}
    with torch.device("meta"):
        network = build_inverter(model, **shapes)
        scores = torch.empty(2, 7)
    assert operations.inverter(model, **shapes).forward == pytest.approx(counted(network, scores), rel=0.001)


@pytest.mark.parametrize("side", [32, 64])
def test_a_discriminator_has_the_operations_that_torch_counts(side: int) -> None:
    with torch.device("meta"):
        network = Discriminator(channels=1, image_size=side, width=0.5)
        images = torch.empty(2, 1, side, side)
    found = operations.discriminator(0.5, channels=1, image_size=side)
    assert found.forward == pytest.approx(counted(network, images), rel=0.001)
    assert found.trained == pytest.approx(counted(network, images, trains=True), rel=TOLERANCE)


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp", "kedmi", "plg"])
@pytest.mark.parametrize("side", [32, 64])
def test_a_prior_has_the_operations_that_torch_counts(loss: str, side: int) -> None:
    prior = Prior.model_validate(
        {"loss": loss, "model": {"name": "plg" if loss == "plg" else "gmi", "width": 0.5}}
    )
    shapes = {"channels": 3, "image_size": side}
    with torch.device("meta"):
        generator = build_generator(prior, classes=7, **shapes)
        critic = build_critic(prior, classes=7, **shapes)
        latents, images = torch.empty(2, generator.latent_size), torch.empty(2, 3, side, side)
        classes = (torch.zeros(2, dtype=torch.int64),) if loss == "plg" else ()
    made = operations.generator(prior.model, **shapes)
    assert made.forward == pytest.approx(counted(generator, latents, *classes), rel=0.01)
    seen = operations.critic(loss, 0.5, classes=7, **shapes)
    assert seen.forward == pytest.approx(counted(critic.eval(), images, *classes), rel=0.02)


@pytest.mark.parametrize("kind", ["stylegan2", "dcgan"])
def test_a_generator_that_others_trained_has_the_operations_that_torch_counts(kind: str) -> None:
    network: nn.Module = Dcgan(channels=3, counts=(16, 8), latent_size=6)
    if kind == "stylegan2":
        network = StyleGan2(channels=3, counts=(32, 16, 8), latent_size=8, style_size=8, layers=2)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = operations.brought_generator(shapes, "public")
    size = 8 if kind == "stylegan2" else 6
    counts = counted(network.eval(), torch.zeros(2, size))
    assert found.forward == pytest.approx(counts, rel=0.2)

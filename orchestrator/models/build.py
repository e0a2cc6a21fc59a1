"""Construction of networks by name; the module of a network is imported when one is built."""

from collections import OrderedDict
from importlib import import_module
from typing import Any

from torch import nn

from orchestrator import config
from orchestrator.models import CRITICS, GENERATORS, INVERTERS, Architecture, find, sized
from orchestrator.models.classifier import Classifier
from orchestrator.models.conditional_gan import ConditionalGenerator
from orchestrator.models.generator import StyleGenerator
from orchestrator.models.inputs import Resized, Scaled
from orchestrator.models.outlines import shifted

AnyGenerator = StyleGenerator | ConditionalGenerator


def build_classifier(
    model: config.Model,
    *,
    classes: int,
    channels: int,
    image_size: int,
    field: str = "target.model",
    resizes: bool = False,
) -> Classifier:
    """Return a classifier, images (N, C, S, S) in [0, 1] -> logits (N, k).

    Its weights are initialised from torch's global generator.
    With `resizes` (an evaluation model) it first resizes images to the side that the network is made for.
    Raise `Refused` if `field`, the dotted path of `model` in messages, names no network or one of another
    size or width.
    """
    architecture, side = sized(model, image_size, field, resizes=resizes)
    shapes = {"classes": classes, "channels": channels, "image_size": side}
    network: Classifier = network_class(architecture)(**shapes, width=model.width)
    if model.scaling != "unit":
        prepend(network, "scaling", Scaled(model.scaling))
    if side != image_size:
        prepend(network, "resizing", Resized(side))
    return network


def build_inverter(
    model: config.Model, *, classes: int, channels: int, image_size: int, field: str = "attack.model"
) -> nn.Module:
    """Return an inverter, encoded scores z (N, k) -> images (N, C, S, S) in [0, 1].

    Its weights are initialised from torch's global generator.
    Raise `Refused` if `field`, the dotted path of `model` in messages, names no network or one of another
    size.
    """
    architecture = find(INVERTERS, model.name, image_size, field)
    shapes = {"classes": classes, "channels": channels, "image_size": image_size}
    network: nn.Module = network_class(architecture)(**shapes, width=model.width)
    return network


def build_generator(prior: config.Prior, *, classes: int, channels: int, image_size: int) -> AnyGenerator:
    """Return the generator of a prior, latents z (N, `latent_size`) -> images (N, C, S, S) in [0, 1].

    A conditional one reads which of `classes` each image is to be, (N,), beside them. Its weights are
    initialised from torch's global generator. Raise `Refused` if `prior.model` names no network, or for a
    side that it does not have.
    """
    architecture = find(GENERATORS, prior.model.name, image_size, "prior.model")
    own: dict[str, Any] = {}
    if architecture.is_conditional:
        own = {"classes": classes, "is_signed": prior.output_range == "released"}
    made = network_class(architecture)
    network: AnyGenerator = made(channels=channels, image_size=image_size, width=prior.model.width, **own)
    return network


def build_critic(prior: config.Prior, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Return the critic of a prior's loss, images (N, C, S, S) in [0, 1] -> how real each is, (N,).

    KEDMI's returns logits (N, k) of the k `classes` of a target, a conditional one reads which of them each
    image is of, (N,), beside the images; others do not read `classes`. Its weights are initialised from
    torch's global generator. Raise `Refused` for a side that the generator does not have.
    """
    critic, own = network_class(CRITICS[prior.loss]), {"classes": classes} if prior.needs_target else {}
    network: nn.Module = critic(channels=channels, image_size=image_size, width=prior.model.width, **own)
    return network


def network_class(architecture: Architecture) -> Any:
    """Return the class of a network, importing its module: one stage needs few of them."""
    module, _, name = architecture.path.rpartition(".")
    return getattr(import_module(f"orchestrator.models.{module}"), name)


def prepend(network: Classifier, name: str, block: nn.Module) -> None:
    """Insert a block without parameters before all others, in place; shift cut points, groups and taps."""
    network.blocks = nn.Sequential(OrderedDict([(name, block), *network.blocks.named_children()]))
    network.cut_points = {cut: place + 1 for cut, place in network.cut_points.items()}
    network.hidden_taps = tuple(place + 1 for place in network.hidden_taps)
    first, middle = network.layer_groups
    network.layer_groups = (first + 1, middle + 1)
    network.last_stage = shifted(network.last_stage, 1)
    network.released = {name: shifted(blocks, 1) for name, blocks in network.released.items()}

"""Networks by name: classifiers (target, evaluation model, surrogates) and inverters."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from orchestrator import config
from orchestrator.config.base import Refused
from orchestrator.models.ami import AmiClassifier, AmiInverter
from orchestrator.models.classifier import Classifier
from orchestrator.models.inputs import Resized, Scaled
from orchestrator.models.ir import FaceNet, FaceNet64, Ir152
from orchestrator.models.library import (
    InceptionV3,
    MaxVitT,
    ResNeSt101,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
)
from orchestrator.models.vgg import Vgg16

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Architecture(Generic[Network]):
    """A network's constructor and the image sizes it admits."""

    build: Callable[..., Network]
    """Takes classes, channels, image_size and width by keyword; raises `Refused` for other sizes."""

    image_size: int
    """Side in pixels that the network is made for."""

    is_flexible: bool = False
    """Whether it admits other sides; the constructor checks which."""


CLASSIFIERS: dict[str, Architecture[Classifier]] = {
    "ami-digit": Architecture(AmiClassifier, 32),
    "ami-face": Architecture(AmiClassifier, 64),
    "vgg16": Architecture(Vgg16, 64, is_flexible=True),
    "ir152": Architecture(Ir152, 64, is_flexible=True),
    "facenet64": Architecture(FaceNet64, 64, is_flexible=True),
    "facenet": Architecture(FaceNet, 112, is_flexible=True),
    "resnet18": Architecture(ResNet18, 224, is_flexible=True),
    "resnet34": Architecture(ResNet34, 224, is_flexible=True),
    "resnet50": Architecture(ResNet50, 224, is_flexible=True),
    "resnet101": Architecture(ResNet101, 224, is_flexible=True),
    "resnest101": Architecture(ResNeSt101, 224, is_flexible=True),
    "maxvit_t": Architecture(MaxVitT, 224),
    "inception_v3": Architecture(InceptionV3, 299, is_flexible=True),
}
"""Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

INVERTERS: dict[str, Architecture[nn.Module]] = {
    "ami-digit": Architecture(AmiInverter, 32),
    "ami-face": Architecture(AmiInverter, 64),
}
"""Encoded scores z (N, k) -> images (N, C, S, S) in [0, 1]."""


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
    architecture = _find(CLASSIFIERS, model.name, None if resizes else image_size, field)
    side = image_size if architecture.is_flexible and not resizes else architecture.image_size
    network = architecture.build(classes=classes, channels=channels, image_size=side, width=model.width)
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
    architecture = _find(INVERTERS, model.name, image_size, field)
    return architecture.build(classes=classes, channels=channels, image_size=image_size, width=model.width)


def prepend(network: Classifier, name: str, block: nn.Module) -> None:
    """Insert a block without parameters before all others, in place; shift cut points, groups and taps."""
    network.blocks = nn.Sequential(OrderedDict([(name, block), *network.blocks.named_children()]))
    network.cut_points = {cut: place + 1 for cut, place in network.cut_points.items()}
    network.hidden_taps = tuple(place + 1 for place in network.hidden_taps)
    first, middle = network.layer_groups
    network.layer_groups = (first + 1, middle + 1)
    network.released = {
        name: range(blocks.start + 1, blocks.stop + 1) for name, blocks in network.released.items()
    }


def _find(
    known: Mapping[str, Architecture[Network]], name: str, image_size: int | None, field: str
) -> Architecture[Network]:
    if name not in known:
        raise Refused(f"{field}.name", name, "is unknown", f"choose one of {', '.join(known)}")
    architecture = known[name]
    if image_size not in (None, architecture.image_size) and not architecture.is_flexible:
        fitting = ", ".join(other for other, one in known.items() if one.image_size == image_size)
        rule = f"must be {architecture.image_size} for {field}.name={name}"
        others = f"a network made for {image_size} ({fitting or 'there is none'})"
        raise Refused("data.image_size", image_size, rule, f"change the size or choose {others}")
    return architecture

"""Networks by name: the classifiers a victim trains and the inverters an adversary trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from orchestrator import spec
from orchestrator.models.ami import AmiClassifier, AmiInverter
from orchestrator.models.classifier import Classifier

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Architecture(Generic[Network]):
    """A constructor (classes, channels, image_size and width by keyword) and the image side it is made
    for."""

    build: Callable[..., Network]
    image_size: int


CLASSIFIERS: dict[str, Architecture[Classifier]] = {
    "ami-digit": Architecture(AmiClassifier, 32),
    "ami-face": Architecture(AmiClassifier, 64),
}
"""Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

INVERTERS: dict[str, Architecture[nn.Module]] = {
    "ami-digit": Architecture(AmiInverter, 32),
    "ami-face": Architecture(AmiInverter, 64),
}
"""Encoded scores z (N, k) -> images (N, C, S, S) in [0, 1]."""


def build_classifier(
    model: spec.Model, *, classes: int, channels: int, image_size: int, field: str = "target.model"
) -> Classifier:
    """Build a classifier with logits as output; its first weights come from torch's global generator."""
    architecture = _find(CLASSIFIERS, model.name, image_size, field)
    return architecture.build(classes=classes, channels=channels, image_size=image_size, width=model.width)


def build_inverter(
    model: spec.Model, *, classes: int, channels: int, image_size: int, field: str = "attack.model"
) -> nn.Module:
    """Build an inverter of encoded scores; its first weights come from torch's global generator."""
    architecture = _find(INVERTERS, model.name, image_size, field)
    return architecture.build(classes=classes, channels=channels, image_size=image_size, width=model.width)


def _find(
    known: Mapping[str, Architecture[Network]], name: str, image_size: int, field: str
) -> Architecture[Network]:
    if name not in known:
        raise ValueError(f"{field}.name={name} is unknown; choose one of {', '.join(known)}.")
    architecture = known[name]
    if image_size != architecture.image_size:
        fitting = ", ".join(other for other, one in known.items() if one.image_size == image_size)
        raise ValueError(
            f"data.image_size={image_size} must be {architecture.image_size} for {field}.name={name}; "
            f"change the size or choose a network made for {image_size} ({fitting or 'there is none'})."
        )
    return architecture

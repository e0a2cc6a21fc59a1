"""Outputs of networks that staged weights are whole: F as its defense makes it, judges. Imports torch."""

from collections.abc import Mapping

import torch

from orchestrator.config import Data, Model
from orchestrator.config.target import Target
from orchestrator.defenses import protected
from orchestrator.models.build import build_classifier
from orchestrator.models.fit import outputs

Shapes = Mapping[str, tuple[int, ...]]


def target_outputs(target: Target, data: Data, shapes: Shapes, name: str) -> int:
    """Return what `fit.outputs` does of weights `name` with these tensors as F; raise as it does."""
    with torch.device("meta"):
        network = build_classifier(
            target.model,
            classes=target.classes,
            channels=data.channels,
            image_size=data.image_size,
        )
        protected(network, target)
    return outputs(network, shapes, name=name)


def judge_outputs(field: str, model: Model, data: Data, classes: int, shapes: Shapes, name: str) -> int:
    """Return what `fit.outputs` does of weights `name` with these tensors as the judge of a field, wanted for
    that many classes; raise as it does, and as `build_classifier` for the network."""
    with torch.device("meta"):
        network = build_classifier(
            model,
            classes=classes,
            channels=data.channels,
            image_size=data.image_size,
            field=f"{field}.model",
            resizes=True,
        )
    return outputs(network, shapes, name=name)

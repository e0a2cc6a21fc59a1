"""Fit of public weights: their names and shapes against a network that is built without memory."""

from collections.abc import Mapping

import torch

from orchestrator.config.base import Model
from orchestrator.models.build import build_classifier
from orchestrator.models.public import HEAD, renamed

Stored = Mapping[str, tuple[int, ...]]
Shapes = dict[str, tuple[int, ...]]


def heads(
    model: Model,
    stored: Mapping[str, tuple[int, ...]],
    *,
    name: str,
    classes: int,
    channels: int,
    image_size: int,
    resizes: bool = False,
) -> tuple[Shapes, Shapes]:
    """Return the shapes of the network's head and of the head in the weights, both as `head.*`.

    `stored` has the shapes of the weights called `name`. Raise `Refused` if their body does not fit.
    """
    with torch.device("meta"):
        network = build_classifier(
            model, classes=classes, channels=channels, image_size=image_size, resizes=resizes
        )
        public = {tensor: torch.empty(shape) for tensor, shape in stored.items()}
    return _head(network.state_dict()), _head(renamed(network, public, name=name))


def _head(state: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(HEAD)}

"""Fit of public weights: their names and shapes against a network that is built without memory."""

from collections.abc import Mapping

import torch

from orchestrator.config.base import Model
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.public import HEAD, num_outputs, renamed, whole

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


def outputs(network: Classifier, stored: Stored, *, name: str) -> int:
    """Return how many outputs the weights called `name` have, of these shapes, that are a whole network.

    `network` is built without memory, for as many classes as are wanted. Where the weights have as many,
    raise `Refused` unless each of its tensors is among them in its shape, and no other; where they have no
    head too.
    """
    with torch.device("meta"):
        public = {tensor: torch.empty(shape) for tensor, shape in stored.items()}
    given, wanted = num_outputs(network, public), num_outputs(network, network.state_dict())
    if given is None or given == wanted:
        whole(network, public, name=name)
    assert given is not None  # the head is a part of the whole
    return given


def _head(state: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(HEAD)}

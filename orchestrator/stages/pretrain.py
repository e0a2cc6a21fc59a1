"""Pretraining: the target's network on public classes, trained here or elsewhere (TL-DMI, section 9)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.config import Data, Model, Pretrain
from orchestrator.datasets import selection
from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.models.public import renamed
from orchestrator.stages.io import Inputs, Outputs, tensors, trained
from orchestrator.stages.networks import new_classifier
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs


def run(inputs: Inputs, data: Data, model: Model, pretrain: Pretrain) -> Outputs:
    """Train on public classes, or take public weights; raise `ValueError` if the network is worse than
    `pretrain.minimum_accuracy`."""
    images, other = None, inputs.names.get("pretrain")
    if other is not None:
        images = selection.whole(inputs.datasets(other), data)
    elif pretrain.weights is None:
        images = selection.public_images(inputs.datasets(data.dataset), data)
    public = inputs.weights("pretrain")
    if public is not None:
        outputs = _public_weights(public, images, data, model, pretrain, inputs.world.device)
    else:
        assert images is not None
        network = new_classifier(model, images.num_classes, data, pretrain.seed)
        pairs = Pairs(images.images, images.labels)
        fitted = fit(network, pairs, classification(), pretrain.recipe, pretrain.seed, inputs.world)
        outputs = trained("pretrain", network, fitted)
    _check_accuracy(outputs, pretrain)
    return outputs


def _public_weights(
    public: Mapping[str, Tensor],
    images: ImageSet | None,
    data: Data,
    model: Model,
    pretrain: Pretrain,
    device: torch.device,
) -> Outputs:
    """Return the network that holds the weights; measure their own head on labelled images if there are any.

    Loading is strict: every tensor of the network's body is in the weights with its shape, and nothing else.
    """
    classes = images.num_classes if images else 2
    network = new_classifier(model, classes, data, pretrain.seed)
    state = renamed(network, public, name=str(pretrain.weights))
    head = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    body = {name: tensor for name, tensor in state.items() if name not in head}
    network.load_state_dict(network.state_dict() | body | (head if images else {}))
    metrics = {}
    if images is not None:
        logits = predict(network.to(device), images.images, device)
        metrics["pretrain/accuracy"] = topk_accuracy(logits, images.labels) or 0.0
    files = {"model.safetensors": tensors(network.state_dict())}
    return Outputs(files, metrics, len(images) if images else 0)


def _check_accuracy(outputs: Outputs, pretrain: Pretrain) -> None:
    name = "pretrain/accuracy" if pretrain.weights else "pretrain/validation_accuracy"
    reached = outputs.metrics.get(name)
    if reached is not None and reached < pretrain.minimum_accuracy:
        raise ValueError(
            f"target.pretrain reaches an accuracy of {reached:.3f}, below target.pretrain.minimum_accuracy="
            f"{pretrain.minimum_accuracy}; check the weights and the scaling of images, or lower it."
        )

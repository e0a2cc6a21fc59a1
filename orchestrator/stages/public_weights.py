"""Public weights that somebody else has trained: put into the target's network, and checked before use."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.config import Data, Model, Pretrain
from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.models.public import renamed
from orchestrator.stages.io import Outputs, new_classifier, tensors
from orchestrator.training.loop import predict


def public_weights(
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


def check_accuracy(outputs: Outputs, pretrain: Pretrain) -> None:
    """Raise if the network is worse than `pretrain.minimum_accuracy`."""
    name = "pretrain/accuracy" if pretrain.weights else "pretrain/validation_accuracy"
    found = outputs.metrics.get(name)
    if found is not None and found < pretrain.minimum_accuracy:
        raise ValueError(
            f"target.pretrain reaches an accuracy of {found:.3f}, below target.pretrain.minimum_accuracy="
            f"{pretrain.minimum_accuracy}; check the weights and the scaling of images, or lower it."
        )

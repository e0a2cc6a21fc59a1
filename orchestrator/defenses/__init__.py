"""Defenses of the victim, composed: what they change in the network and in its objective, `spec.Defense`.

`defended` is called wherever the network is built, for training and for loading alike, after `freeze`.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from orchestrator.config import Defense
from orchestrator.defenses.bido import penalty
from orchestrator.defenses.mid import MidHead
from orchestrator.defenses.private import prepared, private_optimizer, with_image_gradients
from orchestrator.defenses.smoothing import alpha_at, smoothed_cross_entropy
from orchestrator.models.classifier import Classifier
from orchestrator.training.objectives import Objective, classification


def defended(network: Classifier, defense: Defense, classes: int) -> Classifier:
    """Give the network the parts that its defense needs, in place; new weights come from torch's global
    generator."""
    if defense.mid:
        network.head = MidHead(network.num_features, classes, defense.mid.noise_at_inference)
    if defense.dp:
        prepared(network)
    return network


def objective(defense: Defense, classes: int) -> Objective:
    """Return the loss of a `defended` network; validation and the best epoch are those of any classifier."""
    plain = classification()
    if defense.mid or defense.bido or defense.smoothing:
        plain = _regularised(plain, defense, classes)
    if defense.dp:
        steps_by = partial(private_optimizer, defense.dp)
        plain = replace(plain, wrap=with_image_gradients, steps_by=steps_by)
    return plain


def needs_pixels(defense: Defense) -> bool:
    """Whether the loss compares every block with the images: then no block's output can be computed once."""
    return defense.bido is not None


def _regularised(plain: Objective, defense: Defense, classes: int) -> Objective:
    """Replace the loss of an objective by one with what the defenses add."""
    alpha = defense.smoothing.alpha if defense.smoothing else 0.0

    def begins(epoch: int, epochs: int) -> None:
        nonlocal alpha
        if defense.smoothing:
            alpha = alpha_at(defense.smoothing, epoch, epochs)

    def loss(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        logits, hidden = model.with_hidden(images) if defense.bido else (model(images), [])
        total = smoothed_cross_entropy(logits.float(), labels, alpha)
        if defense.mid:
            total = total + defense.mid.weight * model.head.divergence
        if defense.bido:
            total = total + penalty(defense.bido, images, hidden, labels, classes)
        return total

    return replace(plain, loss=loss, begins=begins)

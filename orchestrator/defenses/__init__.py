"""Defenses of the target model, composed: changes of its network and of its objective (`config.Defense`).

`protected` changes the network where it is built, for training and for loading alike: `reduced` before
`freeze`, and `defended` after it.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchestrator.config import Defense, Target
from orchestrator.defenses.bido import penalty
from orchestrator.defenses.erasing import erased
from orchestrator.defenses.loft import LoftHead
from orchestrator.defenses.mid import RELEASED, MidHead
from orchestrator.defenses.private import prepared, private_optimizer, with_image_gradients
from orchestrator.defenses.smoothing import alpha_at, smoothed_cross_entropy
from orchestrator.models.budgets import Frozen
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze
from orchestrator.models.skips import leave_out_last_skips
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import classification
from orchestrator.training.seeds import seeded


def protected(network: Classifier, target: Target) -> Frozen:
    """Freeze and defend a target's network, in place; new parts have first weights that depend on its seed
    alone. Raise as `defended` does."""
    frozen = freeze(reduced(network, target.defense), target.budget, target.freeze)

    def protect() -> Any:
        return defended(network, target.defense, target.classes)

    seeded(protect, target.seed)
    return frozen


def reduced(network: Classifier, defense: Defense) -> Classifier:
    """Leave out the parts of the public network that a defense does without, in place, and return it.

    Called after public weights are loaded and before `freeze`, which counts what is left.
    """
    if defense.rolss:
        leave_out_last_skips(network)
    return network


def defended(network: Classifier, defense: Defense, classes: int) -> Classifier:
    """Add the parts that a defense needs to the network, in place, and return it.

    New weights come from torch's global generator. Raise `Refused` if `dp` cannot protect a layer.
    """
    if defense.mid and defense.mid.replaces_norm is not False and network.norm_before_head:
        network.blocks.register_module(network.norm_before_head, nn.Identity())
    if defense.mid:
        network.head = MidHead(network.num_features, classes, defense.mid.noise_at_inference)
        network.renamed = {**network.renamed, **RELEASED}
        network.ignored = tuple(prefix for prefix in network.ignored if prefix not in RELEASED)
    if defense.loft:
        network.head = LoftHead(network.num_features, classes, defense.loft.rank, defense.loft.norm)
    if defense.dp:
        prepared(network)
    return network


def objective(defense: Defense, classes: int) -> Objective:
    """Return the objective of a `defended` network: images (N, C, S, S) in [0, 1], labels (N,) of `classes`.

    Validation and the best epoch are those of any classifier.
    """
    plain = classification()
    if defense.mid or defense.bido or defense.smoothing:
        plain = _regularised(plain, defense, classes)
    if defense.erasing:
        plain = replace(plain, augment=partial(erased, erasing=defense.erasing))
    if defense.dp:
        steps_by = partial(private_optimizer, defense.dp)
        plain = replace(plain, wrap=with_image_gradients, steps_by=steps_by)
    return plain


def needs_pixels(defense: Defense) -> bool:
    """Return whether the loss compares every block with the images, or changes the images, so that no block
    can be computed once."""
    return defense.bido is not None or defense.erasing is not None


def _regularised(plain: Objective, defense: Defense, classes: int) -> Objective:
    """Replace the loss of an objective by one with the defenses' terms."""
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

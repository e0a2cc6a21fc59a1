"""Frozen-layer budgets (TL-DMI: Ho et al., CVPR 2024, Table 8): early layers keep their public weights.

A budget is `full`, a cut point's name, or |theta_C| in millions. Cut points are ordered from early to late;
freezing at one freezes everything up to and including it. Each classifier lists its own (`Classifier.cuts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator import spec
from orchestrator.models import CLASSIFIERS, build_classifier
from orchestrator.models.classifier import Classifier

FULL = "full"
"""The budget that freezes nothing."""


@dataclass(frozen=True)
class Frozen:
    """What a budget came to."""

    cut: str
    """Name of the cut point, or `full`."""

    trainable: int
    """|theta_C|: parameters that private data may change."""

    total: int
    """|theta_T|: all parameters."""


class FixedStatistics(_BatchNorm):
    """A batch norm that stays in evaluation mode whatever mode its model is put in; same state as the one it
    replaces."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any shape: the batch norm this one replaces has been chosen for its input."""


def cut_points(classifier_name: str) -> tuple[str, ...]:
    """List the cut points of a known classifier, early to late."""
    size = CLASSIFIERS[classifier_name].image_size
    with torch.device("meta"):
        network = build_classifier(spec.Model(name=classifier_name), classes=2, channels=1, image_size=size)
    return tuple(network.cuts)


def freeze(
    network: Classifier, budget: str, mode: Literal["weights", "weights+statistics"] = "weights"
) -> Frozen:
    """Stop the gradients of everything up to and including the cut point `budget`, in place.

    Under `weights` (as released) frozen batch norms go on absorbing private data; under `weights+statistics`
    their running means and variances are fixed too, and used in training as well. Call it before an optimiser
    or a parallel wrapper takes hold of the network.
    """
    for path in _frozen_modules(network.cuts, budget):
        block = network.get_submodule(path)
        block.requires_grad_(False)
        if mode == "weights+statistics":
            _fix_statistics(block)
    total = sum(parameter.numel() for parameter in network.parameters())
    return Frozen(budget, sum(parameter.numel() for parameter in trainable_parameters(network)), total)


def resolve_budget(
    model: spec.Model, budget: str | float, *, classes: int, channels: int, image_size: int
) -> str:
    """Return the name of the cut point that a budget means: itself if a name, else the nearest in |theta_C|
    (millions)."""
    with torch.device("meta"):
        network = build_classifier(model, classes=classes, channels=channels, image_size=image_size)
    if isinstance(budget, str):
        _frozen_modules(network.cuts, budget)
        return budget
    # Each cut freezes more than the one before it, so one network serves all of them.
    counts = {FULL: freeze(network, FULL).trainable}
    counts |= {cut: freeze(network, cut).trainable for cut in network.cuts}
    return min(counts, key=lambda cut: abs(counts[cut] - budget * 1e6))


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """List what an optimiser may have: weight decay must not reach frozen parameters."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _frozen_modules(cuts: Mapping[str, tuple[str, ...]], budget: str) -> list[str]:
    """List the submodules that a budget freezes."""
    if budget == FULL:
        return []
    if budget not in cuts:
        raise ValueError(
            f"target.budget={budget} is no cut point of this classifier; "
            f"choose {FULL}, {', '.join(cuts)}, or |theta_C| in millions."
        )
    names = list(cuts)
    return [path for name in names[: names.index(budget) + 1] for path in cuts[name]]


def _fix_statistics(block: nn.Module) -> None:
    """Replace every batch norm inside `block` by one of fixed statistics, sharing its parameters and
    buffers."""
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, FixedStatistics):
                fixed = FixedStatistics(
                    child.num_features, child.eps, child.momentum, child.affine, device="meta"
                )
                fixed.weight, fixed.bias = child.weight, child.bias
                for buffer, value in child.named_buffers():
                    setattr(fixed, buffer, value)
                parent.add_module(name, fixed.eval())

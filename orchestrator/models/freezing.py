"""Frozen-layer budgets (TL-DMI: Ho et al., CVPR 2024, Table 8): early layers keep their public weights.

A budget is `full`; a cut point's name, which freezes everything up to and including it; |theta_C| in millions
or as a percentage of |theta_T|, which means the cut point that comes within 5 %; or a layer set (supplement
B.2): `last` trains the last layers only, `first` and `middle` train these as well. Each classifier says where
its cut points and layer sets are (`Classifier.cut_points`, `Classifier.layer_groups`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from orchestrator import config
from orchestrator.models import build_classifier
from orchestrator.models.classifier import Classifier

FULL = "full"
"""The budget that freezes nothing."""

LAYER_SETS = ("first", "middle", "last")
"""Which layers train, the last ones always."""

TOLERANCE = 0.05
"""How far the nearest cut point may be from a number, as a share of it."""


@dataclass(frozen=True)
class Frozen:
    """What a budget came to."""

    cut: str
    """Name of the cut point or layer set, or `full`."""

    blocks: range
    """Places of the frozen blocks."""

    trainable: int
    """|theta_C|: parameters that private data may change."""

    total: int
    """|theta_T|: all parameters."""

    @property
    def prefix(self) -> int:
        """How many blocks from the first one on are frozen: no gradient flows there."""
        return len(self.blocks) if self.blocks.start == 0 else 0


def freeze(
    network: Classifier, budget: str, mode: Literal["weights", "weights+statistics"] = "weights"
) -> Frozen:
    """Stop the gradients of the blocks that a budget (a name) freezes, in place.

    Under `weights` (as released) frozen batch norms go on absorbing private data; under `weights+statistics`
    frozen blocks stay in evaluation mode, so that their running means and variances are fixed, and used in
    training as well. Call it before an optimiser or a parallel wrapper takes hold of the network.
    """
    blocks = frozen_blocks(network, budget)
    for place in blocks:
        network.blocks[place].requires_grad_(False)
    if mode == "weights+statistics":
        network.fixed = blocks
    total = sum(parameter.numel() for parameter in network.parameters())
    return Frozen(budget, blocks, sum(p.numel() for p in trainable_parameters(network)), total)


def frozen_blocks(network: Classifier, budget: str) -> range:
    """Return the places of the blocks that a budget, given by name, freezes."""
    if budget == FULL:
        return range(0)
    if budget in network.cut_points:
        return range(network.cut_points[budget])
    if budget in network.released:
        return network.released[budget]
    first, middle = network.layer_groups
    sets = {"first": range(first, middle), "middle": range(first), "last": range(middle)}
    if budget not in sets:
        raise ValueError(
            f"target.budget={budget} is no cut point of this classifier; choose {FULL}, "
            f"{', '.join([*network.cut_points, *network.released])}, a layer set ({', '.join(LAYER_SETS)}), "
            "or |theta_C| in millions or as a percentage of |theta_T|."
        )
    return sets[budget]


def resolve_budget(
    model: config.Model, budget: str | float, *, classes: int, channels: int, image_size: int
) -> str:
    """Return the name that a budget means: a number's nearest cut point in |theta_C|, a layer set's cut point
    where one freezes the same. Raises `ValueError` if the nearest is more than 5 % away."""
    with torch.device("meta"):
        network = build_classifier(model, classes=classes, channels=channels, image_size=image_size)
    counts = budget_counts(network)
    wanted = _wanted(budget, counts[FULL])
    if wanted is None:
        blocks = frozen_blocks(network, str(budget))
        same = (cut for cut, num_blocks in network.cut_points.items() if range(num_blocks) == blocks)
        return FULL if not blocks else next(same, str(budget))
    nearest = sorted(counts, key=lambda cut: abs(counts[cut] - wanted))
    if abs(counts[nearest[0]] - wanted) > TOLERANCE * wanted:
        known = " and ".join(f"{cut} with {counts[cut]:,}" for cut in nearest[:2])
        raise ValueError(
            f"target.budget={budget} means {wanted:,.0f} trained parameters, but no cut point "
            f"of {model.name} comes within {TOLERANCE:.0%}; the nearest are {known}; name one of them."
        )
    return nearest[0]


def counted(model: config.Model, budget: str, *, classes: int, channels: int, image_size: int) -> Frozen:
    """Return what a budget, given by name, comes to, without making the network's weights."""
    with torch.device("meta"):
        network = build_classifier(model, classes=classes, channels=channels, image_size=image_size)
    return freeze(network, budget)


def budget_counts(network: Classifier) -> dict[str, int]:
    """Return |theta_C| of `full` and of each cut point, early to late."""
    trainable = [sum(p.numel() for p in trainable_parameters(block)) for block in network.blocks]
    total = sum(parameter.numel() for parameter in trainable_parameters(network))
    return {FULL: total} | {cut: total - sum(trainable[:place]) for cut, place in network.cut_points.items()}


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """List what an optimiser may have: weight decay must not reach frozen parameters."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _wanted(budget: str | float, total: int) -> float | None:
    """Return how many parameters a number or a percentage asks to train; None where it is a name."""
    if isinstance(budget, str):
        return float(budget.removesuffix("%")) / 100 * total if budget.endswith("%") else None
    return budget * 1e6

"""Frozen-layer budgets (TL-DMI: Ho et al., CVPR 2024, Table 8): early layers keep their public weights.

A budget is `full`; a cut point's name, which freezes everything up to and including it; |theta_C| in millions
or as a percentage of |theta_T|, which means the cut point within 5 %; or a layer set (supplement B.2): `last`
trains the last layers only, `first` and `middle` train these as well. Cut points and layer sets are
attributes of the classifier (`Classifier.cut_points`, `Classifier.layer_groups`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from orchestrator import config
from orchestrator.config.base import Refused
from orchestrator.config.budget import FULL, LAYER_SETS, Budget, Millions, NamedBudget, Percentage, named
from orchestrator.models import build_classifier
from orchestrator.models.classifier import Classifier

TOLERANCE = 0.05
"""Greatest distance of the nearest cut point from a number, as a fraction of the number."""


@dataclass(frozen=True)
class Frozen:
    """The blocks that a budget freezes and its parameter counts."""

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
        """Number of frozen leading blocks, through which no gradient flows."""
        return len(self.blocks) if self.blocks.start == 0 else 0


def freeze(
    network: Classifier, budget: Budget | str, mode: Literal["weights", "weights+statistics"] = "weights"
) -> Frozen:
    """Stop the gradients of the blocks that a budget or the name of one freezes, in place.

    Under `weights` (as released) the running statistics of frozen batch norms go on following private data;
    under `weights+statistics` frozen blocks stay in evaluation mode, so their statistics are fixed and used
    in training too. Call it before constructing an optimiser or a parallel wrapper. Raise `Refused` if the
    budget means no cut of this network.
    """
    cut = named_by(network, budget)
    blocks = frozen_blocks(network, cut)
    for place in blocks:
        network.blocks[place].requires_grad_(False)
    if mode == "weights+statistics":
        network.fixed = blocks
    total = sum(parameter.numel() for parameter in network.parameters())
    return Frozen(cut, blocks, sum(p.numel() for p in trainable_parameters(network)), total)


def frozen_blocks(network: Classifier, budget: str) -> range:
    """Return the places of the blocks that a budget, given by name, freezes.

    Raise `Refused` if it names no cut point or layer set.
    """
    if budget == FULL:
        return range(0)
    if budget in network.cut_points:
        return range(network.cut_points[budget])
    if budget in network.released:
        return network.released[budget]
    first, middle = network.layer_groups
    sets = {"first": range(first, middle), "middle": range(first), "last": range(middle)}
    if budget not in sets:
        names = f"{FULL}, {', '.join([*network.cut_points, *network.released])}"
        numbers = "|theta_C| in millions or as a percentage of |theta_T|"
        way_out = f"choose {names}, a layer set ({', '.join(LAYER_SETS)}), or {numbers}"
        raise Refused("target.budget", budget, "is no cut point of this classifier", way_out)
    return sets[budget]


def resolve_budget(
    model: config.Model, budget: Budget, *, classes: int, channels: int, image_size: int
) -> NamedBudget:
    """Return a budget's name: the cut point nearest to a number in |theta_C|, or equal to a layer set.

    Raise `Refused` if a name is unknown, or the nearest cut point is more than 5 % away from a number.
    """
    with torch.device("meta"):
        network = build_classifier(model, classes=classes, channels=channels, image_size=image_size)
    name = named_by(network, budget, model.name)
    blocks = frozen_blocks(network, name)
    same = (cut for cut, num_blocks in network.cut_points.items() if range(num_blocks) == blocks)
    return FULL if not blocks else named(next(same, name))


def named_by(network: Classifier, budget: Budget | str, name: str = "this classifier") -> NamedBudget:
    """Return a budget by name: of a number or percentage the nearest cut point of the network called `name`.

    Raise `Refused` if the nearest is more than 5 % away.
    """
    if not isinstance(budget, Millions | Percentage):
        return named(budget)
    counts = budget_counts(network)
    wanted = budget * 1e6 if isinstance(budget, Millions) else budget.share * counts[FULL]
    nearest = sorted(counts, key=lambda cut: abs(counts[cut] - wanted))
    if abs(counts[nearest[0]] - wanted) > TOLERANCE * wanted:
        known = " and ".join(f"{cut} with {counts[cut]:,}" for cut in nearest[:2])
        missed = f"no cut point of {name} comes within {TOLERANCE:.0%}"
        rule = f"means {wanted:,.0f} trained parameters, but {missed}; the nearest are {known}"
        raise Refused("target.budget", budget, rule, "name one of them")
    return named(nearest[0])


def counted(model: config.Model, budget: Budget, *, classes: int, channels: int, image_size: int) -> Frozen:
    """Return the blocks and parameter counts of a budget without allocating the weights.

    Raise `Refused` if the budget means no cut of the network.
    """
    with torch.device("meta"):
        network = build_classifier(model, classes=classes, channels=channels, image_size=image_size)
    return freeze(network, budget)


def budget_counts(network: Classifier) -> dict[str, int]:
    """Return |theta_C| of `full` and of each cut point, early to late."""
    trainable = [sum(p.numel() for p in trainable_parameters(block)) for block in network.blocks]
    total = sum(parameter.numel() for parameter in trainable_parameters(network))
    return {FULL: total} | {cut: total - sum(trainable[:place]) for cut, place in network.cut_points.items()}


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters for an optimiser, without frozen ones, which weight decay must not reach."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]

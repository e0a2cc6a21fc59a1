"""Frozen-layer budgets (TL-DMI: Ho et al., CVPR 2024, Table 8) in numbers, without torch.

A budget is `full`; a cut point's name, which freezes everything up to and including it; |theta_C| in millions
or as a percentage of |theta_T|, which means the cut point within 5 %; or a layer set (supplement B.2): `last`
trains the last layers only, `first` and `middle` train these as well.
"""

from dataclasses import dataclass

from orchestrator.config.base import Model, Refused
from orchestrator.config.budget import FULL, LAYER_SETS, Budget, Millions, NamedBudget, Percentage, named
from orchestrator.models import outline
from orchestrator.models.outlines import Outline

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


def resolve_budget(
    model: Model, budget: Budget, *, classes: int, channels: int, image_size: int, last_skips: bool = True
) -> NamedBudget:
    """Return a budget's name: the cut point nearest to a number in |theta_C|, or equal to a layer set.

    `last_skips` as of `models.outline`. Raise `Refused` if a name is unknown, or the nearest cut point is
    more than 5 % away from a number.
    """
    network = outline(model, classes=classes, channels=channels, image_size=image_size, last_skips=last_skips)
    name = named_by(network, budget, model.name)
    blocks = frozen_blocks(network, name)
    same = (cut for cut, num_blocks in network.cut_points.items() if range(num_blocks) == blocks)
    return FULL if not blocks else named(next(same, name))


def counted(
    model: Model, budget: Budget, *, classes: int, channels: int, image_size: int, last_skips: bool = True
) -> Frozen:
    """Return the blocks and parameter counts of a budget; `last_skips` as of `models.outline`.

    Raise `Refused` if it is no cut of the network.
    """
    network = outline(model, classes=classes, channels=channels, image_size=image_size, last_skips=last_skips)
    return frozen(network, named_by(network, budget))


def frozen(network: Outline, cut: str) -> Frozen:
    """Return the blocks and parameter counts of a budget given by name; raise `Refused` if it is unknown."""
    blocks = frozen_blocks(network, cut)
    trainable = network.trainable - network.parameters(blocks)
    return Frozen(cut, blocks, trainable, network.trainable + network.constant)


def frozen_blocks(network: Outline, budget: str) -> range:
    """Return the places of the blocks that a budget, given by name, freezes.

    Raise `Refused` if it names no cut point or layer set.
    """
    if budget == FULL:
        return range(0)
    if budget in network.cuts:
        return range(network.cut_points[budget])
    if budget in network.released:
        return network.released[budget]
    first, middle = network.layer_groups
    sets = {"first": range(first, middle), "middle": range(first), "last": range(middle)}
    if budget not in sets:
        names = f"{FULL}, {', '.join([*network.cuts, *network.released])}"
        numbers = "|theta_C| in millions or as a percentage of |theta_T|"
        way_out = f"choose {names}, a layer set ({', '.join(LAYER_SETS)}), or {numbers}"
        raise Refused("target.budget", budget, "is no cut point of this classifier", way_out)
    return sets[budget]


def named_by(network: Outline, budget: Budget | str, name: str = "this classifier") -> NamedBudget:
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


def budget_counts(network: Outline) -> dict[str, int]:
    """Return |theta_C| of `full` and of each cut point, early to late."""
    counts = {cut: network.trainable - count for cut, (_, count) in network.cuts.items()}
    return {FULL: network.trainable} | counts

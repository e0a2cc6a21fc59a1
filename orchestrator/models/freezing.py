"""Freezing of a classifier's early layers, which keep their public weights (TL-DMI: Ho et al., CVPR 2024).

`budgets` has what a budget means; cut points and layer sets are attributes of the classifier
(`Classifier.cut_points`, `Classifier.layer_groups`).
"""

from typing import Literal

from torch import nn

from orchestrator.config.budget import Budget
from orchestrator.models.budgets import Frozen, frozen_blocks, named_by
from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import Outline
from orchestrator.models.skips import skip_name


def freeze(
    network: Classifier, budget: Budget | str, mode: Literal["weights", "weights+statistics"] = "weights"
) -> Frozen:
    """Stop the gradients of the blocks that a budget or the name of one freezes, in place.

    Under `weights` (as released) the running statistics of frozen batch norms go on following private data;
    under `weights+statistics` frozen blocks stay in evaluation mode, so their statistics are fixed and used
    in training too. Call it before constructing an optimiser or a parallel wrapper. Raise `Refused` if the
    budget means no cut of this network.
    """
    outline = outline_of(network)
    cut = named_by(outline, budget)
    blocks = frozen_blocks(outline, cut)
    for place in blocks:
        network.blocks[place].requires_grad_(False)
    if mode == "weights+statistics":
        network.fixed = blocks
    total = sum(parameter.numel() for parameter in network.parameters())
    return Frozen(cut, blocks, count_trainable(network), total)


def outline_of(network: Classifier) -> Outline:
    """Return the outline of a network, counted from its parameters; none of it is frozen yet."""
    counts = [count_trainable(block) for block in network.blocks]
    cuts = {cut: (place, sum(counts[:place])) for cut, place in network.cut_points.items()}
    trainable = count_trainable(network)
    total = sum(parameter.numel() for parameter in network.parameters())
    last, skip = network.last_stage, None
    if last:
        block = network.blocks[last.start]
        skip = getattr(block, skip_name(block))
    projection = count_trainable(skip) if skip else 0
    constant = total - trainable
    return Outline(cuts, network.layer_groups, trainable, constant, network.released, last, projection)


def count_trainable(network: nn.Module) -> int:
    """Return the number of parameters that are not frozen."""
    return sum(parameter.numel() for parameter in trainable_parameters(network))


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters for an optimiser, without frozen ones, which weight decay must not reach."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]

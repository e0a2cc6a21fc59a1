"""What every classifier offers beyond `nn.Module`: the places where it can be cut into a frozen and a trained
part."""

from collections.abc import Mapping

from torch import nn


class Classifier(nn.Module):
    """Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

    cuts: Mapping[str, tuple[str, ...]]
    """Cut point -> the submodules frozen at it beyond those of the cut point before, early to late."""

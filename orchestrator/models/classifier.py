"""What every classifier offers beyond `nn.Module`: where it can be cut into a frozen and a trained part, and
its features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

    cuts: Mapping[str, tuple[str, ...]]
    """Cut point -> the submodules frozen at it beyond those of the cut point before, early to late."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees, (N, ...)."""

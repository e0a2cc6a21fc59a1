"""Services: classifiers that answer over HTTP, as networks to attack. They answer, and that is all.

Requests go to the address that its owner wrote and nowhere else.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from orchestrator.models.services.asker import Asker, Stopped
from orchestrator.models.services.images import Sent, sent_images

__all__ = ["Asker", "ServiceNetwork", "Stopped", "sent_images"]

HELD = 512  # images made float at a time


class Split(Protocol):
    """Images (N, C, S, S), held or read a part at a time."""

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Return the images in parts of `size`, in order."""


class ServiceNetwork(nn.Module):
    """Images (N, C, S, S) in [0, 1], of any side S -> the service's scores (N, k), float32.

    These are scores, not logits (`returns_scores`): what it does not release is 0, so that a row may sum to
    less than 1. They carry no gradient.
    """

    returns_scores = True

    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self.asker = asker
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # tells the device

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, k)."""
        rows = self.asker.rows(list(sent_images(images, self.asker.service)))
        return torch.from_numpy(rows).to(images.device)

    def ask_ahead(self, images: Split) -> None:
        """Have the answers to images stored, all of them within one look at the budget."""
        self.asker.ask(self._sent(images))

    def _sent(self, images: Split) -> Iterator[Sent]:
        for part in images.split(HELD):
            yield from sent_images(part, self.asker.service)

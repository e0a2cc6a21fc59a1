"""Classifier: the base of all classifiers, a chain of blocks and a head.

It can be cut between two blocks into a frozen and a trained part, returns hidden representations, and maps
the names of public weights to its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from torch import Tensor, nn


class Classifier(nn.Module):
    """Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

    blocks: nn.Sequential
    """Named parts from early to late; the output of the last one is the features."""

    head: nn.Module
    """Features -> logits (N, k). Its shape depends on k, so a target's never comes from public weights."""

    num_features: int
    """Size of the features of one image, flattened."""

    cut_points: Mapping[str, int]
    """Cut point -> number of leading blocks that it freezes, early to late."""

    layer_groups: tuple[int, int]
    """(a, b): first layers are blocks[:a], middle ones blocks[a:b], last ones blocks[b:] and the head
    (TL-DMI, supplement B.2)."""

    released: Mapping[str, range] = {}
    """Budgets of released code that freeze other than leading blocks: name -> places of the frozen blocks."""

    hidden_taps: tuple[int, ...]
    """Numbers of leading blocks after which a hidden representation is taken (BiDO)."""

    renamed: Mapping[str, str] = {}
    """Prefix of public names -> prefix of ours; the longest that matches applies."""

    ignored: tuple[str, ...] = ()
    """Prefixes of public names without a counterpart here: another head, a second classifier."""

    own: tuple[str, ...] = ()
    """Prefixes of our names that public files may lack or hold for another image size; such parts keep their
    initial values."""

    norm_before_head: str = ""
    """Name of the last block where it is a batch norm of the features that belongs to the head."""

    last_stage: range = range(0)
    """Places of the residual blocks of the last stage, whose sums can be left out (`skips`); none where there
    are no such blocks."""

    fixed: range = range(0)
    """Places of the blocks that stay in evaluation mode in training too."""

    starts_at: int = 0
    """Number of leading blocks already applied to the input (`starting_at`)."""

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; fixed blocks stay in evaluation mode."""
        super().train(mode)
        for place in self.fixed:
            self.blocks[place].eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the head, (N, ...): the penultimate layer."""
        blocks = self.blocks[self.starts_at :] if self.starts_at else self.blocks
        return blocks(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k)."""
        return self.head(self.features(images))

    def with_hidden(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (N, k) and the hidden representation (N, ...) at each tap."""
        hidden, flow = [], images
        for place, block in enumerate(self.blocks, start=1):
            flow = block(flow)
            if place in self.hidden_taps:
                hidden.append(flow)
        return self.head(flow), hidden

    @contextmanager
    def starting_at(self, place: int) -> Iterator[None]:
        """Within the context, take the outputs of the first `place` blocks as input instead of images."""
        self.starts_at = place
        try:
            yield
        finally:
            self.starts_at = 0

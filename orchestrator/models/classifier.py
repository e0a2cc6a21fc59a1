"""What every classifier is: a chain of blocks, then a head. It can be cut between two blocks into a frozen
and a trained part, shows what flows between them, and knows how libraries name its public weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from torch import Tensor, nn


class Classifier(nn.Module):
    """Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

    blocks: nn.Sequential
    """Named parts from early to late; the last one's output are the features."""

    head: nn.Module
    """Features -> logits. Its shape depends on k, so a victim's never comes from public weights."""

    num_features: int
    """Numbers in the features of one image."""

    cut_points: Mapping[str, int]
    """Cut point -> how many leading blocks are frozen at it, early to late."""

    layer_groups: tuple[int, int]
    """(a, b): first layers are blocks[:a], middle ones blocks[a:b], last ones blocks[b:] and the head
    (TL-DMI, supplement B.2)."""

    released: Mapping[str, range] = {}
    """Budgets of released code that freeze no leading part: name -> places of the frozen blocks."""

    hidden_taps: tuple[int, ...]
    """After how many blocks a hidden representation is taken (BiDO)."""

    renamed: Mapping[str, str] = {}
    """How a public state dict's names begin -> how ours do; the longest that fits counts."""

    ignored: tuple[str, ...] = ()
    """How public names begin that this network has no place for: another head, a second classifier."""

    own: tuple[str, ...] = ()
    """How our names begin whose part public files may lack or hold for another image size; it then keeps its
    first values."""

    fixed: range = range(0)
    """Places of the blocks that stay in evaluation mode, whatever mode the network is put in."""

    starts_at: int = 0
    """How many leading blocks were applied already to what comes in (`starting_at`)."""

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; fixed blocks stay in evaluation mode."""
        super().train(mode)
        for place in self.fixed:
            self.blocks[place].eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees, (N, ...): the penultimate layer."""
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
        """Meanwhile take what flows out of the first `place` blocks instead of images."""
        self.starts_at = place
        try:
            yield
        finally:
            self.starts_at = 0


def scaled(channels: int, width: float) -> int:
    """Return a hidden channel count at a width: at least 4."""
    return max(4, round(channels * width))


def require_multiple(image_size: int, of: int, name: str) -> None:
    """Refuse an image side that the strides of the network `name` do not divide."""
    if image_size < of or image_size % of:
        raise ValueError(
            f"data.image_size={image_size} must be a multiple of {of} for {name}; "
            f"resize the images, for example to {-(-image_size // of) * of}."
        )

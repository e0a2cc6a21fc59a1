"""Graphs of torch.export: operators, lists, several results, sizes, constants give what the network does."""

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models.programs.exported import load_exported
from tests.models.programs.exports import exported
from tests.models.programs.test_torchscript import IMAGES


class Varied(nn.Module):
    """What graphs have beside calls of one tensor: sizes, lists, several results, constants, types."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([1.0, 2.0, 3.0])
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        num_images, _, side, _ = images.shape
        tokens = images.reshape(num_images, side * side // 4, 4)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        low, high, last = attended.mean(1).to(torch.float64).split([1, 1, 2], dim=1)
        values, _ = last.max(dim=1, keepdim=True)
        stacked = torch.cat([low, high, values], dim=1).to(torch.float32)
        zeros = torch.zeros(num_images, 3, device=images.device)
        return torch.where(stacked > 0, stacked * self.scale, zeros) + stacked


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_a_graph_gives_what_its_network_does(is_dynamic: bool) -> None:
    torch.manual_seed(0)
    network = Varied().eval()
    program = load_exported(exported(network, IMAGES, is_dynamic=is_dynamic), "net.pt2")
    assert program.batch == (None if is_dynamic else len(IMAGES))
    images = torch.cat([IMAGES, IMAGES.flip(-1)]) if is_dynamic else IMAGES
    assert torch.allclose(program(images), network(images), atol=1e-6)
    assert torch.allclose(program(images), network(images), atol=1e-6)  # nothing of the first pass is left


def test_weights_move_with_the_network() -> None:
    program = load_exported(exported(Varied().eval(), IMAGES), "net.pt2").to(torch.float64)
    assert {one.dtype for one in program.buffers()} == {torch.float64}

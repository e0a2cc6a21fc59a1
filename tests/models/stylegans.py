"""A small StyleGAN2, its weights drawn by name, and the same weights in rosinality's layout."""

from typing import Any

import torch
from torch import Tensor

from orchestrator.models.stylegan2 import StyleGan2, channel_counts

SIDE, LATENT, STYLE, LAYERS = 16, 6, 8, 2
COUNTS = channel_counts(SIDE, base=64, most=8)  # 8, 8, 4


def small(**settings: Any) -> StyleGan2:
    """Return the network with its drawn weights, in evaluation mode."""
    arguments = {"latent_size": LATENT, "style_size": STYLE, "layers": LAYERS, **settings}
    network = StyleGan2(channels=3, counts=COUNTS, **arguments)
    network.load_state_dict(drawn_state(network.state_dict()))
    return network.eval().requires_grad_(False)


def drawn_state(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors from N(0, 1) in the order of their names, the mapping's as large as it stores them."""
    drawn = torch.Generator().manual_seed(7)
    state = {name: torch.randn(shapes[name].shape, generator=drawn) for name in sorted(shapes)}
    return {
        name: tensor * 100 if name.startswith("mapping.fc") and name.endswith("weight") else tensor
        for name, tensor in state.items()
    }

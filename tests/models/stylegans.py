"""A small StyleGAN2, its weights drawn by name, and the same weights in rosinality's layout."""

from typing import Any

import torch
from torch import Tensor

from orchestrator.models.stylegan2 import StyleGan2, channel_counts, smoothing

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
    drawn, bound = torch.Generator().manual_seed(7), "synthesis.clamp"
    names = [name for name in sorted(shapes) if name != bound]
    state = {name: torch.randn(shapes[name].shape, generator=drawn) for name in names}
    mapping = [name for name in names if name.startswith("mapping.fc") and name.endswith("weight")]
    kept = {bound: shapes[bound]} if bound in shapes else {}
    return state | {name: 100 * state[name] for name in mapping} | kept


def in_rosinalitys_layout(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the tensors as rosinality's training saves them, the names written out from its network."""
    average: dict[str, Tensor] = {"input.input": state["synthesis.b4.const"][None]}
    for place in range(LAYERS):
        for kind in ("weight", "bias"):
            average[f"style.{place + 1}.{kind}"] = state[f"mapping.fc{place}.{kind}"]
    layers = {"conv1": "b4.conv1", "convs.0": "b8.conv0", "convs.1": "b8.conv1"}
    layers |= {"convs.2": "b16.conv0", "convs.3": "b16.conv1"}
    for place, (theirs, ours) in enumerate(layers.items()):
        own = {name: state[f"synthesis.{ours}.{name}"] for name in ("weight", "bias", "noise_strength")}
        average |= {
            f"{theirs}.conv.weight": own["weight"][None],
            f"{theirs}.activate.bias": own["bias"],
            f"{theirs}.noise.weight": own["noise_strength"][None],
            f"noises.noise_{place}": state[f"synthesis.{ours}.noise_const"][None, None],
            f"{theirs}.conv.modulation.weight": state[f"synthesis.{ours}.affine.weight"],
            f"{theirs}.conv.modulation.bias": state[f"synthesis.{ours}.affine.bias"],
        }
    for theirs, ours in {"to_rgb1": "b4", "to_rgbs.0": "b8", "to_rgbs.1": "b16"}.items():
        place_in = f"synthesis.{ours}.torgb"
        average |= {
            f"{theirs}.conv.weight": state[f"{place_in}.weight"][None],
            f"{theirs}.bias": state[f"{place_in}.bias"][None, :, None, None],
            f"{theirs}.conv.modulation.weight": state[f"{place_in}.affine.weight"],
            f"{theirs}.conv.modulation.bias": state[f"{place_in}.affine.bias"],
        }
    kernel = 4 * smoothing()
    average |= dict.fromkeys(("convs.0.conv.blur.kernel", "to_rgbs.0.upsample.kernel"), kernel)
    return {"g_ema": average, "g": {"input.input": torch.zeros(1)}, "latent_avg": state["mapping.w_avg"]}

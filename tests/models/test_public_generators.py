"""Public generators: rosinality's names, what our networks do not do, weights that are no generator's."""

import re
from typing import Any

import pytest
import torch

from orchestrator.config.base import Refused
from orchestrator.models.dcgan import Dcgan
from orchestrator.models.public_generators import as_ours, check_generator, public_generator
from tests.models.stylegans import COUNTS, LATENT, LAYERS, STYLE, in_rosinalitys_layout, small


def rosinalitys(*, has_mean: bool = True) -> dict[str, torch.Tensor]:
    saved = in_rosinalitys_layout(small().state_dict())
    return saved["g_ema"] | ({"latent_avg": saved["latent_avg"]} if has_mean else {})


def test_rosinalitys_tensors_are_ours_under_other_names() -> None:
    ours, state = small().state_dict(), as_ours(rosinalitys(), "net.pt")
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.items())
    assert all(
        tensor.dtype == torch.float32 for tensor in as_ours({"a": torch.ones(1).double()}, "x").values()
    )


def test_a_mean_style_that_is_not_stored_is_estimated() -> None:
    state = as_ours(rosinalitys(has_mean=False), "net.pt")
    network = small()
    styles = network.mapping(torch.randn(20_000, LATENT))
    away = (state["mapping.w_avg"] - styles.mean(dim=0)).abs()
    assert (away < 6 * styles.std(dim=0) / 10_000**0.5).all()


def test_a_bound_of_nvidias_layers_is_a_tensor() -> None:
    state = small().state_dict()
    clamped = as_ours(state, "net.pkl", {"synthesis_kwargs": {"conv_clamp": 1}})
    latents = torch.randn(2, LATENT)
    network, _ = public_generator(clamped, "net")
    assert torch.equal(network(latents), small(clamp=1.0)(latents))
    assert not torch.equal(network(latents), public_generator(state, "net")[0](latents))
    assert not any(one.requires_grad for one in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"c_dim": 10}, "c_dim=10, and this project's StyleGAN2 has 0"),
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "architecture=resnet"),
        ({"mapping_kwargs": {"lr_multiplier": 1}}, "lr_multiplier=1"),
        ({"c_dim": torch.zeros(3)}, "c_dim=a Tensor"),
        ({"synthesis_kwargs": {"activation": [[], []]}}, "activation=a list"),
        ({"synthesis_kwargs": "skip"}, "synthesis_kwargs=skip, and these are settings by name"),
        ({"synthesis_kwargs": {"conv_clamp": "256"}}, "conv_clamp=256, and a bound is a number above 0"),
        *(
            ({"synthesis_kwargs": {"conv_clamp": value}}, f"conv_clamp={value}, and a bound")
            for value in (-1, 0.0, True, float("nan"), float("inf"))
        ),
    ],
)
def test_other_networks_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused, match=f"net.pkl was built with {text}"):
        as_ours(small().state_dict(), "net.pkl", arguments)


@pytest.mark.parametrize("shape", [(4, 4), (4,), (3, 5), ()], ids=str)
def test_other_filters_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match=r"holds convs\.0\.conv\.blur\.kernel, a filter other than 1, 3, 3, 1"):
        as_ours(rosinalitys() | {"convs.0.conv.blur.kernel": torch.ones(shape)}, "net.pt")


@pytest.mark.parametrize("name", ["conv1.conv.weight", "noises.noise_0", "style.1.weight", "input.input"])
@pytest.mark.parametrize("has_mean", [True, False])
def test_rosinalitys_tensors_of_other_shapes_are_refused(name: str, *, has_mean: bool) -> None:
    def staged() -> None:
        state = as_ours(rosinalitys(has_mean=has_mean) | {name: torch.tensor(1.0)}, "net.pt")
        check_generator({key: tuple(one.shape) for key, one in state.items()}, "net.pt", "SOURCE")

    with pytest.raises(
        Refused, match=r"^(net\.pt holds tensors under rosinality's|SOURCE=net\.pt (is|are) no)"
    ):
        staged()


def test_the_outline_of_a_stylegan() -> None:
    outline = check_generator({name: tuple(one.shape) for name, one in small().state_dict().items()}, "net")
    assert (outline.kind, outline.image_size, outline.channels) == ("stylegan2", 16, 3)
    sizes = {"latent_size": LATENT, "style_size": STYLE, "layers": LAYERS, "clamp": None}
    assert outline.arguments == {"channels": 3, "counts": COUNTS, **sizes}


def test_a_dcgan_by_its_tensors() -> None:
    torch.manual_seed(0)
    network = Dcgan(channels=1, counts=(6, 4, 3), latent_size=5)
    shapes = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    outline = check_generator(shapes, "net")
    assert (outline.kind, outline.image_size, outline.channels) == ("dcgan", 32, 1)
    latents = torch.randn(2, 5)
    assert torch.equal(public_generator(network.state_dict(), "net")[0](latents), network.eval()(latents))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"synthesis.b8.conv0.affine.bias": None},
            "no whole stylegan2: synthesis.b8.conv0.affine.bias is",
        ),
        ({"other": (1,)}, "other is missing, unknown or of another shape"),
        ({"synthesis.b4.const": (8, 5, 4)}, "synthesis.b4.const is"),
        ({"mapping.fc0.weight": None}, "is no generator of a known kind (stylegan2, dcgan)"),
    ],
)
def test_weights_that_are_not_whole(changes: dict[str, tuple[int, ...] | None], text: str) -> None:
    shapes = {name: tuple(one.shape) for name, one in small().state_dict().items()} | changes
    with pytest.raises(Refused, match=rf"prior\.weights=net .*{re.escape(text)}"):
        check_generator({name: shape for name, shape in shapes.items() if shape is not None}, "net")

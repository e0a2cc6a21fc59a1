"""Public generators: weights of published layouts under our names, and their networks.

StyleGAN2 of NVIDIA (stylegan2-ada-pytorch; our names) and of rosinality (stylegan2-pytorch), DCGAN of
PyTorch's example. A layout is known by its names; what our networks do not do is refused.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.config.installation import to_call
from orchestrator.models import Architecture
from orchestrator.models.build import network_class
from orchestrator.models.generator import StyleGenerator
from orchestrator.models.generator_outlines import CLAMP, PATHS, GeneratorOutline, Shapes, generator_outline
from orchestrator.models.stylegan2 import Mapping as StyleMapping
from orchestrator.models.stylegan2 import smoothing

MEAN_DRAWS = 10_000
"""Latents whose mean style stands in for the one of training where a file lacks it."""

OURS: Mapping[str, object] = {
    "c_dim": 0,
    "architecture": "skip",
    "activation": "lrelu",
    "lr_multiplier": 0.01,
    "use_noise": True,
}
"""Arguments of NVIDIA's networks and the values that `StyleGan2` has."""

_FILTERS = ("resample_filter", "blur.kernel", "upsample.kernel")
_ROSINALITY: tuple[tuple[str, str], ...] = (
    (r"\.conv\.modulation\.", ".affine."),
    (r"\.conv\.weight$", ".weight"),
    (r"\.noise\.weight$", ".noise_strength"),
    (r"\.activate\.bias$", ".bias"),
)
"""What follows the name of a layer, there and here."""


def public_generator(public: Mapping[str, Tensor], name: str) -> tuple[StyleGenerator, int]:
    """Return the network of staged weights, in evaluation mode, without gradients of its parameters, and the
    side of its images.

    Raise `Refused` as `check_generator` does.
    """
    outline = check_generator({key: tuple(tensor.shape) for key, tensor in public.items()}, name)
    network = _built(outline)
    network.load_state_dict(dict(public))
    return network.eval().requires_grad_(False), outline.image_size


def check_generator(shapes: Shapes, name: str, field: str = "prior.weights") -> GeneratorOutline:
    """Return the outline of weights; raise `Refused` of `field` if weights `name` are of no known generator
    or lack a tensor of it."""
    outline = generator_outline(shapes, name, field)
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in _built(outline).state_dict().items()}
    if odd := sorted(set(wanted.items()) ^ set(shapes.items())):
        rule = f"are no whole {outline.kind}: {odd[0][0]} is missing, unknown or of another shape"
        raise Refused(field, name, rule, f"stage the file again with {to_call('stage_weights')}")
    return outline


def _built(outline: GeneratorOutline) -> StyleGenerator:
    network: StyleGenerator = network_class(Architecture(PATHS[outline.kind], outline.image_size))(
        **outline.arguments
    )
    return network


def as_ours(
    public: Mapping[str, Tensor], where: str, arguments: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a published layout, float32, under the names of our networks.

    `arguments`: those that NVIDIA's network was built with, if it is one. Raise `Refused` under the name
    `where` for a network that is another than ours.
    """
    state = _without_filters(public, where)
    if "style.1.weight" in state:
        try:
            state = _from_rosinality(state)
        except (IndexError, KeyError, RuntimeError, ValueError):
            rule = "holds tensors under rosinality's names that are not of a StyleGAN2's shapes"
            raise Refused(where, NO_VALUE, rule, "download it again") from None
    if arguments is not None and (clamp := _check_arguments(arguments, where)) is not None:
        state[CLAMP] = torch.tensor(clamp)
    return {
        name: tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        for name, tensor in state.items()
    }


def _without_filters(public: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the tensors without the filters of up- and downsampling, which must be ours, at any scale."""
    for name, tensor in public.items():
        if name.endswith(_FILTERS) and not _is_smoothing(tensor.float()):
            rule = f"holds {name}, a filter other than 1, 3, 3, 1"
            raise Refused(where, NO_VALUE, rule, "stage a StyleGAN2 with its published filter")
    return {name: tensor for name, tensor in public.items() if not name.endswith(_FILTERS)}


def _is_smoothing(kernel: Tensor) -> bool:
    return kernel.shape == (4, 4) and torch.allclose(kernel / kernel.sum(), smoothing())


def _check_arguments(arguments: Mapping[str, Any], where: str) -> float | None:
    """Return the bound of the layers; raise `Refused` for arguments that our network does not have."""
    mapping, synthesis = (_settings(arguments, f"{part}_kwargs", where) for part in ("mapping", "synthesis"))
    given = {**mapping, **synthesis, "c_dim": arguments.get("c_dim", 0)}
    for key, value in OURS.items():
        if not _is(found := given.get(key, value), value):
            raise _other(where, key, found, f"this project's StyleGAN2 has {value}")
    clamp = synthesis.get("conv_clamp")
    if clamp is None:
        return None
    if isinstance(clamp, bool) or not isinstance(clamp, int | float) or not 0.0 < clamp < math.inf:
        raise _other(where, "conv_clamp", clamp, "a bound is a number above 0")
    return float(clamp)


def _settings(arguments: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = arguments.get(name) or {}
    if not isinstance(found, dict):
        raise _other(where, name, found, "these are settings by name")
    return found


def _is(found: object, value: object) -> bool:
    """Return whether a file's value, of any type, is one of ours."""
    return isinstance(found, bool | int | float | str) and found == value


def _other(where: str, key: str, found: object, rule: str) -> Refused:
    """Return the refusal of an argument of a network; of long or nested values only the type is shown."""
    shown = found if isinstance(found, bool | int | float | str) else f"a {type(found).__name__}"
    text = f"was built with {key}={shortened(str(shown))}, and {rule}"
    return Refused(where, NO_VALUE, text, "stage another network")


def _from_rosinality(public: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = dict(_renamed(name, tensor) for name, tensor in public.items() if name != "latent_avg")
    if "latent_avg" in public:
        state["mapping.w_avg"] = public["latent_avg"]
    else:
        state["mapping.w_avg"] = _mean_style(state)
    return state


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Return our name and form of one of rosinality's tensors; an unknown name stays."""
    if found := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"mapping.fc{int(found[1]) - 1}.{found[2]}", tensor
    if name == "input.input":
        return "synthesis.b4.const", tensor[0]
    if found := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"synthesis.{_layer(int(found[1]))}.noise_const", tensor[0, 0]
    if found := re.fullmatch(r"(conv1|convs\.(\d+)|to_rgb1|to_rgbs\.(\d+))(\..+)", name):
        rest = found[4]
        for theirs, ours in _ROSINALITY:
            rest = re.sub(theirs, ours, rest)
        return f"synthesis.{_place(found)}{rest}", _reshaped(rest, tensor)
    return name, tensor


def _layer(number: int) -> str:
    """Return our name of a convolution, counted from the first: b4.conv1, b8.conv0, b8.conv1, ..."""
    return f"b{4 * 2 ** ((number + 1) // 2)}.conv{(number + 1) % 2}"


def _place(found: re.Match[str]) -> str:
    if found[1].startswith("conv"):
        return _layer(0 if found[2] is None else int(found[2]) + 1)
    return f"b{4 if found[3] is None else 8 * 2 ** int(found[3])}.torgb"


def _reshaped(rest: str, tensor: Tensor) -> Tensor:
    """Return a tensor without the leading dimensions of 1 that rosinality's have."""
    if rest == ".weight":
        return tensor[0]
    return {".noise_strength": tensor.squeeze(), ".bias": tensor.flatten()}.get(rest, tensor)


def _mean_style(state: Mapping[str, Tensor]) -> Tensor:
    """Return the mean style of drawn latents, (d',)."""
    prefix = "mapping."
    inside = {key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)}
    style_size, latent_size = inside["fc0.weight"].shape
    network = StyleMapping(latent_size, style_size, len(inside) // 2)
    network.load_state_dict({**inside, "w_avg": torch.zeros(style_size)})
    drawn = torch.randn(MEAN_DRAWS, latent_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean: Tensor = network(drawn).mean(dim=0)
    return mean

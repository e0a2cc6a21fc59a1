"""Outlines of generators that others trained, by the names and shapes of their tensors alone. No torch.

A manifest of weights lists both, so that kind, sizes and constructor arguments are declared by the tensors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.base import Refused
from orchestrator.config.installation import to_call

Shapes = Mapping[str, tuple[int, ...]]

PATHS = {"stylegan2": "stylegan2.StyleGan2", "dcgan": "dcgan.Dcgan"}
"""Kind -> module of this package and the class in it; the constructor takes `arguments` by keyword."""

CLAMP = "synthesis.clamp"
"""Tensor of a StyleGAN2 whose layers are bounded."""

MOST_BLOCKS = 16
"""Of a StyleGAN2 that is looked for; 1024 pixels take nine."""

CLAMP_FIRST = 256.0
"""NVIDIA's bound; that of the tensor replaces it."""


@dataclass(frozen=True)
class GeneratorOutline:
    """A generator in numbers."""

    kind: str
    """One of `PATHS`."""

    image_size: int
    """Side of its images."""

    channels: int
    """Of its images."""

    arguments: Mapping[str, Any]
    """Of its constructor."""


def generator_outline(shapes: Shapes, name: str, field: str = "prior.weights") -> GeneratorOutline:
    """Return the outline of weights with these tensors.

    Raise `Refused` of `field` if weights `name` are of no kind of generator.
    """
    for kind, outlined in {"stylegan2": _stylegan2, "dcgan": _dcgan}.items():
        try:
            return outlined(shapes, kind)
        except (KeyError, IndexError, ValueError):
            continue
    command = to_call("stage_weights", "FILE", "DEST", "--name", "NAME", "--model", "stylegan2")
    way_out = f"stage a generator with {command}"
    raise Refused(field, name, f"is no generator of a known kind ({', '.join(PATHS)})", f"{way_out} or dcgan")


def _stylegan2(shapes: Shapes, kind: str) -> GeneratorOutline:
    blocks = _number(shapes, r"synthesis\.b\d+\.conv1\.weight")
    sides = [4 * 2**place for place in range(min(blocks, MOST_BLOCKS))]
    style_size, latent_size = shapes["mapping.fc0.weight"]
    channels = shapes["synthesis.b4.torgb.weight"][0]
    arguments = {
        "channels": channels,
        "counts": tuple(shapes[f"synthesis.b{side}.conv1.weight"][0] for side in sides),
        "latent_size": latent_size,
        "style_size": style_size,
        "layers": _number(shapes, r"mapping\.fc\d+\.weight"),
        "clamp": CLAMP_FIRST if CLAMP in shapes else None,
    }
    return GeneratorOutline(kind, sides[-1], channels, arguments)


def _dcgan(shapes: Shapes, kind: str) -> GeneratorOutline:
    """Layers are three modules apart: convolution, batch norm, activation."""
    kernels = [
        shapes[f"main.{3 * place}.weight"]
        for place in range(_number(shapes, r"main\.\d+\.weight"))
        if f"main.{3 * place}.weight" in shapes
    ]
    latent_size, channels = kernels[0][0], kernels[-1][1]
    counts = tuple(kernel[1] for kernel in kernels[:-1])
    arguments = {"channels": channels, "counts": counts, "latent_size": latent_size}
    return GeneratorOutline(kind, 4 * 2 ** len(counts), channels, arguments)


def _number(shapes: Shapes, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in shapes)

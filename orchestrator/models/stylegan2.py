"""StyleGAN2: a mapping of latents to styles, and a synthesis of images that reads one style in each layer.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020), with skips to RGB, without
classes; tensors have the names of NVIDIA's state dicts (stylegan2-ada-pytorch). Noise is the stored one in
every mode, so that an image depends on its styles alone.

Differences: a layer is modulated by its input and demodulated by its output, which needs neither a kernel for
each image nor operators of its own and differs from released code by rounding. Blocks that NVIDIA runs in
16 bits run in float32, clamped as there. Intensities are (x + 1) / 2 of the released -1..1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.models.generator import StyleGenerator

START = 4  # side of the first block
SLOPE, GAIN = 0.2, math.sqrt(2.0)  # of LeakyReLU
MAPPING_RATE = 0.01  # weights of the mapping are stored divided by it
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the filter of upsampling, before it is normalised
EPSILON = 1e-8


def channel_counts(image_size: int, base: int = 32_768, most: int = 512) -> tuple[int, ...]:
    """Return the channels of the blocks of side 4, 8, ..., `image_size`, as released: at most base / side."""
    sides = [START * 2**place for place in range(int(math.log2(image_size)) - 1)]
    return tuple(min(base // side, most) for side in sides)


def smoothing() -> Tensor:
    """Return the filter of upsampling, (4, 4), of sum 1; layers keep it as a buffer, outside the state."""
    taps = torch.tensor(TAPS) / sum(TAPS)
    return torch.outer(taps, taps)


class StyleGan2(StyleGenerator):
    """G: latents z (N, `latent_size`) -> styles, one a layer -> images (N, C, S, S), S = 2 * 2^blocks.

    `counts`: channels of each block; `layers`: those of the mapping; `clamp`: bound of what layers of the
    synthesis return, a tensor of the state; None for no bound.
    """

    def __init__(
        self,
        *,
        channels: int,
        counts: Sequence[int],
        latent_size: int = 512,
        style_size: int = 512,
        layers: int = 8,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.latent_size, self.num_styles = latent_size, 2 * len(counts)
        self.mapping = Mapping(latent_size, style_size, layers)
        self.synthesis = Synthesis(channels, counts, style_size, clamp)

    @property
    def style_size(self) -> int:
        """Numbers of w."""
        return self.mapping.w_avg.numel()

    def styles(self, latents: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Return w for every layer, (N, `num_styles`, `style_size`), truncated in the first `cutoff` ones."""
        styles = self.mapping(latents)[:, None].expand(-1, self.num_styles, -1)
        if psi == 1.0:
            return styles
        truncated = self.mapping.w_avg.lerp(styles, psi)
        kept = self.num_styles if cutoff is None else cutoff
        return torch.cat([truncated[:, :kept], styles[:, kept:]], dim=1)

    def synthesize(self, styles: Tensor) -> Tensor:
        """Return images (N, C, S, S) of styles (N, `num_styles`, `style_size`), not clipped to [0, 1]."""
        images: Tensor = self.synthesis(styles)
        return (images + 1.0) / 2.0

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (N, C, S, S) of latents (N, `latent_size`), clipped to [0, 1], without truncation."""
        return super().forward(latents).clamp(0.0, 1.0)


class Mapping(nn.Module):
    """Latents z (N, d) -> w (N, d'), z scaled to a mean square of 1; `w_avg` is the mean of w in training."""

    w_avg: Tensor

    def __init__(self, latent_size: int, style_size: int, layers: int) -> None:
        super().__init__()
        sizes = [latent_size, *[style_size] * layers]
        for place, (before, after) in enumerate(pairwise(sizes)):
            self.add_module(f"fc{place}", Dense(before, after, rate=MAPPING_RATE))
        self.register_buffer("w_avg", torch.zeros(style_size))

    def forward(self, latents: Tensor) -> Tensor:
        """Return w (N, d')."""
        flow = latents * (latents.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()
        for layer in self.children():
            flow = activated(layer(flow))
        return flow


class Dense(nn.Module):
    """y = x (W r / sqrt(d))^T + b r of x (N, d), W and b stored divided by the rate r."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.rate = rate

    def forward(self, flow: Tensor) -> Tensor:
        """Return y (N, d')."""
        weight = self.weight * (self.rate / math.sqrt(self.weight.shape[1]))
        return functional.linear(flow, weight, self.bias * self.rate)


class Synthesis(nn.Module):
    """Styles (N, 2 blocks, d) -> images (N, C, S, S), unbounded, about -1..1.

    Convolutions read one style after another; a block's RGB layer reads the one of the convolution behind it.
    """

    clamp: Tensor | None

    def __init__(self, channels: int, counts: Sequence[int], style_size: int, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("clamp", None if clamp is None else torch.tensor(clamp))
        for place, (before, after) in enumerate(pairwise((0, *counts))):
            side = START * 2**place
            self.add_module(f"b{side}", Block(before, after, side, channels, style_size))

    def forward(self, styles: Tensor) -> Tensor:
        """Return images (N, C, S, S)."""
        flow, images, read = None, None, 0
        block: Any
        for block in self.children():
            flow, images = block(flow, images, styles[:, read:], self.clamp)
            read += block.num_convolutions
        assert images is not None
        return images


class Block(nn.Module):
    """Maps and images of half a side, none in the first block -> those of its side."""

    smoothing: Tensor

    def __init__(self, before: int, after: int, side: int, channels: int, style_size: int) -> None:
        super().__init__()
        self.num_convolutions = 2 if before else 1
        if before:
            self.conv0 = Styled(before, after, side, style_size, doubles=True)
            self.register_buffer("smoothing", smoothing(), persistent=False)
        else:
            self.const = nn.Parameter(torch.randn(after, side, side))
        self.conv1 = Styled(after, after, side, style_size)
        self.torgb = ToRgb(after, channels, style_size)

    def forward(
        self, flow: Tensor | None, images: Tensor | None, styles: Tensor, clamp: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return maps (N, W, S, S) and images (N, C, S, S) by the first styles of (N, ..., d)."""
        if flow is not None:
            flow = bounded(self.conv0(flow, styles[:, 0]), clamp)
        first = self.const.expand(len(styles), -1, -1, -1) if flow is None else flow
        flow = bounded(self.conv1(first, styles[:, self.num_convolutions - 1]), clamp)
        own = bounded(self.torgb(flow, styles[:, self.num_convolutions]), clamp)
        return flow, own if images is None else enlarged(images, self.smoothing) + own


class Styled(nn.Module):
    """A 3x3 convolution whose input channels a style scales and whose output channels have variance 1 again,
    with noise; it keeps or doubles the side."""

    noise_const: Tensor
    smoothing: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        style_size: int,
        *,
        doubles: bool = False,
    ) -> None:
        super().__init__()
        self.affine = Dense(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.doubles = doubles
        if doubles:
            self.register_buffer("smoothing", smoothing(), persistent=False)

    def forward(self, flow: Tensor, style: Tensor) -> Tensor:
        """Return maps (N, W', S, S), or of twice the side, of maps (N, W, S, S) by a style (N, d)."""
        scale = self.affine(style)
        flow = flow * scale[:, :, None, None]
        if self.doubles:
            flow = functional.conv_transpose2d(flow, self.weight.transpose(0, 1), stride=2)
            flow = smoothed(flow, self.smoothing)
        else:
            flow = functional.conv2d(flow, self.weight, padding=1)
        power = scale.square() @ self.weight.square().sum(dim=(2, 3)).T
        flow = flow * (power + EPSILON).rsqrt()[:, :, None, None]
        noise = self.noise_const * self.noise_strength
        return activated(flow + noise + self.bias[:, None, None])


class ToRgb(nn.Module):
    """Maps (N, W, S, S) and a style (N, d) -> what they add to the images (N, C, S, S)."""

    def __init__(self, inputs: int, channels: int, style_size: int) -> None:
        super().__init__()
        self.affine = Dense(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, flow: Tensor, style: Tensor) -> Tensor:
        """Return images (N, C, S, S)."""
        scale = self.affine(style) / math.sqrt(flow.shape[1])
        return functional.conv2d(flow * scale[:, :, None, None], self.weight, self.bias)


def activated(flow: Tensor) -> Tensor:
    """Return LeakyReLU(x) sqrt(2)."""
    return functional.leaky_relu(flow, SLOPE) * GAIN


def bounded(flow: Tensor, clamp: Tensor | None) -> Tensor:
    """Return a tensor clipped to -clamp..clamp; None: as it is."""
    return flow if clamp is None else flow.clamp(-clamp, clamp)


def smoothed(flow: Tensor, smoothing: Tensor) -> Tensor:
    """Return the maps (N, W, 2S, 2S), smoothed by a filter (4, 4) and times 4, of a transposed convolution's
    (N, W, 2S + 1, 2S + 1)."""
    kernel = 4.0 * smoothing.to(flow)
    planes = functional.conv2d(flow.flatten(0, 1)[:, None], kernel[None, None], padding=1)
    return planes[:, 0].unflatten(0, flow.shape[:2])


def enlarged(images: Tensor, smoothing: Tensor) -> Tensor:
    """Return images (N, C, S, S) with zeros between their pixels, smoothed by a filter (4, 4) and times 4:
    (N, C, 2S, 2S)."""
    kernel = 4.0 * smoothing.to(images)
    planes = functional.conv_transpose2d(
        images.flatten(0, 1)[:, None], kernel[None, None], stride=2, padding=1
    )
    return planes[:, 0].unflatten(0, images.shape[:2])

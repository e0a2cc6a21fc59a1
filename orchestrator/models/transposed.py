"""Transposed convolutions of AMI's inverters (kernel 4), computed on CPU by faster operations.

Parameters, state and, up to rounding, values are those of `nn.ConvTranspose2d`; other devices use it
unchanged. With bfloat16 autocast on an AVX-512 CPU a training step of the full-width digit inverter takes 0.8
of the time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 4


class Seed(nn.ConvTranspose2d):
    """Stride 1 on a 1x1 input, as one matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, KERNEL)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, k, 1, 1) to (N, C, 4, 4)."""
        if input.device.type != "cpu":
            return super().forward(input, output_size)
        assert self.bias is not None
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (k, 4 * 4 * C), no copy of channels last
        product = torch.addmm(self.bias.repeat(KERNEL * KERNEL), input.flatten(1), weight)
        return product.unflatten(1, (KERNEL, KERNEL, -1)).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """Stride 2 and padding 1, which double the side; on CPU the weights' gradient is computed differently."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, KERNEL, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, C, S, S) to (N, C', 2S, 2S)."""
        return self._on_cpu(input) if input.device.type == "cpu" else super().forward(input, output_size)

    def _on_cpu(self, input: Tensor) -> Tensor:
        assert self.bias is not None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        return _Double.apply(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class ToPixels(Doubling):
    """Doubling to very few channels, as a matrix product whose patches are summed in float32."""

    def _on_cpu(self, input: Tensor) -> Tensor:
        assert self.bias is not None
        rows = input.permute(0, 2, 3, 1).flatten(1, 2)  # (N, S * S, C)
        patches = (rows @ self.weight.flatten(1)).transpose(1, 2).float()  # (N, channels * 4 * 4, S * S)
        sides = (2 * input.shape[2], 2 * input.shape[3])
        return functional.fold(patches, sides, KERNEL, stride=2, padding=1) + self.bias[:, None, None]


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return functional.conv_transpose2d(input, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        input, weight = ctx.saved_tensors
        (gradient,) = gradients
        # The transpose of a transposed convolution is the convolution with the same weights.
        to_input = functional.conv2d(gradient, weight, stride=2, padding=1)
        to_weight = _weight_product if input.shape[2] <= 4 else _weight_convolution
        return to_input, to_weight(input, weight, gradient), gradient.sum((0, 2, 3))


def _weight_product(input: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the weights' gradient as one matrix product: faster on small images, with few patches."""
    padded = functional.pad(gradient.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, 2S + 2, 2S + 2, C')
    patches = padded.unfold(1, KERNEL, 2).unfold(2, KERNEL, 2)  # (N, S, S, C', 4, 4)
    columns = patches.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)  # (N * S * S, 4 * 4 * C')
    rows = input.permute(0, 2, 3, 1).flatten(0, 2)  # (N * S * S, C)
    return (rows.t() @ columns).unflatten(1, (KERNEL, KERNEL, -1)).permute(0, 3, 1, 2)


def _weight_convolution(input: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the weights' gradient by `convolution_backward`, faster in oneDNN than the transposed one's."""
    return torch.ops.aten.convolution_backward(
        input, gradient, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]

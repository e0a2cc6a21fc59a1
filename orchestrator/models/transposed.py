"""Transposed convolutions of AMI's inverters (kernel 4), computed on CPU by faster operations.

Parameters, state and, up to rounding, values are those of `nn.ConvTranspose2d`; other devices use it
unchanged. docs/performance.md says what they save.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 4
SMALL, MEDIUM, WIDE = 4, 8, 512
"""Sides of maps up to which products of patches give the gradients faster, in float32 and in bfloat16; in
bfloat16 they give the output of small maps too, from WIDE channels on."""


class Seed(nn.ConvTranspose2d):
    """Stride 1 on a 1x1 input, as one matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, KERNEL)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, k, 1, 1) to (N, C, 4, 4)."""
        if input.device.type != "cpu":
            return super().forward(input, output_size)
        assert self.bias is not None
        product = torch.addmm(self.bias.repeat(KERNEL * KERNEL), input.flatten(1), _matrix(self.weight))
        return product.unflatten(1, (KERNEL, KERNEL, -1)).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """Stride 2 and padding 1, which double the side; on CPU computed differently."""

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
    """The transposed convolution; on small maps as matrix products of patches, which fill the units for
    matrices where oneDNN takes a row of the map at a time."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        if input.dtype == torch.bfloat16 and input.shape[2] <= SMALL and len(weight) >= WIDE:
            return _sum_of_patches(input, weight, bias)
        return functional.conv_transpose2d(input, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        input, weight = ctx.saved_tensors
        (gradient,) = gradients
        is_small = input.shape[2] <= (MEDIUM if input.dtype == torch.bfloat16 else SMALL)
        to_both = _by_products if is_small else _by_convolutions
        return *to_both(input, weight, gradient), gradient.sum((0, 2, 3))


def _sum_of_patches(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the output (N, C', 2S, 2S): one matrix product, whose patches are summed in float32.

    Row 2i + p of the output is the sum of row i by the kernel's row 1 + p, and of the row before (p = 0, by
    row 3) or after (p = 1, by row 0); columns likewise.
    """
    number, _, side, _ = input.shape
    rows = input.permute(0, 2, 3, 1).flatten(0, 2)  # (N * S * S, C)
    patches = (rows @ _matrix(weight)).view(number, side, side, KERNEL, KERNEL, -1)
    output = patches.new_empty(number, side, 2, side, 2, patches.shape[-1])
    inner, outer = slice(1, side), slice(0, side - 1)
    ways = ((1, 3, inner, outer), (2, 0, outer, inner))  # by p: both kernel rows, where to add, from where
    for p, (near, far, to_row, from_row) in enumerate(ways):
        for q, (left, right, to_column, from_column) in enumerate(ways):
            total = patches[:, :, :, near, left].float() + bias.float()
            total[:, to_row] += patches[:, from_row, :, far, left]
            total[:, :, to_column] += patches[:, :, from_column, near, right]
            total[:, to_row, to_column] += patches[:, from_row, from_column, far, right]
            output[:, :, p, :, q] = total
    return output.view(number, 2 * side, 2 * side, -1).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """Return weights (C, C', 4, 4) as a matrix (C, 4 * 4 * C'), no copy of channels last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _by_products(input: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by the input and by the weights: two matrix products of the same patches."""
    padded = functional.pad(gradient.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, 2S + 2, 2S + 2, C')
    windows = padded.unfold(1, KERNEL, 2).unfold(2, KERNEL, 2)  # (N, S, S, C', 4, 4)
    columns = windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)  # (N * S * S, 4 * 4 * C')
    rows = input.permute(0, 2, 3, 1)  # (N, S, S, C)
    to_input = (columns @ _matrix(weight).t()).view(rows.shape).permute(0, 3, 1, 2)
    to_weight = rows.flatten(0, 2).t().contiguous() @ columns
    return to_input, to_weight.unflatten(1, (KERNEL, KERNEL, -1)).permute(0, 3, 1, 2)


def _by_convolutions(input: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by the input and by the weights: a transposed convolution is the gradient of the
    convolution with the same weights, whose own gradient oneDNN computes faster than the transposed one's."""
    to_input = functional.conv2d(gradient, weight, stride=2, padding=1)
    to_weight = torch.ops.aten.convolution_backward(
        input, gradient, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    return to_input, to_weight

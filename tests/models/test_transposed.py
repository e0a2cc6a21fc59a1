"""The fast transposed convolutions equal PyTorch's own, in values, gradients and state."""

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models.transposed import WIDE, Doubling, Seed, ToPixels

CASES = [
    (Seed, 7, 12, 1),
    (Doubling, 12, 8, 4),
    (Doubling, 12, 8, 8),
    (Doubling, WIDE, 8, 4),
    (Doubling, WIDE, 4, 1),
    (ToPixels, 8, 1, 16),
    (ToPixels, 8, 3, 8),
]


def run(
    layer: nn.ConvTranspose2d, forward: object, images: Tensor, dtype: torch.dtype | None
) -> list[Tensor]:
    """Return the output and the gradients of input, weight and bias."""
    assert callable(forward)
    inputs = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        output = forward(layer, inputs)
    (output.float() * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    return [output.float(), inputs.grad, layer.weight.grad, layer.bias.grad]  # type: ignore[union-attr,list-item]


@pytest.mark.parametrize(("kind", "inputs", "outputs", "side"), CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-5), (torch.bfloat16, 2e-2)])
def test_equals_the_plain_layer(
    kind: type[nn.ConvTranspose2d],
    inputs: int,
    outputs: int,
    side: int,
    layout: torch.memory_format,
    dtype: torch.dtype | None,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    layer = kind(inputs, outputs).to(memory_format=layout)  # type: ignore[call-arg]
    images = torch.randn(6, inputs, side, side).contiguous(memory_format=layout)
    ours = run(layer, kind.forward, images, dtype)
    plain = run(layer, nn.ConvTranspose2d.forward, images, None)
    for mine, reference in zip(ours, plain, strict=True):
        assert mine.shape == reference.shape
        assert (mine - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.parametrize(("kind", "inputs", "outputs", "side"), CASES)
def test_state_is_that_of_the_plain_layer(
    kind: type[nn.ConvTranspose2d], inputs: int, outputs: int, side: int
) -> None:
    layer = kind(inputs, outputs)  # type: ignore[call-arg]
    stride, padding = (1, 0) if kind is Seed else (2, 1)
    plain = nn.ConvTranspose2d(inputs, outputs, 4, stride=stride, padding=padding)
    plain.load_state_dict(layer.state_dict(), strict=True)
    images = torch.randn(2, inputs, side, side)
    torch.testing.assert_close(layer(images), plain(images), atol=1e-5, rtol=1e-5)

"""LoFt: a head by hand, its shapes, and how few directions of the features reach the logits."""

import math

import pytest
import torch

from orchestrator.defenses.loft import LoftHead


def test_a_head_by_hand() -> None:
    """Features (1, 2) -> 0.5 * 1 + 0.25 * 2 = 1 -> tanh 1 -> logits 2 tanh 1 + 0.1 and -tanh 1."""
    head = LoftHead(2, 2, rank=1, has_norm=False)
    with torch.no_grad():
        head.neck.weight.copy_(torch.tensor([[0.5, 0.25]]))
        head.neck.bias.zero_()
        head.logits.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        head.logits.bias.copy_(torch.tensor([0.1, 0.0]))
    found = head(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[2 * math.tanh(1) + 0.1, -math.tanh(1)]]))


def test_the_norm_precedes_the_neck() -> None:
    """Two rows, 0 and 2, are -1 and 1 after a batch norm, at every scale."""
    head = LoftHead(1, 2, rank=1)
    one, two = (head(scale * torch.tensor([[0.0], [2.0]])) for scale in (1.0, 100.0))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    assert isinstance(head.norm, torch.nn.BatchNorm1d)


@pytest.mark.parametrize("has_norm", [True, False])
def test_its_tensors(has_norm: bool) -> None:
    head = LoftHead(12, 5, rank=3, has_norm=has_norm)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.named_parameters()}
    norm = {"norm.weight": (12,), "norm.bias": (12,)} if has_norm else {}
    linear = {"neck.weight": (3, 12), "neck.bias": (3,), "logits.weight": (5, 3), "logits.bias": (5,)}
    assert shapes == norm | linear
    assert head(torch.rand(4, 3, 2, 2)).shape == (4, 5)


def test_logits_depend_on_as_many_directions_as_the_rank() -> None:
    torch.manual_seed(0)
    head = LoftHead(12, 8, rank=3).eval()
    jacobian = torch.autograd.functional.jacobian(head, torch.rand(1, 12)).squeeze()
    assert torch.linalg.matrix_rank(jacobian) == 3

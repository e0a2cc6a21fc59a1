"""MID: its divergence against torch's, its noise, and the shapes of its bottleneck."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from orchestrator.defenses.mid import MidHead, divergence


def head(noise_at_inference: bool = True) -> MidHead:
    torch.manual_seed(0)
    return MidHead(12, 3, noise_at_inference)


def features() -> torch.Tensor:
    return torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_the_divergence_is_that_of_two_normals() -> None:
    mean, deviation = torch.randn(4, 6), torch.rand(4, 6) + 0.01
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(divergence(mean, deviation), expected)
    assert divergence(torch.zeros(2, 3), torch.ones(2, 3)) == 0.0


def test_the_head_keeps_the_divergence_of_its_last_batch() -> None:
    mid = head()
    assert mid.divergence is None
    mid(features())
    code = mid.bottleneck(features().flatten(1))
    expected = kl_divergence(Normal(code[:, :6], functional.softplus(code[:, 6:] - 5)), Normal(0.0, 1.0))
    assert mid.divergence is not None
    torch.testing.assert_close(mid.divergence, expected.sum(dim=1).mean())
    mid.divergence.backward()
    assert mid.bottleneck.weight.grad is not None
    assert mid.logits.weight.grad is None


def test_the_code_is_half_of_the_features_rounded_down() -> None:
    mid = MidHead(7, 4)
    assert {name: tuple(tensor.shape) for name, tensor in mid.state_dict().items()} == {
        "bottleneck.weight": (6, 7),
        "bottleneck.bias": (6,),
        "logits.weight": (4, 3),
        "logits.bias": (4,),
    }
    assert mid(torch.rand(2, 7)).shape == (2, 4)


@pytest.mark.parametrize("noise_at_inference", [False, True])
def test_inference_draws_noise_only_where_asked(noise_at_inference: bool) -> None:
    mid = head(noise_at_inference).eval()
    first, second = mid(features()), mid(features())
    assert torch.equal(first, second) is not noise_at_inference
    if not noise_at_inference:
        mean = mid.bottleneck(features().flatten(1))[:, :6]
        torch.testing.assert_close(first, mid.logits(mean))


@pytest.mark.parametrize("noise_at_inference", [False, True])
def test_training_always_draws_noise_and_repeats_with_the_seed(noise_at_inference: bool) -> None:
    mid = head(noise_at_inference).train()
    draws = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        draws.append(mid(features()))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_noise_has_the_deviation_of_its_code() -> None:
    """With the code shown as logits: softplus(s - 5) at s = 6 is 1.3133."""
    mid = MidHead(4, 2)
    with torch.no_grad():
        mid.bottleneck.weight.zero_()
        mid.bottleneck.bias.copy_(torch.tensor([1.0, -2.0, 6.0, 6.0]))
        mid.logits.weight.copy_(torch.eye(2))
        mid.logits.bias.zero_()
        torch.manual_seed(0)
        drawn = mid(torch.zeros(20000, 4))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), 1.3133), atol=0.03, rtol=0)


def test_mixed_precision_leaves_the_divergence_in_float32() -> None:
    mid = head()
    with torch.autocast("cpu", torch.bfloat16):
        assert mid(features()).dtype == torch.bfloat16
    assert mid.divergence is not None
    assert mid.divergence.dtype == torch.float32

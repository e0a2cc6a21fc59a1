"""Label smoothing: torch's where torch has it, by hand below 0, and the schedule of its factor."""

import math

import pytest
import torch
from torch.nn import functional

from orchestrator.config import Smoothing
from orchestrator.defenses.smoothing import alpha_at, smoothed_cross_entropy


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_positive_factors_are_those_of_torch(alpha: float) -> None:
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    expected = functional.cross_entropy(logits, labels, label_smoothing=alpha)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, alpha), expected)


def test_a_factor_of_0_is_exactly_cross_entropy() -> None:
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    assert torch.equal(smoothed_cross_entropy(logits, labels, 0.0), functional.cross_entropy(logits, labels))


def test_a_negative_factor_by_hand() -> None:
    """Scores 1/2 and 1/4, 1/4: 1.05 log 2 less 0.05 (log 2 + 2 log 4) / 3."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    expected = 1.05 * math.log(2) - 0.05 * (math.log(2) + 2 * math.log(4)) / 3
    torch.testing.assert_close(
        smoothed_cross_entropy(logits, torch.tensor([0]), -0.05), torch.tensor(expected)
    )


def test_a_negative_factor_pushes_the_other_scores_below_0_more() -> None:
    """The gradient of a logit is p - (1 - alpha) [i = y] - alpha / k."""
    logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    smoothed_cross_entropy(logits, torch.tensor([0]), -0.3).backward()
    expected = logits.detach().softmax(1) - torch.tensor([[1.3 - 0.1, -0.1, -0.1]])
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize(
    ("start", "full", "epochs", "expected"),
    [
        (0.0, 0.0, 3, [1, 1, 1]),
        (0.0, 1.0, 4, [0.25, 0.5, 0.75, 1]),
        (0.5, 0.75, 8, [0, 0, 0, 0, 0.5, 1, 1, 1]),
        (0.5, 0.5, 4, [0, 0, 1, 1]),
        (0.9, 0.9, 1, [1]),
    ],
)
def test_the_schedule(start: float, full: float, epochs: int, expected: list[float]) -> None:
    smoothing = Smoothing(alpha=-0.05, start=start, full=full)
    found = [alpha_at(smoothing, epoch, epochs) for epoch in range(1, epochs + 1)]
    assert found == pytest.approx([-0.05 * factor for factor in expected])


def test_the_released_ramp_reaches_half_of_the_factor_and_jumps() -> None:
    """Their code, with epochs from 0: (epoch + 1 - 50) / (100 - 50) below 75, 1 from there on."""
    smoothing = Smoothing(alpha=-0.05, start=0.5, full=0.75, ramp="released")
    for epoch, factor in {50: 0.0, 51: 0.02, 60: 0.2, 75: 0.5, 76: 1.0, 100: 1.0}.items():
        assert alpha_at(smoothing, epoch, 100) == pytest.approx(-0.05 * factor)
        assert alpha_at(smoothing, 2 * epoch, 200) == pytest.approx(-0.05 * factor)

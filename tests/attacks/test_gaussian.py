"""Gaussians: N(0, I) at the start, and divergence by hand."""

import math

import torch

from orchestrator.attacks.gaussian import Gaussian


def test_it_begins_as_the_normal_distribution() -> None:
    parameters, fixed = Gaussian(3).begun(2, torch.Generator())
    noise = torch.randn(2, 5, 3)
    assert torch.equal(Gaussian(3).drawn(parameters, fixed, noise), noise)
    assert Gaussian(3).divergence(parameters, fixed, noise).tolist() == [0.0, 0.0]


def test_draws_and_divergence_by_hand() -> None:
    """1/2 (m^2 + s^2 - 1 - ln s^2) for each number."""
    parameters = torch.tensor([[0.5, -1.0, math.log(2.0), 0.0]])
    fixed, noise = torch.empty(1, 0), torch.tensor([[[1.0, 3.0]]])
    torch.testing.assert_close(Gaussian(2).drawn(parameters, fixed, noise), torch.tensor([[[2.5, 2.0]]]))
    expected = 0.5 * (0.25 + 4 - 1 - math.log(4.0)) + 0.5
    torch.testing.assert_close(Gaussian(2).divergence(parameters, fixed, noise), torch.tensor([expected]))

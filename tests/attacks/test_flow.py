"""Flows: parameters counted, N(0, I) at the start, there and back, and densities by the Jacobian."""

import pytest
import torch
from torch import Tensor

from orchestrator.attacks.flow import Flow, Flows, log_normal

SMALL = Flow(size=10, levels=3, couplings=2, width=5, is_normalised=False)  # levels of 10, 5 and 3


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(flow: Flow = SMALL) -> Flows:
    """Return two flows whose parameters have all left 0."""
    parameters, permutations = flow.begun(2, drawn())
    return Flows(flow, parameters + 0.1 * torch.randn(parameters.shape, generator=drawn(1)), permutations)


def noise(number: int = 7, size: int = 10) -> Tensor:
    return torch.randn(2, number, size, generator=drawn(2))


def test_the_printed_sizes() -> None:
    """Released with convolutions: 9,878,976; only the centre of each kernel acts."""
    flow = Flow(size=512, levels=3, couplings=10, width=100, is_normalised=True)
    assert flow.sizes == [512, 256, 128]
    assert flow.num_shared == 128
    assert flow.num_parameters == 1_400_256
    parameters, permutations = Flow(512, 3, 1, 100, False).begun(1, drawn())
    assert parameters.shape[1] == 63_136 + 36_768 + 23_584 + 132_096 + 33_280
    assert permutations.shape == (1, 512 + 256 + 128)


def test_levels_without_two_numbers_are_left_out() -> None:
    assert Flow(6, 8, 1, 4, False).sizes == [6, 3, 2]
    assert Flow(1, 3, 1, 4, False).sizes == [1]


@pytest.mark.parametrize("size", [1, 2, 10, 64])
def test_it_begins_as_the_normal_distribution(size: int) -> None:
    """The divergence of every draw is 0, whatever the permutations, which move the numbers."""
    flow = Flow(size, 3, 4, 8, is_normalised=False)
    parameters, permutations = flow.begun(2, drawn())
    given = noise(size=size)
    values, density = Flows(flow, parameters, permutations).decoded(given)
    torch.testing.assert_close(density, log_normal(values), atol=1e-4, rtol=0.0)
    assert torch.equal(values.sort(dim=2).values, given.sort(dim=2).values)
    assert size < 10 or not torch.equal(values, given)
    apart = flow.divergence(parameters, permutations, given)
    torch.testing.assert_close(apart, torch.zeros(2), atol=1e-4, rtol=0.0)


def test_there_and_back() -> None:
    flows, given = moved(), noise()
    values, density = flows.decoded(given)
    back, same = flows.encoded(values)
    torch.testing.assert_close(back, given, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same, density, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(values.sort(dim=2).values, given.sort(dim=2).values, atol=0.1)


def test_the_density_is_that_of_the_change_of_variables() -> None:
    flows, given = moved(), noise(1)

    def decoded(one: Tensor) -> Tensor:
        return flows.decoded(one.expand(2, 1, 10))[0][1, 0]

    jacobian: Tensor = torch.autograd.functional.jacobian(decoded, given[1, 0])
    expected = log_normal(given)[1, 0] - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flows.decoded(given)[1][1, 0], expected, atol=1e-4, rtol=1e-4)


def test_the_divergence_is_the_mean_of_log_q_minus_log_normal() -> None:
    parameters, permutations = SMALL.begun(2, drawn())
    parameters = parameters + 0.1
    values, density = Flows(SMALL, parameters, permutations).decoded(noise(50))
    apart = SMALL.divergence(parameters, permutations, noise(50))
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(values).sum(2)
    torch.testing.assert_close(apart, (density - normal).mean(1), atol=1e-3, rtol=1e-4)


def test_released_normalisations_leave_it_some_nats_from_normal() -> None:
    """About 6 of 512 numbers; what they normalise has mean 0 and deviation 1 at every place."""
    flow = Flow(512, 3, 10, 8, is_normalised=True)
    parameters, permutations = flow.begun(1, drawn())
    given = torch.randn(1, 200, 512, generator=drawn(2))
    apart = flow.divergence(parameters, permutations, given)
    assert 4.0 < apart.item() < 9.0
    flows = Flows(SMALL, *SMALL.begun(1, drawn()))
    seen = 3.0 + 2.0 * torch.randn(1, 100, 10, generator=drawn(3))
    flows.normalise(seen)
    encoded = flows.encoded(seen)[0]
    torch.testing.assert_close(encoded.mean(1), torch.zeros(1, 10), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(encoded.square().mean(1), torch.ones(1, 10), atol=1e-4, rtol=0.0)


def test_flows_beside_each_other_are_themselves_alone() -> None:
    parameters, permutations = SMALL.begun(2, drawn())
    parameters = parameters + 0.1 * torch.randn(parameters.shape, generator=drawn(1))
    both = SMALL.drawn(parameters, permutations, noise())
    alone = SMALL.drawn(parameters[1:], permutations[1:], noise()[1:])
    torch.testing.assert_close(both[1:], alone)

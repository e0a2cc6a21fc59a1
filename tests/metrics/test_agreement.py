"""Agreement of judges by hand, and where it is undefined."""

import pytest
import torch

from orchestrator.metrics.agreement import agreement, kappa

ONE = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0, 1, 1])
OTHER = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 1, 1, 0])


def test_judges_agree_where_both_accept_or_both_refuse() -> None:
    assert agreement(ONE, OTHER).tolist() == [1, 1, 0, 1, 1, 1, 1, 0, 1, 0]


def test_kappa_by_hand() -> None:
    """They agree on 7 of 10; at random they would on 0.5 x 0.4 + 0.5 x 0.6 = 0.5: kappa is 0.2 / 0.5."""
    assert kappa(ONE, OTHER) == pytest.approx(0.4)
    assert kappa(OTHER, ONE) == pytest.approx(0.4)
    assert kappa(ONE, ONE) == pytest.approx(1.0)
    assert kappa(ONE, 1 - ONE) == pytest.approx(-1.0)  # each accepts half


def test_kappa_of_independent_judges_is_near_nothing() -> None:
    draws = torch.rand(2, 100_000, generator=torch.Generator().manual_seed(0))
    assert kappa((draws[0] < 0.9).double(), (draws[1] < 0.2).double()) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_kappa_of_judges_that_never_differ_is_undefined(value: float) -> None:
    same = torch.full((3,), value)
    assert kappa(same, same) is None
    assert kappa(same, 1 - same) == 0.0
    assert kappa(same[:0], same[:0]) is None

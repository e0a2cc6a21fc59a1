"""Optimisers: every setting of a recipe, schedules, gradients of several workers, state by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config import Recipe
from orchestrator.training.optimizers import SGD, Adam, Descent, learning_rate, new_optimizer
from orchestrator.training.world import World

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.5, weight_decay=0.2),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.1, betas=(0.9, 0.999), weight_decay=0.2),
    "amsgrad": lambda weights: torch.optim.Adam(
        weights, lr=0.1, betas=(0.5, 0.999), weight_decay=0.2, amsgrad=True
    ),
}


def stepped(optimizer: torch.optim.Optimizer, weights: nn.Parameter) -> Tensor:
    """Take three steps down different slopes."""
    for slope in (1.0, -2.0, 0.5):
        weights.grad = slope * torch.tensor([1.0, -0.5, 0.0])
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_torchs_with_every_setting_of_the_recipe(name: Any) -> None:
    def weights() -> nn.Parameter:
        return nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def ours(**changes: float) -> Tensor:
        one = weights()
        values = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.2, **changes}
        return stepped(new_optimizer([one], Recipe.model_validate({"optimizer": name, **values})), one)

    one = weights()
    torch.testing.assert_close(ours(), stepped(OPTIMIZERS[name]([one]), one), rtol=0, atol=1e-6)
    assert not torch.allclose(ours(), ours(weight_decay=0.0))
    assert not torch.allclose(ours(), ours(learning_rate=0.05))
    assert torch.equal(ours(), ours(momentum=0.9)) is (name != "sgd")


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [(Adam, torch.optim.Adam, {"amsgrad": True}), (SGD, torch.optim.SGD, {"momentum": 0.9})],
)
def test_optimizers_step_hook_and_resume_as_torchs_to_the_bit(
    ours: Any, theirs: Any, settings: dict[str, Any]
) -> None:
    found = []
    for kind in (ours, theirs):
        weights = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        calls: list[str] = []
        optimizer = kind([{"params": [weights], "lr": 0.3}], lr=0.1, fused=True, **settings)
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        stepped(optimizer, weights)
        other = kind([weights], lr=0.1, fused=True, **settings)
        other.load_state_dict(optimizer.state_dict())
        other.zero_grad()
        assert weights.grad is None
        assert calls == ["before"] * 3
        found.append(stepped(other, weights).clone())
    assert torch.equal(*found)


def test_one_step_of_sgd_by_hand() -> None:
    weights = nn.Parameter(torch.tensor([2.0]))
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    optimizer = new_optimizer([weights], recipe)
    weights.grad = torch.tensor([3.0])
    optimizer.step()
    assert weights.item() == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))


def test_the_step_size_is_a_tenth_after_each_milestone() -> None:
    recipe = Recipe(epochs=6, learning_rate=0.1, milestones=(2, 4))
    rates = [learning_rate(recipe, epoch) for epoch in range(1, 7)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def squares(weights: list[nn.Parameter]) -> Tensor:
    """Return the sum of all squares."""
    return torch.cat([weight.flatten() for weight in weights]).square().sum()


def test_a_parameter_may_have_a_rate_of_its_own_that_decays_with_the_recipes() -> None:
    """sgd without momentum down a slope of 1: each step is as long as the rate."""
    first, own, last = (nn.Parameter(torch.tensor([float(n)])) for n in range(3))
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.0, milestones=(1,))
    descent = Descent([first, own, last], recipe, rates={own: 0.5})
    for epoch in (1, 2):
        descent.begin(epoch)
        descent.descend(first.sum() + own.sum() + last.sum(), World())
    assert [one.item() for one in (first, own, last)] == pytest.approx([-0.11, 1 - 0.55, 2 - 0.11])


def test_the_state_of_a_parameter_with_its_own_rate_is_restored_to_it() -> None:
    def descent() -> tuple[list[nn.Parameter], Descent]:
        weights = [nn.Parameter(torch.ones(n)) for n in (1, 2, 3)]
        return weights, Descent(weights, Recipe(learning_rate=0.1), rates={weights[0]: 0.7})

    (weights, one), (others, other) = descent(), descent()
    for step in range(3):
        one.begin(1)
        one.descend((step + 1) * squares(weights), World())
    with torch.no_grad():
        for weight, copy in zip(weights, others, strict=True):
            copy.copy_(weight)
    other.load({name: tensor.clone() for name, tensor in one.state().items()})
    other.begin(1)
    for which, held in ((one, weights), (other, others)):
        which.descend(squares(held), World())
    assert all(torch.equal(weight, copy) for weight, copy in zip(weights, others, strict=True))


def test_a_rate_of_its_own_leaves_the_others_bits_alone() -> None:
    def stepped_with(rates: dict[nn.Parameter, float], weights: list[nn.Parameter]) -> Tensor:
        descent = Descent(weights, Recipe(learning_rate=0.1), rates=rates)
        for epoch in (1, 2, 3):
            descent.begin(epoch)
            descent.descend(squares(weights), World())
        return weights[1].detach()

    one, other = ([nn.Parameter(torch.linspace(0, 1, 5)) for _ in range(2)] for _ in range(2))
    assert torch.equal(stepped_with({}, one), stepped_with({other[0]: 0.7}, other))

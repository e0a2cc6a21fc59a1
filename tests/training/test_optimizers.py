"""Optimisers: every setting of a recipe, schedules, gradients of several workers, state by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config import Recipe
from orchestrator.training.optimizers import learning_rate, new_optimizer

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

"""The inverter around its encoder: its constant, what it is trained by, and what it makes."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator import config
from orchestrator.attacks import build_attack
from orchestrator.attacks.inverter import Inverter, own_rates
from orchestrator.attacks.losses import Rival, objective
from orchestrator.models.discriminator import Discriminator
from orchestrator.stages.networks import AtRandomTruncations, AtTruncation
from orchestrator.training.loop import fit
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import drawing_from, seeded
from orchestrator.training.world import World

PAPER = torch.tensor([[0.6, 0.05, 0.06, 0.2, 0.09]])
TRUNCATED = torch.tensor([[0.6, 0, 0, 0.2, 0]])


def inverter(attack: config.InverterAttack | None = None) -> Inverter:
    attack = attack or config.InverterAttack(model=config.Model(name="ami-digit", width=0.05))
    return build_attack(attack, classes=5, channels=1, image_size=32)


def test_a_fixed_offset_is_a_buffer_and_a_learnable_one_a_parameter() -> None:
    model = config.Model(name="ami-digit", width=0.05)
    fixed, learnable = (
        inverter(config.InverterAttack(model=model, offset_learnable=on)) for on in (False, True)
    )
    assert "offset" not in dict(fixed.named_parameters())
    assert "offset" in dict(learnable.named_parameters())
    assert set(fixed.state_dict()) == set(learnable.state_dict())
    assert learnable.offset == 10.0


def test_a_learnable_offset_is_trained() -> None:
    attack = config.InverterAttack(
        model=config.Model(name="ami-digit", width=0.05),
        offset_learnable=True,
        offset=1.5,
        zero_policy="floor",
    )
    network = inverter(attack)
    network(PAPER.repeat(2, 1), 5).square().mean().backward()
    assert network.offset.grad is not None
    assert network.offset.grad != 0.0


@pytest.mark.parametrize("learnable", [False, True])
def test_the_offset_may_be_the_logarithm_of_the_number_of_classes(learnable: bool) -> None:
    model = config.Model(name="ami-digit", width=0.05)
    made = inverter(config.InverterAttack(model=model, offset="log-k", offset_learnable=learnable))
    assert made.offset.item() == pytest.approx(math.log(5))


def test_an_inverter_of_the_classes_seen_has_inputs_for_these_alone() -> None:
    """As an inverter of three classes with the same weights would, whatever the scores of the others."""
    attack = config.InverterAttack(model=config.Model(name="ami-digit", width=0.05), offset="log-k")
    seen = torch.tensor([0, 3, 4])
    shapes: dict[str, Any] = {"channels": 1, "image_size": 32}
    some: Any = seeded(lambda: build_attack(attack, classes=5, named=seen, **shapes), 0)
    three: Any = seeded(lambda: build_attack(attack, classes=3, **shapes), 0)
    assert some.offset.item() == pytest.approx(math.log(3))
    assert torch.equal(some.eval()(PAPER, 5), three.eval()(PAPER[:, seen], 3))
    others = PAPER.clone()
    others[:, [1, 2]] = 0.0
    assert torch.equal(some(PAPER, 5), some(others, 5))
    restored = build_attack(attack, classes=5, named=some.state_dict()["named"], **shapes)
    restored.load_state_dict(some.state_dict())
    assert torch.equal(restored.eval()(PAPER, 2), some(PAPER, 2))
    assert "named" not in three.state_dict()


def moved(rate: float | None, **changes: Any) -> float:
    """Return by how much c has moved from 3 after 2 epochs of 4 steps, of which the second is decayed."""
    recipe = config.Recipe(epochs=2, batch_size=8, learning_rate=1e-4, milestones=(1,))
    attack = config.InverterAttack(
        model=config.Model(name="ami-digit", width=0.05),
        offset=3.0,
        offset_learnable=True,
        offset_learning_rate=rate,
        recipe=recipe,
        **changes,
    )
    made: Any = seeded(lambda: inverter(attack), 0)
    generator = torch.Generator().manual_seed(0)
    scores, images = (
        torch.rand(36, 5, generator=generator).softmax(1),
        torch.rand(36, 1, 32, 32, generator=generator),
    )
    network: nn.Module = AtTruncation(made, 5)
    loss = objective(attack.losses, None)
    if attack.losses.adversarial:
        network = Rival(network, seeded(lambda: Discriminator(channels=1, image_size=32, width=0.05), 0))
    fit(network, Pairs(scores, images), replace(loss, own_rates=own_rates(attack)), recipe, 0, World())
    return abs(made.offset.item() - 3.0)


@pytest.mark.parametrize("losses", [{}, {"adversarial": 0.01}], ids=str)
def test_a_learnable_offset_moves_by_its_own_rate_and_else_by_the_recipes(losses: dict[str, float]) -> None:
    """Steps of Adam are at most about as long as the rate, which the recipe decays after four of eight."""
    own, recipes = moved(0.05, losses=losses), moved(None, losses=losses)
    assert 0.02 < own < 4.4 * 0.05
    assert 0 < recipes < 4.4 * 1e-4
    assert own > 100 * recipes


@pytest.mark.parametrize(("rate", "learnable", "rates"), [(0.1, True, 1), (None, True, 0), (0.1, False, 0)])
def test_only_a_learnable_offset_has_a_rate_of_its_own(
    rate: float | None, learnable: bool, rates: int
) -> None:
    model = config.Model(name="ami-digit", width=0.05)
    attack = config.InverterAttack(model=model, offset_learnable=learnable, offset_learning_rate=rate)
    assert len(own_rates(attack)) == rates


def test_the_truncation_belongs_to_the_scores() -> None:
    """An inverter trained on full scores takes the victim's truncated vector with the victim's m."""
    network = inverter().eval()
    assert torch.equal(network(PAPER, 2), network(TRUNCATED, 2))
    assert not torch.equal(network(PAPER, 5), network(PAPER, 2))


class Shown(Inverter):
    """An inverter that returns the scores that it is given."""

    def forward(self, released: torch.Tensor, m: int) -> torch.Tensor:
        return released


def test_an_inverter_for_every_truncation_is_trained_on_all_of_them_alike() -> None:
    plain = inverter()
    shown = Shown(plain.network, offset=10.0, offset_learnable=False, zero_policy="zero-after-log")
    network, scores = AtRandomTruncations(shown), PAPER.repeat(5000, 1)
    given = []
    for seed in (3, 3, 4):
        with drawing_from(seed):
            given.append(network(scores))
    first, again, other = given
    lengths, counts = (first > 0).sum(dim=1).unique(return_counts=True)
    assert lengths.tolist() == [1, 2, 3, 4, 5]
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_rows_have_each_truncation_in_turn_and_as_it_is_released() -> None:
    """Row i of a batch has 1 + i mod k scores, and gives what the inverter makes of that release."""
    plain = inverter()
    network = AtRandomTruncations(plain).eval()
    together = network(PAPER.repeat(7, 1))
    for place, m in enumerate((1, 2, 3, 4, 5, 1, 2)):
        torch.testing.assert_close(together[place : place + 1], plain(PAPER, m))


def test_reconstructions_are_images() -> None:
    images = inverter()(PAPER.repeat(3, 1), 5)
    assert images.shape == (3, 1, 32, 32)
    assert ((images >= 0) & (images <= 1)).all()


def test_training_the_inverter_lowers_its_loss() -> None:
    """A few steps on four distinct images beat the untrained inverter by far."""
    torch.manual_seed(0)
    network = inverter()
    scores = torch.eye(5)[:4]
    images = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 1, 32, 32)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = nn.functional.mse_loss(network(scores, 1), images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]

"""The encoder of released scores, checked by hand, and the inverter around it."""

import math

import pytest
import torch
from torch import nn

from orchestrator import config
from orchestrator.attacks import build_attack
from orchestrator.attacks.inverter import Inverter, ZeroPolicy, encode
from orchestrator.threat import truncate

PAPER = torch.tensor([[0.6, 0.05, 0.06, 0.2, 0.09]])
TRUNCATED = torch.tensor([[0.6, 0, 0, 0.2, 0]])
LOG6, LOG2 = math.log(0.6), math.log(0.2)


def inverter(attack: config.InverterAttack | None = None) -> Inverter:
    attack = attack or config.InverterAttack(model=config.Model(name="ami-digit", width=0.05))
    return build_attack(attack, classes=5, channels=1, image_size=32)


@pytest.mark.parametrize(
    ("policy", "m", "offset", "expected"),
    [
        ("zero-after-log", 2, 50.0, [LOG6 + 50, 0, 0, LOG2 + 50, 0]),
        ("zero-after-log", 5, 50.0, [LOG6 + 50, 0, 0, LOG2 + 50, 0]),  # a zero score is never a kept one
        ("zero-after-log", 1, 50.0, [LOG6 + 50, 0, 0, 0, 0]),
        ("zero-after-log", 2, 1.0, [LOG6 - LOG2, 0, 0, 0, 0]),  # log 0.2 + 1 < 0, so the row is shifted
        ("log-clamp", 5, 50.0, [LOG6 + 1000, 0, 0, LOG2 + 1000, 0]),  # 50 - 1000, then 950 for everyone
        ("log-clamp", 2, 50.0, [LOG6 + 1000, 0, 0, LOG2 + 1000, 0]),
        ("floor", 2, 50.0, [LOG6 + 50, *[math.log(1e-6) + 50] * 2, LOG2 + 50, math.log(1e-6) + 50]),
        ("floor", 2, 1.0, [LOG6 + 1, *[math.log(1e-6) + 1] * 2, LOG2 + 1, math.log(1e-6) + 1]),
    ],
)
def test_encoding_by_hand(policy: ZeroPolicy, m: int, offset: float, expected: list[float]) -> None:
    torch.testing.assert_close(encode(TRUNCATED, m, offset, policy), torch.tensor([expected]))


def test_zeros_through_the_logarithm_saturate_the_inverter() -> None:
    """The trap: the same truncated vector is ordinary under one policy and near 1000 under the other."""
    trap = encode(TRUNCATED, 5, 50.0, "log-clamp")[0].round(decimals=1)
    torch.testing.assert_close(trap, torch.tensor([999.5, 0, 0, 998.4, 0]))


@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp"])
def test_a_full_vector_needs_no_zero_policy(policy: ZeroPolicy) -> None:
    torch.testing.assert_close(encode(PAPER, 5, 50.0, policy), PAPER.log() + 50)


def test_a_one_hot_vector_maps_to_exactly_the_offset() -> None:
    one_hot = torch.eye(5)
    assert torch.equal(encode(one_hot, 1, 50.0, "zero-after-log"), 50 * one_hot)


def test_a_full_vector_is_cut_to_m() -> None:
    torch.testing.assert_close(
        encode(PAPER, 2, 50.0, "zero-after-log"), encode(truncate(PAPER, 2), 2, 50.0, "zero-after-log")
    )


def test_scores_rounded_away_leave_an_empty_row() -> None:
    assert torch.equal(encode(torch.zeros(2, 5), 5, 50.0, "zero-after-log"), torch.zeros(2, 5))


def test_kept_scores_and_the_offset_pass_gradients_and_dropped_ones_none() -> None:
    scores = TRUNCATED.clone().requires_grad_()
    offset = torch.tensor(50.0, requires_grad=True)
    encode(scores, 2, offset, "zero-after-log").sum().backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[1 / 0.6, 0, 0, 1 / 0.2, 0]]))
    assert offset.grad == 2.0


@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp", "floor"])
def test_gradients_are_finite_at_zero(policy: ZeroPolicy) -> None:
    scores = torch.tensor([[1.0, 0, 0, 1e-40, 0]], requires_grad=True)
    encode(scores, 3, 50.0, policy).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, [0, 1, 2, 4]].isfinite().all()


def test_a_shift_takes_the_offset_out() -> None:
    offset = torch.tensor(1.0, requires_grad=True)
    z = encode(TRUNCATED, 2, offset, "zero-after-log")
    z.sum().backward()
    assert offset.grad == 0.0


def test_encoding_is_float32_whatever_comes_in() -> None:
    assert encode(TRUNCATED.double(), 2, 50.0, "zero-after-log").dtype == torch.float32


def test_a_fixed_offset_is_a_buffer_and_a_learnable_one_a_parameter() -> None:
    model = config.Model(name="ami-digit", width=0.05)
    fixed, learnable = (
        inverter(config.InverterAttack(model=model, offset_learnable=on)) for on in (False, True)
    )
    assert "offset" not in dict(fixed.named_parameters())
    assert "offset" in dict(learnable.named_parameters())
    assert set(fixed.state_dict()) == set(learnable.state_dict())
    assert learnable.offset == 50.0


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


def test_the_truncation_belongs_to_the_scores() -> None:
    """An inverter trained on full scores takes the victim's truncated vector with the victim's m."""
    network = inverter().eval()
    assert torch.equal(network(PAPER, 2), network(TRUNCATED, 2))
    assert not torch.equal(network(PAPER, 5), network(PAPER, 2))


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

"""MIA on victims whose descent can be worked out by hand: its steps, its three ends, its result."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import mia
from orchestrator.attacks.image_priors import denoise, sharpen
from orchestrator.threat import WhiteBox

SHAPE = (1, 2, 2)
HALVES = [0.5, 0.5, 0.5, 0.5]  # of length 1: the logit grows as far as the image moves


def victim(weight: list[list[float]], bias: list[float] | None = None) -> WhiteBox:
    linear = nn.Linear(4, len(weight))
    linear.weight = nn.Parameter(torch.tensor(weight))
    linear.bias = nn.Parameter(torch.tensor(bias or [0.0] * len(weight)))
    return WhiteBox(nn.Sequential(nn.Flatten(), linear))


def two_classes(weight: list[float], bias: float = 0.0) -> WhiteBox:
    """Return a victim with F(x)_0 = sigmoid(w.x + b)."""
    return victim([weight, [0.0] * 4], [bias, 0.0])


def one_hot(*classes: int, k: int = 2) -> Tensor:
    return torch.eye(k)[list(classes)]


def attack(**settings: Any) -> config.MiaAttack:
    return config.MiaAttack(name="mia", **settings)


def test_one_step_by_hand() -> None:
    """From black, c = 0.5 and its slope is -0.25 w; a pixel that would fall below 0 stays at 0."""
    found = mia.invert(
        attack(steps=1, learning_rate=0.8), two_classes([1.0, 2.0, 3.0, -4.0]), one_hot(0), 1, SHAPE
    )
    torch.testing.assert_close(found.images, torch.tensor([[[[0.2, 0.4], [0.6, 0.0]]]]))
    score = 1 / (1 + math.exp(-(0.2 + 0.8 + 1.8)))
    torch.testing.assert_close(found.costs, torch.tensor([1 - score]))
    assert found.steps.tolist() == [1]


def test_one_step_of_the_cross_entropy() -> None:
    """Its slope is -(1 - F) w, twice as steep here."""
    settings = attack(steps=1, learning_rate=0.4, cost="cross-entropy")
    found = mia.invert(settings, two_classes([1.0, 2.0, 3.0, -4.0]), one_hot(0), 1, SHAPE)
    torch.testing.assert_close(found.images, torch.tensor([[[[0.2, 0.4], [0.6, 0.0]]]]))
    torch.testing.assert_close(found.costs, torch.tensor([math.log1p(math.exp(-2.8))]))


@pytest.mark.parametrize(("score", "steps"), [(0.5, 0), (0.7, 1), (0.8, 2), (0.86, 3)])
def test_a_sufficient_score_ends_the_descent(score: float, steps: int) -> None:
    """Logits 0, 4 * 0.25 = 1, 1 + 4 * 0.1966 = 1.786 and, clamped, 2; scores 0.5, 0.731, 0.856, 0.881."""
    settings = attack(score=score, learning_rate=4.0)
    found = mia.invert(settings, two_classes(HALVES), one_hot(0), 1, SHAPE)
    assert found.steps.tolist() == [steps]
    assert 1 - found.costs.item() >= score


def test_the_score_bounds_both_costs_alike() -> None:
    settings = attack(score=0.8, learning_rate=1.0, cost="cross-entropy")
    found = mia.invert(settings, two_classes(HALVES), one_hot(0), 1, SHAPE)
    assert 0.8 <= math.exp(-found.costs.item()) < 0.85
    assert 1 < found.steps.item() < 10


@pytest.mark.parametrize("patience", [1, 3, 10])
def test_patience_ends_a_descent_that_stands_still(patience: int) -> None:
    """The first step makes the image white; the cost of the start must leave the window of the last costs."""
    settings = attack(patience=patience, learning_rate=100.0)
    found = mia.invert(settings, two_classes(HALVES), one_hot(0), 1, SHAPE)
    assert found.steps.tolist() == [patience + 1]
    assert torch.equal(found.images, torch.ones(1, *SHAPE))


def test_patience_lasts_for_as_many_steps_at_least() -> None:
    found = mia.invert(attack(patience=7), two_classes([0.0] * 4), one_hot(0), 1, SHAPE)
    assert found.steps.tolist() == [7]


def test_steps_end_a_descent_that_still_falls() -> None:
    box = two_classes(HALVES)
    found = mia.invert(attack(steps=12, learning_rate=0.01), box, one_hot(0), 1, SHAPE)
    assert found.steps.tolist() == [12]
    assert box.num_queries == 13  # the start too


def test_many_classes_do_not_end_it_at_once() -> None:
    """With more than 100 classes the first cost is above 0.99, which is a bound on the score."""
    k = 200
    box = victim([[3.0 * (label == 7)] * 4 for label in range(k)])
    found = mia.invert(attack(learning_rate=1.0), box, one_hot(7, k=k), 1, SHAPE)
    assert found.steps.item() > 1
    assert found.costs.item() <= 0.01


class Bell(nn.Module):
    """F(x)_0 is highest where the mean is 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: Tensor) -> Tensor:
        distance = (images.mean(dim=(1, 2, 3)) - 0.5).square()
        return torch.stack([-self.height * distance, torch.zeros_like(distance)], dim=1)


def test_the_best_image_is_returned_and_not_the_last() -> None:
    """Each step leaps over the top, to white and to black, and the start was best."""
    settings = attack(steps=5, start=0.4, learning_rate=1000.0)
    found = mia.invert(settings, WhiteBox(Bell()), one_hot(0), 1, SHAPE)
    assert torch.equal(found.images, torch.full((1, *SHAPE), 0.4))
    torch.testing.assert_close(found.costs, torch.tensor([1 / (1 + math.exp(-20 * 0.01))]))
    assert found.steps.tolist() == [5]


def test_a_better_later_image_replaces_an_earlier_one() -> None:
    found = mia.invert(attack(steps=3, start=0.1), two_classes(HALVES), one_hot(0), 1, SHAPE)
    assert (found.images > 0.1).all()


def test_only_the_cross_entropy_moves_a_victim_sure_of_another_class() -> None:
    sure = two_classes(HALVES, bias=-40.0)
    moved = {
        cost: mia.invert(attack(steps=10, cost=cost), sure, one_hot(0), 1, SHAPE).images.max().item()
        for cost in ("probability", "cross-entropy")
    }
    assert moved["probability"] < 1e-6
    assert moved["cross-entropy"] == pytest.approx(10 * 0.1 * 0.5)


def test_small_scores_are_compared_although_one_less_them_is_one() -> None:
    """F is 1e-9 and rises: every cost 1 - F is exactly 1 in float32, yet none stands still."""
    faint = two_classes([50.0] * 4, bias=-20.0)
    found = mia.invert(attack(steps=30, patience=3, learning_rate=10.0), faint, one_hot(0), 1, SHAPE)
    assert found.steps.tolist() == [30]
    assert (found.images > 0).all()
    assert 0 < found.costs.item() <= 1


def test_rows_stop_by_themselves_and_leave_the_forward_passes() -> None:
    """Class 0 needs two steps from 0.5; class 1 stands still from black and waits for its patience."""
    box = two_classes(HALVES)
    found = mia.invert(
        attack(score=0.8, learning_rate=4.0, patience=5, steps=50), box, one_hot(0, 1, 0), 1, SHAPE
    )
    assert found.steps.tolist() == [2, 5, 2]
    assert box.num_queries == 3 + 6 + 3
    assert torch.equal(found.images[0], found.images[2])


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    generator = torch.Generator().manual_seed(1)
    box = victim(torch.randn(6, 4, generator=generator).tolist())
    settings = attack(steps=40, learning_rate=1.0, noise=0.2, start=0.5, seed=3)
    together = mia.invert(settings, box, one_hot(*range(6), k=6), 1, SHAPE)
    for label in (5, 0, 2):
        alone = mia.invert(settings, box, one_hot(label, k=6), 1, SHAPE)
        torch.testing.assert_close(alone.images[0], together.images[label])
        torch.testing.assert_close(alone.costs[0], together.costs[label])
        assert alone.steps[0] == together.steps[label]


def test_noise_goes_by_seed_and_class() -> None:
    flat = victim([[0.0] * 4] * 3)
    rows = one_hot(0, 1, 0, k=3)
    first, again, other = (
        mia.invert(attack(steps=1, start=0.5, noise=0.1, seed=seed), flat, rows, 1, SHAPE).images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, other)
    assert ((first >= 0) & (first <= 1)).all()


def test_a_descent_begins_at_the_mean_image_of_an_adversary_who_has_images() -> None:
    """One step by hand from pixels 0.1 to 0.4: the logit is 0.5, the step 0.8 F (1 - F) w."""
    mean, weight = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]), [1.0, 2.0, 3.0, -2.25]
    settings = attack(start="auxiliary-mean", steps=1, learning_rate=0.8)
    found = mia.invert(settings, two_classes(weight), one_hot(0), 1, SHAPE, mean)
    score = 1 / (1 + math.exp(-0.5))
    slope = 0.8 * score * (1 - score)
    expected = (mean + slope * torch.tensor(weight).view(1, 2, 2)).clamp(0.0, 1.0)
    torch.testing.assert_close(found.images[0], expected)


def test_noise_is_added_to_the_mean_image_too() -> None:
    flat, mean = victim([[0.0] * 4] * 2), torch.full(SHAPE, 0.5)
    settings = attack(start="auxiliary-mean", noise=0.1, steps=1, seed=2)
    found = mia.invert(settings, flat, one_hot(0, 1), 1, SHAPE, mean)
    grey = mia.invert(settings.but(start=0.5), flat, one_hot(0, 1), 1, SHAPE)
    assert torch.equal(found.images, grey.images)


def test_the_image_is_processed_every_few_steps() -> None:
    """One step makes one pixel of a left half white; the median takes it away again."""
    weight = torch.zeros(8, 8)
    weight[:, :4] = 1.0
    weight[4, 1] = 100.0
    linear = nn.Linear(64, 2, bias=False)
    linear.weight = nn.Parameter(torch.stack([weight.flatten(), torch.zeros(64)]))
    box = WhiteBox(nn.Sequential(nn.Flatten(), linear))
    raw, early, late = (
        mia.invert(
            attack(steps=1, learning_rate=0.04, process=process, process_every=every),
            box,
            one_hot(0),
            1,
            (1, 8, 8),
        ).images
        for process, every in (("none", 1), ("denoise-sharpen", 1), ("denoise-sharpen", 2))
    )
    torch.testing.assert_close(raw[0, 0], 0.01 * weight)
    assert torch.equal(raw, late)
    assert torch.equal(early, sharpen(denoise(raw)))
    assert early[0, 0, 4, 1] < 0.02

"""SSD: water-filling by hand and against a search, draws by image, and answers that repeat."""

import math

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config import Release, Shield
from orchestrator.defenses.shield import (
    class_means,
    drawn_labels,
    entropy,
    image_draws,
    moved_towards,
    mover,
    shielded,
)
from orchestrator.threat import BlackBox

SCORES = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
GOALS = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0.0, [0.7, 0.2, 0.1]),
        # 0.1 from the first to the last, whose ratio of 0.4 becomes 0.8, that of the second.
        (0.2, [0.6, 0.2, 0.2]),
        # Half of 0.3: the last two end at one ratio, 0.45 / 0.5 = 0.9.
        (0.3, [0.55, 0.225, 0.225]),
        (0.4, [0.5, 0.25, 0.25]),  # the distance to the goal
        (1.0, [0.5, 0.25, 0.25]),
    ],
)
def test_water_filling_by_hand(budget: float, expected: list[float]) -> None:
    found = moved_towards(SCORES, GOALS, torch.tensor([budget], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))


def random_rows(number: int, k: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(number, k, generator=generator, dtype=torch.float64)).softmax(1)


def test_the_optimum_keeps_the_budget_and_no_other_point_in_it_is_nearer() -> None:
    """By its conditions: distributions, the budget used up, and KL below that of other feasible points."""
    scores, goals = random_rows(200, 6, 0), random_rows(200, 6, 1)
    budget = 0.5 * entropy(scores)
    found = moved_towards(scores, goals, budget)
    torch.testing.assert_close(found.sum(1), torch.ones(200, dtype=torch.float64))
    assert found.min() >= 0
    distances = (found - scores).abs().sum(1)
    is_far = (goals - scores).abs().sum(1) > budget
    assert is_far.any()
    torch.testing.assert_close(distances[is_far], budget[is_far])
    assert torch.equal(found[~is_far], goals[~is_far])
    for seed in range(2, 12):
        other = random_rows(200, 6, seed)
        share = (budget / (other - scores).abs().sum(1)).clamp_max(1.0)[:, None]
        feasible = torch.lerp(scores, other, share)
        assert (divergence(found, goals) <= divergence(feasible, goals) + 1e-9).all()


def divergence(one: Tensor, other: Tensor) -> Tensor:
    return (torch.xlogy(one, one) - torch.xlogy(one, other)).sum(1)


def test_entropy_is_in_nats() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(rows), torch.tensor([math.log(2), 0.0]))


def test_a_label_is_drawn_from_the_softmax_of_scores_by_temperature() -> None:
    """At T = 0.1 the shares are those of e^7, e^2 and e^1."""
    total = math.exp(7) + math.exp(2) + math.exp(1)
    first, second = math.exp(7) / total, (math.exp(7) + math.exp(2)) / total  # 0.991 and 0.998
    draws = [0.0, first - 1e-6, first + 1e-6, second - 1e-6, second + 1e-6, 1 - 1e-9]
    found = drawn_labels(SCORES.expand(6, 3), torch.tensor(draws, dtype=torch.float64), 0.1)
    assert found.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_answer_moves_towards_the_mean_of_the_class_drawn_for_it() -> None:
    means = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    for draw, label in ((0.0, 0), (0.999999, 2)):
        found = shielded(SCORES.float(), torch.tensor([draw], dtype=torch.float64), means, Shield(budget=0.1))
        wanted = moved_towards(SCORES, means[[label]].double(), 0.1 * entropy(SCORES))
        torch.testing.assert_close(found, wanted.float())
        assert found.dtype == torch.float32


def test_draws_follow_from_the_levels_of_an_image_and_the_seed() -> None:
    stored = torch.randint(0, 256, (500, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    draws = image_draws(stored, 0)
    assert torch.equal(image_draws(stored.flip(0), 0).flip(0), draws)
    assert torch.equal(image_draws(stored / 255 + 1e-4, 0), draws)
    assert not torch.equal(image_draws(stored, 1), draws)
    assert 0 <= draws.min() < 0.02
    assert 0.98 < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.06


def test_class_means_by_hand() -> None:
    means, counts = class_means(torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([0, 0]))
    torch.testing.assert_close(means, torch.tensor([[0.7, 0.3], [0.0, 0.0]], dtype=torch.float64))
    assert counts.tolist() == [2, 0]


class Levels(nn.Module):
    """An F whose logits are the first three pixels times 4."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.flatten(1)[:, :3]


def test_a_black_box_answers_the_same_whenever_it_is_asked() -> None:
    shield = Shield(budget=0.8, seed=3)
    means = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]])
    images = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    release = Release(shield=shield, truncation=2, decimals=2)
    box, single = (BlackBox(Levels(), release, size, mover(shield, means)) for size in (64, 1))
    found = box.query(images)
    assert torch.equal(found, box.query(images))
    assert torch.equal(found, single.query(images.flip(0)).flip(0))
    full = Levels()(images).softmax(1).detach()
    moved = shielded(full, image_draws(images, 3), means, shield)
    wanted = torch.where(moved >= moved.topk(2).values[:, 1:], moved, 0.0).round(decimals=2)
    assert torch.equal(found, wanted)  # moved first, then truncated, then rounded
    plain = BlackBox(Levels(), Release(truncation=2, decimals=2)).query(images)
    assert (found != plain).any(1).float().mean() > 0.9


def test_a_box_without_means_is_no_shield() -> None:
    with pytest.raises(AssertionError, match="a shield moves scores"):
        BlackBox(Levels(), Release(shield=Shield()))

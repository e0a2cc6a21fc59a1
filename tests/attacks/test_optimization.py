"""Optimisation-based inversion where the minimum is known in closed form, and on AMI's digit classifier."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import image_priors as priors
from orchestrator.attacks import optimization
from orchestrator.attacks.pixel_search import CPU_BATCH, BestImages, SearchResult, first_image, in_batches
from orchestrator.models.build import build_classifier
from orchestrator.threat import WhiteBox, truncate
from orchestrator.training.seeds import seeded

SHAPE = (1, 2, 2)
SLOPE = [0.4, 0.2, -0.1, -0.5]  # mean 0, squares sum to 0.46
FLAT = torch.full((1, *SHAPE), 0.5)


def linear(*rows: list[float], size: int = 4) -> WhiteBox:
    layer = nn.Linear(size, len(rows), bias=False)
    layer.weight = nn.Parameter(torch.tensor(rows))
    return WhiteBox(nn.Sequential(nn.Flatten(), layer))


class Probability(nn.Module):
    """F(x)_0 = 0.5 + w.x itself, so that the squared distance is quadratic in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(SLOPE))

    def forward(self, images: Tensor) -> Tensor:
        score = 0.5 + images.flatten(1) @ self.weight
        return torch.stack([score, 1 - score], dim=1).log()


def attack(**settings: Any) -> config.OptimizationAttack:
    return config.OptimizationAttack(name="optimization", **({"noise": 0.0} | settings))


@pytest.fixture(scope="module")
def digits() -> WhiteBox:
    """Return AMI's digit classifier of 10 classes with random weights, a hundredfold in the last layer: as
    they come, every image has nearly the same scores."""
    model = config.Model(name="ami-digit", width=0.02)
    network = seeded(lambda: build_classifier(model, classes=10, channels=1, image_size=32), seed=0)
    network.state_dict()["head.3.weight"].mul_(100.0)
    return WhiteBox(network)


@pytest.fixture(scope="module")
def scores(digits: WhiteBox) -> Tensor:
    """Return the full scores (4, 10) of four images."""
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    return digits.logits(images).softmax(dim=1)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_margin_of_a_full_prediction_is_recovered(optimizer: str) -> None:
    """F(x) = sigmoid(w.x) is 0.55 where w.x = log(0.55 / 0.45)."""
    released = torch.tensor([[0.55, 0.45], [0.45, 0.55]])
    settings = attack(steps=800, optimizer=optimizer, learning_rate=0.02)
    found = optimization.invert(settings, linear(SLOPE, [0.0] * 4), released, 2, SHAPE)
    margins = found.images.flatten(1) @ torch.tensor(SLOPE)
    expected = math.log(0.55 / 0.45)
    torch.testing.assert_close(margins, torch.tensor([expected, -expected]), atol=1e-4, rtol=0.0)
    assert found.costs.max() < 1e-8
    assert found.steps.tolist() == [800, 800]


def test_gradient_steps_move_along_the_weights_only() -> None:
    settings = attack(steps=20, optimizer="sgd", learning_rate=0.02)
    found = optimization.invert(settings, linear(SLOPE, [0.0] * 4), torch.tensor([[0.55, 0.45]]), 2, SHAPE)
    moved = (found.images - FLAT).flatten()
    assert moved.abs().max() > 0.01
    torch.testing.assert_close(moved, torch.tensor(SLOPE) * moved[0] / SLOPE[0])


def test_two_steps_of_sgd_by_hand() -> None:
    """Distance 2 (q - 0.6)^2 with q = 0.5 + 0.46 t on x = 0.5 + t w; slope 4 (q - 0.6), momentum 0.9."""
    settings = attack(steps=2, optimizer="sgd", learning_rate=0.1)
    found = optimization.invert(settings, WhiteBox(Probability()), torch.tensor([[0.6, 0.4]]), 2, SHAPE)
    velocity = 4 * -0.1
    first = -0.1 * velocity
    velocity = 0.9 * velocity + 4 * (0.46 * first - 0.1)
    second = first - 0.1 * velocity
    torch.testing.assert_close(found.images, FLAT + second * torch.tensor(SLOPE).view(1, *SHAPE))
    torch.testing.assert_close(found.costs, torch.tensor([2 * (0.46 * second - 0.1) ** 2]))


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_the_two_norm_is_a_ridge_with_a_closed_form(weight: float) -> None:
    """2 (0.5 + 0.46 t - 0.6)^2 + weight 0.46 t^2 is least at t = 0.2 / (0.92 + weight)."""
    settings = attack(steps=600, optimizer="sgd", learning_rate=0.1, alpha=2.0, alpha_weight=weight)
    found = optimization.invert(settings, WhiteBox(Probability()), torch.tensor([[0.6, 0.4]]), 2, SHAPE)
    t = 0.2 / (0.92 + weight)
    torch.testing.assert_close(
        found.images, FLAT + t * torch.tensor(SLOPE).view(1, *SHAPE), atol=1e-5, rtol=0.0
    )
    cost = 2 * (0.46 * t - 0.1) ** 2 + weight * 0.46 * t**2
    torch.testing.assert_close(found.costs, torch.tensor([cost]), atol=1e-7, rtol=1e-5)


def test_only_known_scores_count() -> None:
    """Of (0.6, 0.3, 0.1) with m = 1 only the first is fitted, whatever stands in the others."""
    box = linear(SLOPE, [0.0] * 4, [0.1, -0.5, 0.3, 0.1])
    full = torch.tensor([[0.45, 0.35, 0.2]])
    settings = attack(steps=400)
    one, cut, two = (
        optimization.invert(settings, box, rows, m, SHAPE)
        for rows, m in ((full, 1), (truncate(full, 1), 1), (full, 2))
    )
    assert torch.equal(one.images, cut.images)
    assert box.logits(one.images).softmax(dim=1)[0, 0].item() == pytest.approx(0.45, abs=1e-3)
    assert not torch.allclose(one.images, two.images)


def test_pixels_stay_in_range() -> None:
    found = optimization.invert(
        attack(steps=30, learning_rate=0.5), linear(SLOPE, [0.0] * 4), torch.tensor([[1.0, 0.0]]), 2, SHAPE
    )
    torch.testing.assert_close(found.images, torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]))


def test_the_image_of_lowest_cost_is_returned() -> None:
    """A step far too long turns 0.5 into a saturated image, which is worse."""
    settings = attack(steps=1, optimizer="sgd", learning_rate=1000.0)
    box = linear([8.0, -8.0, 8.0, -8.0], [0.0] * 4)
    found = optimization.invert(settings, box, torch.tensor([[0.6, 0.4]]), 2, SHAPE)
    assert torch.equal(found.images, FLAT)
    torch.testing.assert_close(found.costs, torch.tensor([0.02]))


@pytest.mark.parametrize("settings", [{"jitter": 1}, {"blur": 0.5}, {"clip_norm": 0.5}])
def test_the_last_image_is_returned_where_costs_do_not_compare(settings: dict[str, float]) -> None:
    leap = attack(steps=1, optimizer="sgd", learning_rate=1000.0, treat_every=2, **settings)
    box = linear([8.0, -8.0, 8.0, -8.0], [0.0] * 4)
    found = optimization.invert(leap, box, torch.tensor([[0.6, 0.4]]), 2, SHAPE)
    assert set(found.images.flatten().tolist()) == {0.0, 1.0}
    clean = (box.logits(found.images).softmax(dim=1) - torch.tensor([[0.6, 0.4]])).square().sum(dim=1)
    torch.testing.assert_close(found.costs, clean)


def test_a_row_does_not_depend_on_the_rows_beside_it(digits: WhiteBox, scores: Tensor) -> None:
    settings = attack(
        steps=6, noise=0.1, jitter=2, alpha_weight=1e-3, variation_weight=1e-3, variation_beta=1.0,
        blur=0.5, clip_norm=0.1, clip_contribution=0.1, optimizer="sgd",
    )  # fmt: skip
    together = optimization.invert(settings, digits, scores, 3, (1, 32, 32))
    for row in (3, 1):
        alone = optimization.invert(settings, digits, scores[row : row + 1], 3, (1, 32, 32))
        torch.testing.assert_close(alone.images[0], together.images[row])
        torch.testing.assert_close(alone.costs[0], together.costs[row])


def test_the_seed_draws_one_noise_for_all(digits: WhiteBox, scores: Tensor) -> None:
    settings = {"steps": 1, "learning_rate": 1e-9, "noise": 0.1, "optimizer": "sgd"}
    first, again, other = (
        optimization.invert(attack(**settings, seed=seed), digits, scores, 10, (1, 32, 32)).images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    torch.testing.assert_close(first[0], first[1])
    assert (first - other).abs().mean() > 0.05
    assert first.std().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "settings", [{}, {"jitter": 2, "learning_rate": 0.01}, {"optimizer": "sgd", "learning_rate": 10.0}]
)
def test_the_distance_falls_on_a_convolutional_victim(
    digits: WhiteBox, scores: Tensor, settings: dict[str, Any]
) -> None:
    def distance(images: Tensor) -> Tensor:
        return (digits.logits(images).softmax(dim=1) - scores).square().sum(dim=1)

    queries = digits.num_queries
    found = optimization.invert(attack(steps=60, **settings), digits, scores, 10, (1, 32, 32))
    assert digits.num_queries - queries == 4 * 61
    start = first_image(0.5, 0.0, (1, 32, 32)).expand(4, 1, 32, 32)
    assert (distance(found.images) < 0.1 * distance(start)).all()
    torch.testing.assert_close(found.costs, distance(found.images))


def test_variation_and_norm_make_quieter_images(digits: WhiteBox, scores: Tensor) -> None:
    plain, smooth, small = (
        optimization.invert(attack(steps=40, noise=0.1, **settings), digits, scores, 10, (1, 32, 32)).images
        for settings in ({}, {"variation_weight": 0.1}, {"alpha": 2.0, "alpha_weight": 0.1})
    )
    assert priors.total_variation(smooth, 2.0).max() < 0.2 * priors.total_variation(plain, 2.0).min()
    assert priors.alpha_norm(small, 2.0).max() < 0.2 * priors.alpha_norm(plain, 2.0).min()


@pytest.mark.parametrize("field", ["clip_norm", "clip_contribution"])
def test_clipping_blackens_a_share_of_each_image(digits: WhiteBox, scores: Tensor, field: str) -> None:
    settings = attack(steps=4, treat_every=2, noise=0.1, **{field: 0.25})
    images = optimization.invert(settings, digits, scores, 10, (1, 32, 32)).images
    assert ((images == 0).flatten(1).sum(dim=1) >= 256).all()


def test_treatments_come_every_few_steps() -> None:
    """A constant victim never moves the noise, so that only blurs change it: after steps 3 and 6 of 7."""
    box = linear([0.0] * 64, [0.0] * 64, size=64)
    settings = attack(steps=7, noise=0.2, blur=0.7, treat_every=3, seed=4)
    found = optimization.invert(settings, box, torch.tensor([[0.5, 0.5]]), 2, (1, 8, 8))
    start = first_image(0.5, 0.2, (1, 8, 8), 4)[None]
    torch.testing.assert_close(found.images, priors.blur(priors.blur(start, 0.7), 0.7))


def test_the_lowest_image_of_each_row_is_kept() -> None:
    lowest = BestImages(torch.zeros(3, 1, 1, 1))
    ones = torch.ones(3, 1, 1, 1)
    lowest.offer(torch.arange(3), ones, torch.tensor([1.0, 2.0, 3.0]))
    lowest.offer(torch.tensor([2, 0]), 2 * ones[:2], torch.tensor([2.5, 1.0]))  # an equal cost is no better
    assert lowest.images.flatten().tolist() == [1.0, 1.0, 2.0]
    assert lowest.costs.tolist() == [1.0, 2.0, 2.5]


def test_batches_are_joined_in_order() -> None:
    sizes = []

    def search(part: Tensor) -> SearchResult:
        sizes.append(len(part))
        whole = part[:, 0].long()
        return SearchResult(part.view(-1, 1, 1, 1), whole, part[:, 0], whole)

    rows = torch.arange(float(CPU_BATCH + 3))[:, None]
    found = in_batches(search, rows, torch.device("cpu"))
    assert sizes == [CPU_BATCH, 3]
    assert torch.equal(found.images.flatten(), rows[:, 0])
    assert torch.equal(found.steps, rows[:, 0].long())
    assert torch.equal(found.costs, rows[:, 0])

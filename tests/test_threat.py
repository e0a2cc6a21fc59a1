"""The released scores: exact truncation, rounding, labels; and the count of queries."""

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.threat import (
    BlackBox,
    FeatureBox,
    WhiteBox,
    released,
    released_length,
    truncate,
    truncate_rows,
)

PAPER = torch.tensor([[0.6, 0.05, 0.06, 0.2, 0.09]])


@pytest.mark.parametrize(
    ("m", "expected"),
    [
        (1, [0.6, 0, 0, 0, 0]),
        (2, [0.6, 0, 0, 0.2, 0]),  # the paper's own example
        (4, [0.6, 0, 0.06, 0.2, 0.09]),
        (5, [0.6, 0.05, 0.06, 0.2, 0.09]),
    ],
)
def test_truncation_keeps_the_largest_in_place_without_renormalising(m: int, expected: list[float]) -> None:
    assert torch.equal(truncate(PAPER, m), torch.tensor([expected]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_ties_go_to_the_lower_class(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    equal = torch.full((2, 600), 1 / 600, device=device)
    assert truncate(equal, 50)[:, :50].gt(0).all()
    assert truncate(equal, 50)[:, 50:].eq(0).all()


def test_truncating_twice_is_truncating_once() -> None:
    scores = torch.rand(64, 30, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(truncate(truncate(scores, 7), 7), truncate(scores, 7))


def test_each_row_may_have_a_truncation_of_its_own() -> None:
    scores = torch.rand(64, 30, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    lengths = torch.arange(64) % 30 + 1
    expected = torch.cat([truncate(row[None], int(m)) for row, m in zip(scores, lengths, strict=True)])
    assert torch.equal(truncate_rows(scores.double(), lengths), expected)


def test_truncation_returns_float32() -> None:
    assert truncate(PAPER.double(), 5).dtype == torch.float32


@pytest.mark.parametrize("m", [0, 6])
def test_truncation_outside_the_classes_is_refused(m: int) -> None:
    with pytest.raises(ValueError, match=rf"m={m} must lie in 1\.\.k=5"):
        truncate(PAPER, m)


@pytest.mark.parametrize(
    ("release", "length", "expected"),
    [
        (config.Release(), 5, [0.6, 0.05, 0.06, 0.2, 0.09]),
        (config.Release(truncation=3), 3, [0.6, 0, 0, 0.2, 0.09]),
        (config.Release(truncation=3, decimals=1), 3, [0.6, 0, 0, 0.2, 0.1]),
        (config.Release(labels_only=True), 1, [1.0, 0, 0, 0, 0]),
        (config.Release(labels_only=True, truncation=4), 1, [1.0, 0, 0, 0, 0]),
        (config.Release(truncation=2, renormalised=True), 2, [0.75, 0, 0, 0.25, 0]),
        (config.Release(truncation=2, renormalised=True, decimals=1), 2, [0.8, 0, 0, 0.2, 0]),
        (config.Release(truncation=1, renormalised=True), 1, [1.0, 0, 0, 0, 0]),
        (config.Release(labels_only=True, renormalised=True), 1, [1.0, 0, 0, 0, 0]),
    ],
)
def test_releases(release: config.Release, length: int, expected: list[float]) -> None:
    assert torch.equal(released(PAPER, release), torch.tensor([expected]))
    assert released_length(5, release) == length


def test_renormalised_scores_sum_to_one() -> None:
    scores = torch.rand(64, 30, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    kept = released(scores, config.Release(truncation=7, renormalised=True))
    torch.testing.assert_close(kept.sum(dim=1), torch.ones(64))
    assert torch.equal(kept > 0, truncate(scores, 7) > 0)


def test_a_row_without_scores_is_not_divided() -> None:
    release = config.Release(truncation=2, renormalised=True)
    assert torch.equal(released(torch.zeros(1, 5), release), torch.zeros(1, 5))


class Brightness(nn.Module):
    """Two classes; dropout would reveal a target left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.dropout(images.mean(dim=(1, 2, 3)))
        return torch.stack([self.scale * mean, -mean], dim=1)


def test_black_box_answers_with_released_scores_and_counts() -> None:
    network = Brightness().train()
    box = BlackBox(network, config.Release(truncation=1), batch_size=3)
    images = torch.rand(7, 1, 4, 4)
    answer = box.query(images)
    mean = images.mean(dim=(1, 2, 3))
    expected = torch.softmax(torch.stack([4 * mean, -mean], dim=1), dim=1)[:, 0]
    torch.testing.assert_close(answer, torch.stack([expected, torch.zeros(7)], dim=1))
    assert box.num_queries == 7
    box.query(images[:2])
    assert box.num_queries == 9


def test_black_box_stays_in_float32_under_autocast() -> None:
    box = BlackBox(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), config.Release())
    images = torch.rand(3, 1, 4, 4)
    outside = box.query(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = box.query(images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_black_box_answers_can_be_trained_on() -> None:
    answer = BlackBox(Brightness(), config.Release()).query(torch.rand(2, 1, 4, 4))
    weights = torch.ones(2, requires_grad=True)
    (answer @ weights).sum().backward()  # fails on a tensor of inference mode
    assert not answer.requires_grad
    assert weights.grad is not None


def test_black_box_shows_no_parameters() -> None:
    public = [name for name in dir(BlackBox(Brightness(), config.Release())) if not name.startswith("_")]
    assert public == ["num_queries", "query"]


def white_box(weight: list[list[float]]) -> WhiteBox:
    """Return a linear target of images (N, 1, 2, 2)."""
    linear = nn.Linear(4, len(weight), bias=False)
    linear.weight = nn.Parameter(torch.tensor(weight))
    return WhiteBox(nn.Sequential(nn.Flatten(), linear))


def test_a_white_box_can_be_differentiated_by_the_images() -> None:
    box = white_box([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, -1.0]])
    images = torch.ones(3, 1, 2, 2, requires_grad=True)
    logits = box.logits(images)
    assert torch.equal(logits.detach(), torch.tensor([[10.0, -1.0]]).expand(3, 2))
    (gradients,) = torch.autograd.grad(logits.sum(), images)
    assert torch.equal(gradients, torch.tensor([[[[1.0, 2.0], [3.0, 3.0]]]]).expand(3, 1, 2, 2))


def test_a_white_box_counts_every_image_of_every_pass() -> None:
    box = white_box([[1.0] * 4, [0.0] * 4])
    assert box.num_queries == 0
    for _ in range(3):
        box.logits(torch.zeros(2, 1, 2, 2))
    assert box.num_queries == 6


def test_a_white_box_leaves_its_network_without_gradients() -> None:
    network = Brightness()
    box = WhiteBox(network)
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    box.logits(images).sum().backward()
    assert network.scale.grad is None
    assert not network.scale.requires_grad
    assert images.grad is not None


def test_a_white_box_is_never_in_training_mode() -> None:
    network = Brightness()
    box = WhiteBox(network)
    network.train()
    images = torch.rand(5, 1, 4, 4)
    mean = images.mean(dim=(1, 2, 3))
    torch.testing.assert_close(box.logits(images), torch.stack([4 * mean, -mean], dim=1))


def test_a_white_box_stays_in_float32_under_autocast() -> None:
    box = white_box([[0.1, 0.2, 0.3, 0.4], [0.7, -0.3, 0.2, 0.1]])
    images = torch.rand(3, 1, 2, 2)
    outside = box.logits(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = box.logits(images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert box.logits(images.double()).dtype == torch.float32


class Chain(nn.Module):
    """Features are the sums of an image's columns, logits their sum and its negative."""

    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(2, 2, bias=False)
        linear.weight = nn.Parameter(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        self.head = nn.Sequential(nn.Flatten(), linear)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum(dim=2)


def test_features_and_logits_are_of_one_query_and_can_be_differentiated() -> None:
    box = FeatureBox(Chain())
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).repeat(3, 1, 1, 1).requires_grad_()
    logits, features = box.answers(images)
    assert box.num_queries == 3
    assert torch.equal(features.detach(), torch.tensor([[4.0, 6.0]] * 3))
    assert torch.equal(logits.detach(), torch.tensor([[10.0, -10.0]] * 3))
    (gradients,) = torch.autograd.grad((logits[:, 0] + 2 * features[:, 1]).sum(), images)
    assert torch.equal(gradients, torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]]).expand(3, 1, 2, 2))


@pytest.mark.gpu
def test_a_white_box_answers_where_the_images_are() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    box = WhiteBox(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).cuda())
    images = torch.rand(3, 1, 2, 2, requires_grad=True)
    logits = box.logits(images)
    (gradients,) = torch.autograd.grad(logits.sum(), images)
    assert (logits.device.type, gradients.device.type, box.device.type) == ("cpu", "cpu", "cuda")

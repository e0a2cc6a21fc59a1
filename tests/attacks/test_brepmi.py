"""BREPMI: its direction against closed forms, its rule of growth, its ends, and moves on a half-space."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import brepmi
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import State, search_to_the_end
from orchestrator.models.generator import StyleGenerator
from tests.attacks.priors import CLASSES, Critic, boxed, small_network, small_prior


def attack(**settings: Any) -> config.BrepmiAttack:
    return config.BrepmiAttack(name="brepmi", **settings)


class Plane(StyleGenerator):
    """G of two numbers, its image."""

    latent_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def synthesize(self, styles: Tensor) -> Tensor:
        return styles[:, None]


class Halves(nn.Module):
    """Class 0 where the first number exceeds `bound`, else class 1."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = nn.Parameter(torch.tensor(bound))

    def forward(self, images: Tensor) -> Tensor:
        distance = images.flatten(1)[:, 0] - self.bound
        return torch.stack([distance, -distance], dim=1)


def on_a_plane(bound: float, **settings: Any) -> brepmi.BoundarySearch:
    """Return the search against half-spaces."""
    prior = GenerativePrior(Plane(), Critic())
    return brepmi.search(attack(**settings), boxed(Halves(bound), "labels"), prior)


def searched(bound: float, **settings: Any) -> SearchResult:
    """Search class 0 of half-spaces."""
    return search_to_the_end(on_a_plane(bound, **settings), torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
def test_the_mean_direction_on_a_circle(t: float) -> None:
    """sqrt(1 - t^2) / pi along the normal, t the distance of the boundary in radii."""
    angles = torch.arange(100_000, dtype=torch.float64) / 100_000 * 2 * math.pi
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    found = brepmi.repulsion(directions[..., 0] > -t, directions, "outside")[0]
    assert found.tolist() == pytest.approx([math.sqrt(1 - t * t) / math.pi, 0.0], abs=1e-4)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
def test_the_mean_direction_on_a_sphere(t: float) -> None:
    """(1 - t^2) / 4: the first coordinate of a point on a sphere is uniform."""
    first = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    directions = torch.stack([first, (1 - first.square()).sqrt(), 0 * first], dim=1)[None]
    found = brepmi.repulsion(first[None] > -t, directions, "outside")[0, 0]
    assert float(found) == pytest.approx((1 - t * t) / 4, abs=1e-4)


def test_in_a_hundred_dimensions_most_of_a_step_is_noise() -> None:
    """c = Gamma(50) / (sqrt(pi) Gamma(49.5)) / 99 = 0.0399940867; of 32 points a mean cosine of 0.306."""
    drawn = torch.randn(4000, 32, 100, generator=torch.Generator().manual_seed(0))
    directions = drawn / drawn.norm(dim=2, keepdim=True)
    found = brepmi.repulsion(directions[..., 0] > 0, directions, "outside")
    assert float(found[:, 0].mean()) == pytest.approx(0.0399940867, abs=5e-4)
    assert float((found[:, 0] / found.norm(dim=1)).mean()) == pytest.approx(0.306, abs=0.005)


def test_both_signs_count_points_inside_too() -> None:
    directions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    is_inside = torch.tensor([[True, False]])
    assert brepmi.repulsion(is_inside, directions, "outside").tolist() == [[0.0, -0.5]]
    assert brepmi.repulsion(is_inside, directions, "both").tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize(
    ("inside", "points", "grows"),
    [
        (24, 32, False),
        (28, 32, False),
        (29, 32, True),
        (32, 32, True),
        (7, 8, False),
        (8, 8, True),
        (57, 64, True),
    ],
)
def test_the_radius_grows_from_29_of_32_points_on(inside: int, points: int, grows: bool) -> None:
    is_inside = torch.arange(points)[None] < inside
    assert brepmi.may_grow(is_inside, attack().margin).tolist() == [grows]


def test_it_moves_away_from_the_boundary_and_stays_in_the_cube() -> None:
    start = searched(0.0, budget=256)
    found = searched(0.0, budget=10_000, patience=50)
    assert start.steps.tolist() == [0]
    assert found.images[0, 0, 0, 0] > max(1.0, float(start.images[0, 0, 0, 0]))
    assert found.images.abs().max() <= 1.5
    assert found.costs.tolist() == [0.0]


def path(search: brepmi.BoundarySearch, moves: int, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Return the states before the first and after each move."""
    monkeypatch.setattr(brepmi, "SEGMENT", 1)
    rows, states = torch.tensor([[1.0, 0.0]]), [search.advance(torch.tensor([[1.0, 0.0]]), {})]
    for _ in range(moves):
        states.append(search.advance(rows, states[-1]))
    return states


def test_a_point_far_inside_grows_its_radius_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all points of the class nothing repels: z stays, the radius grows and the counter starts over."""
    states = path(on_a_plane(-100.0), 3, monkeypatch)
    assert [float(one["radius"]) for one in states] == pytest.approx([2.0, 2.6, 3.38, 4.394])
    assert all(torch.equal(one["latents"], states[0]["latents"]) for one in states)
    assert [bool(one["has_grown"]) for one in states] == [False, True, True, True]
    assert [int(one["since_growth"]) for one in states] == [0, 0, 0, 0]
    assert [int(one["queries"]) for one in states] == [256, 289, 322, 355]


def test_a_move_is_the_step_of_the_radius_along_the_repulsion(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many points outside to grow, z goes min(R / 3, 3) times the mean of points outside."""
    search = on_a_plane(0.0, radius=0.6)
    before, after = path(search, 1, monkeypatch)
    directions = search._directions(torch.tensor([0]), 0)
    outside = (before["latents"][:, None] + 0.6 * directions)[..., 0] <= 0
    assert 4 <= outside.sum() < 32
    expected = before["latents"] - 0.2 * (outside[..., None] * directions).mean(dim=1)
    torch.testing.assert_close(after["latents"], expected.clamp(-1.5, 1.5))
    assert float(after["radius"]) == pytest.approx(0.6)


class Scripted(nn.Module):
    """Answers class 0 to the start, then to the first `inside` points of a move and, if it `accepts`, to the
    moved z; the last of `moves` repeats."""

    def __init__(self, *moves: tuple[int, bool]) -> None:
        super().__init__()
        self.moves, self.calls = moves, 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        move, is_moved = divmod(self.calls - 1, 2)
        inside, accepts = self.moves[min(move, len(self.moves) - 1)]
        number = len(images) if self.calls == 0 else int(accepts) if is_moved else inside
        self.calls += 1
        return nn.functional.one_hot((torch.arange(len(images)) >= number).long(), 2).float()


def scripted(*moves: tuple[int, bool], **settings: Any) -> brepmi.BoundarySearch:
    """Return a search in a wide plane of a target whose answers are given."""
    prior = GenerativePrior(Plane(), Critic())
    return brepmi.search(attack(clip=100.0, batch=64, **settings), boxed(Scripted(*moves), "labels"), prior)


@pytest.mark.parametrize(("radius", "length"), [(12.0, 3 / 1.3 / 4), (6.0, 2 / 1.3 / 4)])
def test_a_move_that_grows_is_shorter_by_the_growth(
    radius: float, length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 points 1 is outside: z goes min(R / 3, 3) R / (1.3 R) / 4 away from it, R the radius before."""
    search = scripted((3, True), radius=radius, points=4, margin=0.25)
    before, after = path(search, 1, monkeypatch)
    outside = search._directions(torch.tensor([0]), 0)[:, 3]
    torch.testing.assert_close(after["latents"], before["latents"] - length * outside)
    assert float(after["radius"]) == pytest.approx(1.3 * radius)


def test_the_image_is_that_of_the_last_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth of a rejected move restarts the counter and keeps nothing, nor does the next move."""
    moves = [(29, True), (16, True), (29, False), (16, True), (16, True)]
    states = path(scripted(*moves, patience=2), len(moves), monkeypatch)
    assert [int(one["since_growth"]) for one in states] == [0, 0, 1, 0, 1, 2]
    assert [bool(one["finished"]) for one in states] == [False] * 5 + [True]
    assert [float(one["radius"]) for one in states] == pytest.approx([2.0, 2.6, 2.6, 3.38, 3.38, 3.38])
    grown, last = states[1]["latents"], states[5]["latents"]
    assert len({tuple(z.tolist()) for z in (states[0]["latents"][0], grown[0], last[0])}) == 3
    found = search_to_the_end(scripted(*moves, patience=2), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(found.images.flatten(1), grown)


def test_without_an_accepted_growth_the_image_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = [(29, False), (16, True), (16, True)]
    last = path(scripted(*moves, patience=2), len(moves), monkeypatch)[-1]
    assert (bool(last["finished"]), bool(last["has_grown"])) == (True, False)
    found = search_to_the_end(scripted(*moves, patience=2), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(found.images.flatten(1), last["latents"])
    assert not torch.equal(last["latents"], last["kept"])


def test_a_class_without_a_boundary_ends_by_the_radius() -> None:
    """2 * 1.3^12 is the first radius above ten diameters of the square, 10 * 3 sqrt(2) = 42.4."""
    search = brepmi.search(
        attack(budget=20_000), boxed(Stubborn(10**9), "labels"), GenerativePrior(Plane(), Critic())
    )
    found = search_to_the_end(search, torch.tensor([[1.0, 0.0]]))
    assert found.images.isfinite().all()
    assert found.steps.tolist() == [12]
    assert found.queries.tolist() == [256 + 33 * 12]


def test_a_first_radius_far_beyond_the_cube_takes_no_move() -> None:
    assert searched(-1e9, radius=43.0).steps.tolist() == [0]


class Stubborn(nn.Module):
    """Answers class 0 to the first images that it is asked for, and class 1 ever after."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.seen = number, 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        label = torch.full((len(images),), int(self.seen > self.number))
        return nn.functional.one_hot(label, 2).float()


def test_a_target_that_rejects_every_move_ends_by_the_budget() -> None:
    box = boxed(Stubborn(256), "labels")
    search = brepmi.search(attack(budget=1000), box, GenerativePrior(Plane(), Critic()))
    found = search_to_the_end(search, torch.tensor([[1.0, 0.0]]))
    assert found.steps.tolist() == [(1000 - 256) // 33]
    assert found.queries.tolist() == [256 + 33 * found.steps.item()] == [box.num_queries]
    assert found.costs.tolist() == [0.0]


def test_a_class_that_never_turns_up_keeps_a_random_image() -> None:
    found = searched(100.0, budget=1000)
    assert found.queries.tolist() == [768]
    assert (found.steps.tolist(), found.costs.tolist()) == ([0], [1.0])
    first = brepmi.normal_rows(torch.tensor([0]), (256, 2), "brepmi start", 0, 0)[0, 0]
    torch.testing.assert_close(found.images.flatten(), first.clamp(-1.5, 1.5))


def test_patience_counts_accepted_moves_since_the_last_growth() -> None:
    search = scripted((16, True), (16, False), (16, True), patience=7)
    assert search_to_the_end(search, torch.tensor([[1.0, 0.0]])).steps.tolist() == [8]


def test_every_class_of_a_linear_target_keeps_its_label() -> None:
    box = boxed(small_network(), "labels")
    found = search_to_the_end(brepmi.search(attack(budget=3000), box, small_prior()), torch.eye(CLASSES))
    is_found = found.costs == 0
    assert is_found.sum() >= CLASSES - 1
    assert torch.equal(box.query(found.images).argmax(1)[is_found], torch.arange(CLASSES)[is_found])


def test_a_margin_that_no_sphere_exceeds_is_refused() -> None:
    with pytest.raises(ValidationError, match="margin\n  Input should be less than 1"):
        attack(margin=24)


def test_a_budget_below_a_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"budget=100 must be at least batch=256; raise it or lower"):
        attack(budget=100)

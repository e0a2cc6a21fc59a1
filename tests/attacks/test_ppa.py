"""PPA: values of its distance, its starts, its choice, and a descent on a linear generator and target."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import latent, ppa, sharded_search
from orchestrator.attacks.crops import NUMBERS, random_crops
from orchestrator.attacks.latent import normal_rows, uniform_rows
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.config.base import Refused
from orchestrator.threat import WhiteBox
from orchestrator.training.seeds import drawing_from
from orchestrator.training.world import Cancelled, World
from tests.attacks.priors import CLASSES, small_network, small_prior, small_target
from tests.training.test_loop import Memory


def attack(**settings: Any) -> config.PpaAttack:
    return config.PpaAttack(name="ppa", **settings)


def searched(**settings: Any) -> SearchResult:
    """Search a small image of every class."""
    search = ppa.search(attack(**settings), small_target(), small_prior())
    return search_to_the_end(search, torch.eye(CLASSES))


def distance(logits: list[float], label: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return ppa.poincare(torch.tensor([logits], dtype=dtype), torch.tensor([label]))


@pytest.mark.parametrize(
    ("logits", "value"),
    [
        ([1.0, 1.0], 9.903437561287447),
        ([2.0, 1.0, 1.0], 9.392611936410235),
        ([3.0, 0.0, 0.0, 1.0], 8.804825302622339),
        ([10.0, *[0.1] * 9], 6.868484696603619),
        ([-1.0, 1.0, 0.0], 11.512875464120588),
        ([0.01] * 530, 9.903437551305354),
    ],
)
def test_the_distance_by_hand(logits: list[float], value: float) -> None:
    assert float(distance(logits)) == pytest.approx(value, abs=1e-9)
    assert float(distance(logits, dtype=torch.float32)) == pytest.approx(value, rel=1e-4)


def test_the_distance_does_not_depend_on_the_scale_but_on_a_shift() -> None:
    assert float(distance([4.0, 2.0, 2.0])) == pytest.approx(float(distance([2.0, 1.0, 1.0])))
    assert float(distance([3.0, 2.0, 2.0])) != pytest.approx(float(distance([2.0, 1.0, 1.0])))


@pytest.mark.parametrize("logits", [[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_logit_with_all_the_weight_leaves_a_finite_gradient(
    logits: list[float], dtype: torch.dtype
) -> None:
    rows = torch.tensor([logits], dtype=dtype, requires_grad=True)
    value = ppa.poincare(rows, torch.tensor([0]))
    value.sum().backward()
    assert math.isfinite(value.item())
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_a_class_is_scored_over_an_image_and_its_mirror_image() -> None:
    target, prior = small_target(), small_prior()
    latents = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    images = prior.generator(latents)
    one, other = (target.logits(each).softmax(1) for each in (images, images.flip(3)))
    torch.testing.assert_close(
        ppa.pool_scores(target, prior.generator, latents, mirrors=True), (one + other) / 2
    )
    torch.testing.assert_close(ppa.pool_scores(target, prior.generator, latents, mirrors=False), one)


def test_the_best_start_and_never_one_twice() -> None:
    target, prior = small_target(), small_prior()
    starts = ppa.search(attack(pool=200, starts=50), target, prior).method.start(torch.arange(3))
    assert starts.shape == (3, 50, 6)
    assert starts.abs().max() == 1.5
    pool = normal_rows(torch.zeros(1), (200, 6), "ppa pool", 0)[0].clamp(-1.5, 1.5)  # one for all classes
    scores = ppa.pool_scores(target, prior.generator, pool, mirrors=True)
    for label, row in enumerate(starts):
        assert len(row.unique(dim=0)) == 50
        assert torch.equal(row, pool[scores[:, label].topk(50).indices])


def test_without_steps_and_with_one_start_it_is_the_best_of_the_pool() -> None:
    found = searched(steps=0, starts=1, pool=64, mirrors=False)
    search = ppa.search(attack(pool=64, starts=64, mirrors=False), small_target(), small_prior())
    images = small_prior().generator(search.method.start(torch.arange(1))[0])
    scores = small_target().logits(images).softmax(1)
    torch.testing.assert_close(small_target().logits(found.images).softmax(1).diagonal(), scores.amax(0))


def test_it_lowers_the_distance_from_every_class() -> None:
    start = searched(steps=0, starts=1, pool=64)
    found = searched(steps=60, starts=1, pool=64, learning_rate=0.1)
    assert (found.costs < start.costs).all()


@pytest.mark.parametrize(("mirrors", "flip"), [(True, 0.5), (False, 0.0)])
def test_the_start_that_is_most_robust_is_kept(flip: float, *, mirrors: bool) -> None:
    """The one of the highest mean score over crops, which is not always that of the whole image."""
    settings = attack(pool=20, starts=20, steps=0, views=9, mirrors=mirrors, seed=5)
    search = ppa.search(settings, small_target(), small_prior())
    rows, classes = torch.eye(CLASSES), torch.arange(CLASSES)
    state = search.advance(rows, {})
    images = small_prior().generator(state["variable"].flatten(0, 1)).unflatten(0, (CLASSES, 20))
    logits = small_target().logits(images.flatten(0, 1)).unflatten(0, (CLASSES, 20))
    expected = torch.zeros(CLASSES, 20)
    for view in range(9):
        numbers = uniform_rows(classes, (20, NUMBERS), "ppa view", 5, view).flatten(0, 1)
        seen = random_crops(images.flatten(0, 1), numbers, scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=flip)
        scores = small_target().logits(seen).softmax(1).unflatten(0, (CLASSES, 20))
        expected += torch.stack([scores[label, :, label] for label in range(CLASSES)])
    best = expected.argmax(1)
    assert torch.equal(search.result(rows, state).images, images[classes, best])
    whole = torch.stack([logits[label, :, label].argmax() for label in range(CLASSES)])
    assert not torch.equal(best, whole)


def test_steps_by_hand() -> None:
    """Three of torch's Adam, each on crops of its own, with a clamp after each; distant starts reach it."""
    target, prior, classes = small_target(), small_prior(), torch.tensor([2, 5])
    betas = (0.3, 0.6)
    settings = attack(pool=40, starts=3, steps=3, learning_rate=0.3, betas=betas, crop=0.5, clip=0.8, seed=5)
    search = ppa.search(settings, target, prior)
    found = search.advance(torch.eye(CLASSES)[classes], {})["variable"]
    latents = search.method.start(classes).requires_grad_()
    adam = torch.optim.Adam([latents], lr=0.3, betas=betas)
    for step in (1, 2, 3):
        numbers = uniform_rows(classes, (3, NUMBERS), "ppa crop", 5, step).flatten(0, 1)
        seen = random_crops(
            prior.generator(latents.flatten(0, 1)), numbers, scale=(0.5, 1.0), ratio=(1.0, 1.0), flip=0.0
        )
        adam.zero_grad()
        ppa.poincare(target.logits(seen), classes.repeat_interleave(3)).sum().backward()
        adam.step()
        with torch.no_grad():
            assert latents.abs().max() > 0.8
            latents.clamp_(-0.8, 0.8)
    torch.testing.assert_close(found, latents.detach())


class Noisy(nn.Module):
    """The small network, its scores with noise at every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + torch.randn_like(logits)


def test_a_target_that_draws_noise_resumes_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process scores the pool for itself, and the draws of later rows do not depend on when."""
    monkeypatch.setattr(sharded_search, "CHUNK", 1)
    monkeypatch.setattr(latent, "SEGMENT", 2)
    settings = attack(pool=40, starts=3, steps=5, views=2, learning_rate=0.1)

    def found(world: World, seed: int) -> SearchResult:
        with drawing_from(seed):
            search = ppa.search(settings, WhiteBox(Noisy()), small_prior())
            return sharded_search.search_all(search, torch.eye(CLASSES)[:3], world)

    whole, memory, stops = found(World(), 0), Memory(), 0
    while True:
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=lambda metrics: False)
        try:
            resumed = found(world, 0)
        except Cancelled:
            stops += 1
        else:
            break
    assert stops >= 6
    assert all(torch.equal(vars(resumed)[key], vars(whole)[key]) for key in vars(whole))
    assert not torch.equal(found(World(), 1).images, whole.images)


def test_more_starts_than_the_pool_has_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"starts=5 must be at most pool=4; enlarge the pool or lower"):
        attack(pool=4, starts=5)


def test_candidates_of_one_search_are_the_most_robust_of_its_starts() -> None:
    """All starts, in the order of their choice, are the unfiltered figure; fewer are the first of them."""
    target, prior = small_target(), small_prior()
    search = ppa.search(attack(steps=3, pool=40, starts=6, views=4, candidates="released"), target, prior)
    rows = torch.eye(CLASSES)[[1, 4]]
    state = search.advance(rows, {})
    every, few = search.draws(rows, state, 6), search.draws(rows, state, 2)
    for one, other in zip(few, every, strict=False):
        assert torch.equal(one.images, other.images)
    assert torch.equal(few[0].images, search.result(rows, state).images)
    images = prior.generator(state["variable"].flatten(0, 1)).unflatten(0, (2, 6))
    scores = search.method.choice(images, images, torch.tensor([1, 4]))
    for row in range(2):
        best = scores[row].argsort(descending=True)
        torch.testing.assert_close(torch.stack([one.images[row] for one in every]), images[row][best])
    assert [one.queries.tolist() for one in every[1:]] == [[0.0, 0.0]] * 5


def test_one_search_has_a_start_for_each_candidate() -> None:
    attack(starts=4, candidates="released").check_candidates(4)
    attack(starts=4).check_candidates(5)
    with pytest.raises(Refused, match=r"attack\.starts=4 is fewer than evaluation\.candidates=5"):
        attack(starts=4, candidates="released").check_candidates(5)

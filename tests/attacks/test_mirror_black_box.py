"""MIRROR with scores: crossover, parents and a generation by hand, ends, queries, and truncated releases."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from orchestrator import config
from orchestrator.attacks import mirror_black_box
from orchestrator.attacks.mirror_black_box import GeneticSearch, parents, share_of_first
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.config.base import Refused
from orchestrator.threat import BlackBox, released
from tests import tiny
from tests.attacks.priors import CLASSES, Generator, Styled, small_network, small_prior

SMALL = {"pool": 60, "population": 10, "generations": 4, "score": 1.0}


def attack(**settings: Any) -> config.MirrorBlackBoxAttack:
    return config.MirrorBlackBoxAttack.model_validate({"name": "mirror-black-box", **SMALL, **settings})


def begun(
    generator: type[Generator] = Generator, m: int | None = None, **settings: Any
) -> tuple[GeneticSearch, BlackBox]:
    """Return a search against a target that releases m scores, and the box."""
    box = BlackBox(small_network(), config.Release(truncation=m))
    return mirror_black_box.search(attack(**settings), box, small_prior(generator)), box


def test_the_better_parent_gives_90_percent_or_as_released_4_point_4() -> None:
    one, other = torch.tensor([[0.9, 0.1, 0.0, 1.0]]), torch.tensor([[0.1, 0.9, 0.0, 1.0]])
    assert share_of_first(one, other, "corrected").tolist()[0] == pytest.approx([0.9, 0.1, 0.5, 0.5])
    found = share_of_first(one, other, "released")
    assert found.tolist()[0] == pytest.approx([0.0438, 0.9562, 0.5, 0.5], abs=1e-4)


def test_parents_are_drawn_by_their_share_of_the_scores() -> None:
    scores = torch.tensor([[0.6, 0.0, 0.2], [0.0, 0.0, 0.0]])
    drawn = torch.tensor([[0.0, 0.74, 0.76, 0.999], [0.0, 0.3, 0.4, 0.999]])
    assert parents(scores, drawn).tolist() == [[0, 0, 2, 2], [0, 0, 1, 2]]


@pytest.mark.parametrize("crossover", ["corrected", "released"])
def test_a_child_takes_its_numbers_by_that_share(crossover: str) -> None:
    """Of 0s with score 0.9 and of 1s with 0.1, where all pairs are of both."""
    search, _ = begun(crossover=crossover, mutation=0.0, deviations=100.0, population=2)
    scores, population = torch.tensor([[0.9, 0.1]]), torch.tensor([[[0.0] * 6, [0.2] * 6]])
    shares = torch.cat(
        [search._children(torch.tensor([3]), population, scores, step).flatten() == 0 for step in range(400)]
    )
    same = 0.9**2, 0.1**2  # both parents are the same one
    better = 0.9 if crossover == "corrected" else 0.0438
    assert shares.float().mean().item() == pytest.approx(same[0] + 2 * 0.09 * better, abs=0.03)


def test_children_go_by_the_seed_the_class_and_the_generation() -> None:
    population, scores = begun()[0]._styles[:10][None], torch.full((1, 10), 0.1)
    children = []
    for seed, label, generation in ((0, 3, 1), (1, 3, 1), (0, 4, 1), (0, 3, 2)):
        search, _ = begun(seed=seed, mutation=0.0, deviations=100.0)
        classes = torch.tensor([label])
        children.append(search._children(classes, population, scores, generation).flatten())
    assert len(torch.stack(children).unique(dim=0)) == 4
    assert not torch.equal(begun(seed=0)[0]._styles, begun(seed=1)[0]._styles)


@pytest.mark.parametrize("generator", [Generator, Styled])
@pytest.mark.parametrize("moves", ["corrected", "released"])
def test_moves_are_within_reach_in_p_space_and_clipped(moves: str, generator: type[Generator]) -> None:
    search, _ = begun(generator, mutation=1.0, reach=0.5, moves=moves, deviations=3.0)
    same = search._styles[:1].expand(10, -1)[None]
    children = search._children(torch.tensor([3]), same, torch.full((1, 10), 0.1), 0)[0]
    apart = search._space.to_p(children) - search._space.to_p(same[0, :9])
    assert apart.abs().max() > 0.1 * search._spread.min()
    assert (apart.abs() <= 0.5 * search._spread + 1e-5).all()
    assert (len(children.unique(dim=0)) == 1) == (moves == "released")
    low, high = search._bounds
    far = search._children(torch.tensor([3]), 100 * same.sign(), torch.full((1, 10), 0.1), 0)[0]
    assert ((far == low) | (far == high)).all()


def test_the_first_population_is_the_best_of_the_pool_and_the_best_stays() -> None:
    search, box = begun()
    state = search.advance(torch.eye(CLASSES), {})
    styles = search._styles
    scores = box.query(search._space(styles))
    for label in range(CLASSES):
        assert torch.equal(state["population"][label], styles[scores[:, label].topk(10).indices])
        assert state["scores"][label].tolist() == scores[:, label].topk(10).values.tolist()
    best = [state["scores"].amax(1)]
    for _ in range(4):
        state = {**state, **search._bred(torch.arange(CLASSES), state)}
        best.append(state["scores"].amax(1))
        own = box.query(search._space(state["population"].flatten(0, 1))).unflatten(0, (CLASSES, 10))
        torch.testing.assert_close(own[torch.arange(CLASSES), :, torch.arange(CLASSES)], state["scores"])
    assert (torch.stack(best).diff(dim=0) >= -1e-6).all()
    assert (best[-1] > best[0]).sum() >= 4


def test_a_search_ends_at_the_score_or_by_generations_and_counts_populations() -> None:
    first = begun()[0].advance(torch.eye(CLASSES), {})["scores"].amax(1)
    bound = first.median().item()
    search, box = begun(score=bound, generations=50)
    found = search_to_the_end(search, torch.eye(CLASSES))
    assert (found.steps[first >= bound] == 0).all()
    assert ((found.steps > 0) == (first < bound)).all()
    assert ((1 - found.costs >= bound - 1e-6) | (found.steps == 50)).all()
    assert found.queries.tolist() == (10 * found.steps).tolist()
    assert box.num_queries == found.queries.sum() + 60
    unreached = search_to_the_end(begun()[0], torch.eye(CLASSES))
    assert unreached.steps.tolist() == [4] * CLASSES


def test_the_image_is_that_of_the_best() -> None:
    search, box = begun()
    found = search_to_the_end(search, torch.eye(CLASSES))
    torch.testing.assert_close(box.query(found.images).diagonal(), 1 - found.costs)


def test_scores_that_are_not_released_count_as_0() -> None:
    full, cut = (begun(m=m)[0].advance(torch.eye(CLASSES), {})["scores"] for m in (None, 1))
    assert (full > 0).all()
    assert (cut == 0).any()
    found: Tensor = search_to_the_end(begun(m=1)[0], torch.eye(CLASSES)).costs
    assert found.isfinite().all()


def test_a_larger_population_than_the_pool_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"population=5 must be at most pool=4; enlarge the pool or"):
        attack(pool=4, population=5)


def test_labels_alone_are_refused() -> None:
    changes = {"attack": {"name": "mirror-black-box"}, "release": {"labels_only": True}, "prior": {}}
    with pytest.raises(
        ValueError, match=r"labels_only=true gives attack\.name=mirror-black-box no scores to"
    ):
        tiny.spec({**changes, "evaluation.task": "class-inference"})


def test_a_trial_refuses_a_renormalised_single_score() -> None:
    release = {"truncation": 1, "renormalised": True}
    changes = {"attack": {"name": "mirror-black-box"}, "release": release, "prior": {}}
    with pytest.raises(ValueError, match=r"only 0 and 1 to breed by; release more scores, set"):
        tiny.spec({**changes, "evaluation.task": "class-inference"})


def test_a_renormalised_single_score_is_a_label_and_refused() -> None:
    release = config.Release(truncation=1, renormalised=True)
    scores = torch.tensor([[0.2, 0.7, 0.1]])
    assert released(scores, release).tolist() == [[0.0, 1.0, 0.0]]
    with pytest.raises(Refused) as caught:
        attack().check_release(release)
    assert str(caught.value) == (
        "release.truncation=1 with release.renormalised=true gives attack.name=mirror-black-box only 0 and 1 "
        "to breed by; release more scores, set release.renormalised=false or choose another attack."
    )


@pytest.mark.parametrize("release", [{"truncation": 1}, {"truncation": 2, "renormalised": True}], ids=str)
def test_releases_of_scores_are_not_refused(release: dict[str, Any]) -> None:
    attack().check_release(config.Release.model_validate(release))

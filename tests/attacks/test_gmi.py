"""GMI on a line, where its steps can be worked out by hand, and on a linear generator and target."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks import gmi, latent
from orchestrator.attacks.latent import LatentSearch
from orchestrator.attacks.row_search import State, search_to_the_end
from tests.attacks.priors import CLASSES, on_a_line, small_prior, small_target


def attack(**settings: Any) -> config.GmiAttack:
    return config.GmiAttack(name="gmi", **settings)


def from_zero(slope: float, **settings: Any) -> LatentSearch:
    """Return the search on a line from z = 0."""
    search = gmi.search(attack(**settings), *on_a_line(slope))
    method = dataclasses.replace(search.method, start=lambda classes: torch.zeros(len(classes), 1, 1))
    search.method = method
    return search


def path(search: LatentSearch) -> list[float]:
    """Return z after each segment."""
    rows, found = torch.tensor([[1.0, 0.0]]), []
    state: State = {}
    while not state or not state["finished"].all():
        state = search.advance(rows, state)
        found.append(float(state["variable"]))
    return found


@pytest.fixture
def single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a segment of every step."""
    monkeypatch.setattr(latent, "SEGMENT", 1)


@pytest.mark.usefixtures("single_steps")
def test_the_first_steps_by_hand() -> None:
    """g = 40 - 100 / (1 + e^z) at a weight of 100 and D(x) = -40 x: -10 at z = 0, so z1 = 1.9 * 0.2."""
    assert path(from_zero(-40.0, identities=1, steps=3)) == pytest.approx(
        [0.38, 0.5652822088502579, 0.5778471203472834], rel=1e-6
    )


@pytest.mark.usefixtures("single_steps")
def test_a_mean_over_sixty_makes_steps_sixty_times_smaller() -> None:
    assert path(from_zero(-40.0, identities=60, steps=2)) == pytest.approx(
        [0.006333333333333332, 0.015266389224075305], rel=1e-5
    )


@pytest.mark.parametrize(("identities", "steps"), [(1, 33), (60, 229)])
def test_the_descent_ends_where_critic_and_target_balance(identities: int, steps: int) -> None:
    """1 / (1 + e^z) = 0.4 at z = ln 1.5."""
    search = from_zero(-40.0, identities=identities, steps=steps)
    rows = torch.tensor([[1.0, 0.0]])
    state: State = {}
    while not state or not state["finished"].all():
        state = search.advance(rows, state)
    assert float(state["variable"]) == pytest.approx(math.log(1.5), abs=2e-6)


@pytest.mark.usefixtures("single_steps")
def test_without_a_critic_the_first_step_ends_at_the_clip() -> None:
    assert path(from_zero(0.0, identities=1, steps=1)) == [1.0]
    assert path(from_zero(-40.0, identities=1, steps=2, prior_weight=0.0)) == [1.0, 1.0]


def test_the_cost_is_the_loss_of_the_image() -> None:
    """At z = 1 it is 100 ln(1 + e^-1) + 40."""
    found = search_to_the_end(from_zero(-40.0, identities=1, steps=0), torch.tensor([[1.0, 0.0]]))
    assert found.images.flatten().tolist() == [0.0]
    assert found.costs.tolist() == pytest.approx([100 * math.log(2)])
    assert (found.steps.tolist(), found.queries.tolist()) == ([0], [1])


def searched(settings: config.GmiAttack, classes: list[int]) -> Any:
    """Search small images of classes."""
    search = gmi.search(settings, small_target(), small_prior())
    return search_to_the_end(search, torch.eye(CLASSES)[classes])


def test_no_steps_leave_random_images_that_are_not_clipped() -> None:
    found = searched(attack(steps=0), [0, 1])
    z = latent.normal_rows(torch.tensor([0, 1]), (1, 6), "gmi", 0).flatten(0, 1)
    assert z.abs().max() > 1.0
    assert torch.equal(found.images, small_prior().generator(z))


def test_it_raises_the_score_of_every_class() -> None:
    before, after = (searched(attack(steps=steps, identities=1), [*range(8)]) for steps in (0, 200))
    target = small_target()
    scores = [target.logits(one.images).softmax(1).diagonal() for one in (before, after)]
    assert (scores[1] > scores[0]).all()
    assert (after.costs < before.costs).all()


def test_of_several_restarts_the_one_of_the_largest_logit_is_kept() -> None:
    classes, target = [*range(8)], small_target()
    starts = latent.normal_rows(torch.tensor(classes), (5, 6), "any")

    def from_starts(chosen: slice) -> Tensor:
        search = gmi.search(attack(steps=3), target, small_prior())
        search.method = dataclasses.replace(search.method, start=lambda rows: starts[:, chosen])
        return search_to_the_end(search, torch.eye(CLASSES)).images

    logits = torch.stack([target.logits(from_starts(slice(r, r + 1))).diagonal() for r in range(5)])
    assert len(logits.argmax(dim=0).unique()) > 1
    best = target.logits(from_starts(slice(None))).diagonal()
    torch.testing.assert_close(best, logits.amax(dim=0))
    assert searched(attack(steps=3, restarts=5), classes).queries.tolist() == [5 * 4] * 8

"""MIRROR: its schedule, its choice and its steps by hand, with and without a mapping."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks import mirror
from orchestrator.attacks.latent import uniform_rows
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.attacks.style_space import StyleSpace
from tests.attacks.priors import CLASSES, Generator, Styled, small_prior, small_target


def attack(**settings: Any) -> config.MirrorAttack:
    return config.MirrorAttack.model_validate({"name": "mirror", "pool": 60, "starts": 4, **settings})


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (1, 0.04),
        (10, 0.4),
        (25, 1.0),
        (375, 1.0),
        (400, 0.2261271243 / 0.25),
        (437, 0.1265707550 / 0.25),
        (475, 0.0238728757 / 0.25),
        (500, 0.0),
    ],
)
def test_the_schedule_by_hand(step: int, factor: float) -> None:
    assert mirror.rate(step, steps=500) == pytest.approx(factor, abs=1e-9)


def test_the_choice_is_by_shared_labels_and_then_by_the_score() -> None:
    """First labels 0-4, 0-4, 1-5: the first two share five labels with one other and four with the third,
    the third only four with each; of the two the one whose class 0 has the higher score."""
    logits = torch.zeros(1, 3, 8)
    logits[0, 0, :5], logits[0, 1, :5], logits[0, 2, 1:6] = 3.0, 3.0, 9.0
    logits[0, 1, 0] = 3.5
    found = mirror.agreement(torch.empty(0), logits, torch.tensor([0]))
    assert found.floor().tolist() == [[5 + 5 + 4, 5 + 5 + 4, 5 + 4 + 4]]
    assert found.argmax().item() == 1
    assert mirror.agreement(torch.empty(0), logits[..., :3], torch.tensor([0])).isfinite().all()  # k < 5


@pytest.mark.parametrize("generator", [Generator, Styled])
def test_starts_are_the_best_of_one_pool(generator: type[Generator]) -> None:
    target, prior = small_target(), small_prior(generator)
    starts = mirror.search(attack(psi=0.5, cutoff=1), target, prior).method.start(torch.arange(CLASSES))
    space = StyleSpace(prior.generator, 0.5, 1)
    pool = space.drawn(60, target.device, "mirror pool", 0)
    scores = target.logits(space(pool)).softmax(1)
    for label, row in enumerate(starts):
        assert torch.equal(row, pool[scores[:, label].topk(4).indices])


class Followed:
    """MIRROR by torch's Adam, the starts of a class after each step."""

    def __init__(self, settings: config.MirrorAttack, generator: type[Generator], classes: Tensor) -> None:
        self.target, self.prior = small_target(), small_prior(generator)
        self.space = StyleSpace(self.prior.generator, settings.psi, settings.cutoff)
        pool = self.space.drawn(settings.pool, self.target.device, "mirror pool", settings.seed)
        low, high = self.space.bounds(pool, settings.deviations)
        start = mirror.search(settings, self.target, self.prior).method.start(classes)
        variable = start.clone().requires_grad_()
        adam = torch.optim.Adam([variable])
        self.variables, self.losses, self.is_clipped = [start], [], False
        wanted = classes.repeat_interleave(settings.starts)
        for step in range(1, settings.steps + 1):
            adam.param_groups[0]["lr"] = settings.learning_rate * mirror.rate(step, steps=settings.steps)
            coins = settings.starts if settings.coupling == "none" else 1
            drawn = uniform_rows(classes, (coins, 1, 1, 1), "mirror coin", settings.seed, step)
            images = self.space(variable.flatten(0, 1))
            flips = (drawn < 0.5).expand(-1, settings.starts, 1, 1, 1).flatten(0, 1)
            logits = self.target.logits(torch.where(flips, images.flip(3), images))
            losses = settings.identity_weight * functional.cross_entropy(logits, wanted, reduction="none")
            adam.zero_grad()
            losses.sum().backward()
            adam.step()
            with torch.no_grad():
                self.is_clipped |= bool((variable > high).any())
                variable.copy_(variable.clamp(low, high))
            self.variables.append(variable.detach().clone())
            self.losses.append(losses.detach().view(len(classes), -1))


@pytest.mark.parametrize("generator", [Generator, Styled])
@pytest.mark.parametrize("coupling", ["none", "released"])
def test_steps_by_hand(generator: type[Generator], coupling: str) -> None:
    """Torch's Adam with the schedule, coins and a clip after each step; what is kept is the w that had the
    lowest loss of its start, or the one after the lowest mean loss of all starts."""
    classes = torch.tensor([2, 5])
    own = {"learning_rate": 0.6, "identity_weight": 3.0, "psi": 0.6, "cutoff": 2, "seed": 3}
    settings = attack(steps=12, coupling=coupling, **own)
    followed = Followed(settings, generator, classes)
    assert followed.is_clipped
    search = mirror.search(settings, small_target(), small_prior(generator))
    rows = torch.eye(CLASSES)[classes]
    state = search.advance(rows, {})
    torch.testing.assert_close(state["variable"], followed.variables[-1], atol=1e-4, rtol=1e-4)
    losses = torch.stack(followed.losses)  # (steps, n, r)
    after = losses.mean(2).argmin(0)[:, None].expand(2, 4) + 1
    best = after if coupling == "released" else losses.argmin(0)
    variables = torch.stack(followed.variables)
    kept = variables.gather(0, best[None, ..., None].expand(1, -1, -1, variables.shape[-1]))[0]
    torch.testing.assert_close(state["kept"], kept, atol=1e-4, rtol=1e-4)
    assert len(best.unique()) > 1
    found = search.result(rows, state)
    images = followed.space(kept.flatten(0, 1)).unflatten(0, (2, 4))
    logits = followed.target.logits(images.flatten(0, 1)).unflatten(0, (2, 4))
    chosen = mirror.agreement(images, logits, classes).argmax(1)
    torch.testing.assert_close(found.images, images[torch.arange(2), chosen], atol=1e-4, rtol=1e-4)


def test_the_step_that_is_kept_differs_by_coupling() -> None:
    rows = torch.eye(CLASSES)
    kept = []
    for coupling in ("none", "released"):
        settings = attack(steps=12, coupling=coupling, mirrors=False)
        state = mirror.search(settings, small_target(), small_prior()).advance(rows, {})
        kept.append((state["kept"], state["variable"]))
    assert torch.equal(kept[0][1], kept[1][1])
    assert not torch.equal(kept[0][0], kept[1][0])


def test_without_steps_and_with_one_start_it_is_the_best_of_the_pool() -> None:
    found = search_to_the_end(
        mirror.search(attack(steps=0, starts=1), small_target(), small_prior()), torch.eye(CLASSES)
    )
    start = mirror.search(attack(steps=0, starts=1), small_target(), small_prior()).method.start
    torch.testing.assert_close(
        found.images, small_prior().generator(start(torch.arange(CLASSES))[:, 0]), atol=1e-6, rtol=0.0
    )


def test_more_starts_than_the_pool_has_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"starts=5 must be at most pool=4; enlarge the pool or lower"):
        attack(pool=4, starts=5)

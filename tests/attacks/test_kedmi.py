"""KEDMI: its prior loss and reparametrisation by hand, and the search on a linear generator and target."""

import math
from typing import Any

import pytest
import torch

from orchestrator import config
from orchestrator.attacks import kedmi
from orchestrator.attacks.kedmi import doubt, reparametrised
from orchestrator.attacks.latent import normal_rows
from orchestrator.attacks.row_search import search_to_the_end
from tests import tiny
from tests.attacks.priors import CLASSES, SIZE, small_prior, small_target


def attack(**settings: Any) -> config.KedmiAttack:
    return config.KedmiAttack(name="kedmi", **settings)


def searched(classes: list[int], **settings: Any) -> Any:
    """Search small images of classes."""
    search = kedmi.search(attack(**settings), small_target(), small_prior())
    return search_to_the_end(search, torch.eye(CLASSES)[classes])


@pytest.mark.parametrize(("k", "value"), [(2, 0.4054651081), (5, 0.1823215568), (1000, 0.0009995003)])
def test_the_doubt_at_zero_logits(k: int, value: float) -> None:
    """ln((k + 1) / k)."""
    assert doubt(torch.zeros(1, k, dtype=torch.float64)).item() == pytest.approx(value, abs=1e-10)


def test_the_doubt_of_logits_by_hand() -> None:
    assert doubt(torch.tensor([[1.0, 2.0, 3.0]])).item() == pytest.approx(0.0325837341, abs=1e-8)


def test_gradients_pass_to_mean_and_variance() -> None:
    """(z - c)^2 with z = mu + e^(s/2) eps: 2 (mu - c) and e^s in expectation, -1.4 and e here."""
    mean, log_variance, wanted = 0.3, 1.0, 1.0
    variable = torch.tensor([mean, log_variance], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)  # mean 0, mean square 1
    (reparametrised(variable.expand(2, 2), noise) - wanted).square().mean().backward()
    assert variable.grad is not None
    assert variable.grad.tolist() == pytest.approx([-1.4, math.e])


def test_without_steps_the_image_is_drawn_around_zero() -> None:
    noise = normal_rows(torch.tensor([2]), (1, SIZE), "kedmi", 0, 1)[0]
    for log_variance, clip in ((0.0, None), (1.0, None), (1.0, 0.5)):
        z = math.exp(log_variance / 2) * noise
        z = z if clip is None else z.clamp(-clip, clip)
        found = searched([2], steps=0, log_variance=log_variance, clip=clip)
        torch.testing.assert_close(found.images, small_prior().generator(z))


def test_candidates_of_one_search_are_draws_from_what_it_found() -> None:
    search = kedmi.search(attack(steps=4, candidates="released"), small_target(), small_prior())
    rows = torch.eye(CLASSES)[[2, 3]]
    state = search.advance(rows, {})
    draws = search.draws(rows, state, 3)
    for number, one in enumerate(draws):
        noise = normal_rows(torch.tensor([2, 3]), (1, SIZE), "kedmi", 0, 5 + number)
        z = reparametrised(state["variable"], noise).clamp(-1.0, 1.0)
        torch.testing.assert_close(one.images, small_prior().generator(z.flatten(0, 1)))
        assert one.queries.tolist() == [5.0 if number == 0 else 1.0] * 2
    assert torch.equal(draws[0].images, search.result(rows, state).images)


def test_without_variance_it_is_adam_on_the_mean() -> None:
    """s = -20 makes noise of 0.00005; torch's Adam follows the same loss from 0."""
    prior, target = small_prior(), small_target()
    found = searched([3], steps=20, log_variance=-20.0, clip=None, beside=5)
    beside = kedmi._features_beside(attack(beside=5), prior, torch.device("cpu"))
    mean = torch.zeros(1, SIZE, requires_grad=True)
    adam = torch.optim.Adam([mean], lr=0.02, betas=(0.9, 0.999))
    for _ in range(20):
        images = prior.generator(mean)
        loss = 100 * torch.nn.functional.cross_entropy(target.logits(images), torch.tensor([3]))
        loss = loss + doubt(prior.critic.logits(prior.critic.features(images), beside)).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(found.images, prior.generator(mean), atol=2e-3, rtol=0.0)


WEIGHED = {"clip": None, "beside": 5, "identity_weight": 0.5, "prior_weight": 50.0}


def test_the_cost_by_hand() -> None:
    prior, target = small_prior(), small_target()
    images = prior.generator(normal_rows(torch.tensor([2]), (1, SIZE), "kedmi", 0, 1)[0])
    beside = kedmi._features_beside(attack(beside=5), prior, torch.device("cpu"))
    odds = prior.critic.classes(images.flatten(1) - beside.mean(0)).exp().sum().item()
    scores = target.logits(images).softmax(1)[0]
    expected = -0.5 * math.log(scores[2].item()) + 50.0 * math.log(1 + 1 / odds)
    assert searched([2], steps=0, **WEIGHED).costs.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("identity_weight", [0.5, 0.0])
def test_it_is_adam_on_both_terms_with_new_noise_in_each_step(identity_weight: float) -> None:
    """Weights of which neither term hides the other; the noise of step n is drawn by n."""
    settings = {**WEIGHED, "identity_weight": identity_weight}
    prior, target = small_prior(), small_target()
    found = searched([3], steps=15, log_variance=-1.0, **settings)
    beside = kedmi._features_beside(attack(beside=5), prior, torch.device("cpu"))
    mean, log_variance = torch.zeros(1, SIZE), torch.full((1, SIZE), -1.0)
    adam = torch.optim.Adam([mean.requires_grad_(), log_variance.requires_grad_()], lr=0.02)

    def made(step: int) -> torch.Tensor:
        noise = normal_rows(torch.tensor([3]), (1, SIZE), "kedmi", 0, step)[0]
        images = prior.generator(mean + log_variance.exp().sqrt() * noise)
        assert isinstance(images, torch.Tensor)
        return images

    for step in range(1, 16):
        images = made(step)
        odds = prior.critic.logits(prior.critic.features(images), beside).exp().sum()
        unlike = torch.nn.functional.cross_entropy(target.logits(images), torch.tensor([3]))
        adam.zero_grad()
        (identity_weight * unlike + 50.0 * (1 + 1 / odds).log()).backward()
        adam.step()
    torch.testing.assert_close(found.images, made(16), atol=1e-5, rtol=0.0)
    noises = [normal_rows(torch.tensor([3]), (1, SIZE), "kedmi", 0, step) for step in (1, 2)]
    assert not torch.equal(*noises)


def test_it_raises_the_score_of_every_class() -> None:
    before, after = (searched([*range(8)], steps=steps, log_variance=-6.0) for steps in (0, 200))
    target = small_target()
    scores = [target.logits(one.images).softmax(1).diagonal() for one in (before, after)]
    assert (scores[1] > scores[0]).all()
    assert after.costs.sum() < before.costs.sum()


@pytest.mark.parametrize(
    ("name", "loss", "losses"),
    [
        ("kedmi", "hinge", "kedmi"),
        ("gmi", "kedmi", "hinge or wgan-gp"),
        ("plg-mi", "hinge", "plg"),
        ("ppa", "plg", "hinge or wgan-gp"),
    ],
)
def test_a_prior_of_the_other_kind_is_refused(name: str, loss: str, losses: str) -> None:
    text = (
        rf"prior\.loss={loss} is none that attack\.name={name} searches; use {losses}, or choose another "
        r"attack\."
    )
    changes = {"attack": {"name": name}, "prior": {"loss": loss}, "evaluation.task": "class-inference"}
    with pytest.raises(ValueError, match=text):
        tiny.spec(changes)

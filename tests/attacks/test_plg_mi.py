"""PLG-MI: its search by hand, on a linear generator and target."""

from typing import Any

import pytest
import torch

from orchestrator import config
from orchestrator.attacks import plg_mi
from orchestrator.attacks.conditional_prior import max_margin
from orchestrator.attacks.crops import random_views
from orchestrator.attacks.latent import normal_rows, uniform_rows
from orchestrator.attacks.row_search import search_to_the_end
from tests.attacks.priors import CLASSES, SIZE, small_prior, small_target


def searched(classes: list[int], **settings: Any) -> Any:
    """Search small images of classes."""
    attack = config.PlgMiAttack(name="plg-mi", **settings)
    search = plg_mi.search(attack, small_target(), small_prior())
    return search_to_the_end(search, torch.eye(CLASSES)[classes])


def test_without_steps_it_is_a_random_image_of_the_class() -> None:
    z = normal_rows(torch.tensor([2]), (1, SIZE), "plg-mi", 0)[0]
    found, image = searched([2], steps=0), small_prior().generator(z, torch.tensor([2]))
    torch.testing.assert_close(found.images, image)
    margin = max_margin(small_target().logits(image), torch.tensor([2]))
    assert found.costs.item() == pytest.approx(margin.item())


def test_it_is_adam_on_the_margins_of_new_views_of_each_start_in_each_step() -> None:
    prior, target, wanted = small_prior(), small_target(), torch.tensor([3])
    z = normal_rows(wanted, (2, SIZE), "plg-mi", 4)[0].requires_grad_()
    adam = torch.optim.Adam([z], lr=0.05)
    for step in range(1, 11):
        images = prior.generator(z, wanted.expand(2))
        numbers = uniform_rows(wanted, (6, 8), "plg-mi view", 4, step)[0]
        views = random_views(images.repeat(3, 1, 1, 1), numbers, jitter=1.0)
        adam.zero_grad()
        max_margin(target.logits(views), wanted.expand(6)).sum().backward()
        adam.step()
    search = plg_mi.search(
        config.PlgMiAttack(name="plg-mi", steps=10, augmentations=3, restarts=2, learning_rate=0.05, seed=4),
        target,
        prior,
    )
    found = search.advance(torch.eye(CLASSES)[wanted], {})["variable"]
    torch.testing.assert_close(found[0], z.detach(), atol=1e-4, rtol=1e-4)


def test_of_several_starts_the_one_with_the_largest_logit_is_kept() -> None:
    z = normal_rows(torch.tensor([2]), (4, SIZE), "plg-mi", 0)[0]
    images = small_prior().generator(z, torch.full((4,), 2))
    best = small_target().logits(images)[:, 2].argmax()
    torch.testing.assert_close(searched([2], steps=0, restarts=4).images[0], images[best])


def test_it_raises_the_score_of_every_class() -> None:
    before, after = (searched([*range(8)], steps=steps) for steps in (0, 30))
    scores = [small_target().logits(one.images).softmax(1).diagonal() for one in (before, after)]
    assert (scores[1] > scores[0]).all()
    assert after.costs.sum() < before.costs.sum()

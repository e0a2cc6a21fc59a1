"""Fisher information through the last update of a latent, worked out by hand on a linear target."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.analyses import fisher
from orchestrator.analyses.latent_updates import Answers, latent_search
from orchestrator.attacks.latent import (
    Adam,
    GenerativePrior,
    LatentSearch,
    Method,
    Nesterov,
    class_logits,
    of_logits,
)
from orchestrator.attacks.lomma import minus_logits
from orchestrator.models.generator import StyleGenerator

RATE = 0.1


class Pixels(StyleGenerator):
    """Two latent numbers are the two pixels."""

    latent_size = 2

    def synthesize(self, styles: Tensor) -> Tensor:
        return styles.view(-1, 1, 1, 2)


def target() -> nn.Sequential:
    """Return logits theta x of images x with two pixels, without bias."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    network[1].weight = nn.Parameter(torch.tensor([[1.0, 2.0], [-0.5, 0.25]]))
    return network


def builder(**slots: Any) -> Callable[[Answers], LatentSearch]:
    """Return a search from (0.5, 0.5) whose identity loss is the class's negative logit: -theta_y . z."""

    def build(answers: Answers) -> LatentSearch:
        target: Any = answers
        method = Method(
            steps=3,
            start=lambda classes: torch.full((len(classes), 1, 2), 0.5),
            identity=of_logits(target, minus_logits),
            plausibility=lambda images: torch.zeros(len(images)),
            optimizer=Nesterov(RATE, 0.0),
            project=lambda variable: variable,
            choice=class_logits,
        )
        changed: Any = replace(method, **slots)
        return LatentSearch(changed, target, GenerativePrior(Pixels(), None))

    return build


def profile(build: Callable[[Answers], LatentSearch], iteration: int, original: Tensor) -> float:
    search = latent_search(build, torch.device("cpu"), torch.tensor([0]))
    found = fisher.search_profiles(
        target(), search, original, iterations=[iteration], distances={"l2": fisher.squared_l2}, chunk=1
    )
    return found["l2", iteration].values[0]


@pytest.mark.parametrize("iteration", [1, 3])
def test_the_last_update_alone_depends_on_theta(iteration: int) -> None:
    """z_t = z_(t-1) + 0.1 theta_0, with z_(t-1) constant: d|z_t - x|^2 / d theta_0 = 0.2 (z_t - x), 0 for
    theta_1; the mean is over four parameters."""
    original = torch.tensor([[[[0.2, 0.9]]]])
    reached = torch.tensor([0.5, 0.5]) + iteration * RATE * torch.tensor([1.0, 2.0])
    slopes = 2 * RATE * (reached - original.flatten())
    assert profile(builder(), iteration, original) == pytest.approx(slopes.square().sum().item() / 4)


def test_memory_is_a_constant_and_goes_on() -> None:
    """Momentum 0.5 with Nesterov's rule: v_1 = -0.1 g, z_1 = z_0 - 0.15 g; v_2 = -0.15 g, z_2 = z_1 - 0.175 g
    with g = -theta_0; the second update itself moves by 0.15 of its own gradient."""
    original = torch.tensor([[[[0.2, 0.9]]]])
    theta = torch.tensor([1.0, 2.0])
    reached = torch.tensor([0.5, 0.5]) + (0.15 + 0.175) * theta
    slopes = 2 * 0.15 * (reached - original.flatten())
    found = profile(builder(optimizer=Nesterov(RATE, 0.5)), 2, original)
    assert found == pytest.approx(slopes.square().sum().item() / 4)


@pytest.mark.parametrize("unused", [False, True])
def test_adam_differentiates_by_its_two_moments(unused: bool) -> None:
    """With g the same twice, Adam moves by 0.1 sign(g) each time. Of the second step m^ depends on g by
    0.1 / 0.19 and v^ by 0.002 g / 0.001999, so that the step's slope is (1 / 1.9 - 1 / 1.999) 0.1 / |g|.
    A number that G does not use has a gradient of 0 and no part."""
    original = torch.tensor([[[[0.2, 0.9]]]])
    reached, theta = torch.tensor([0.7, 0.0 if unused else 0.7]), torch.tensor([1.0, 2.0])
    slopes = 2 * (reached - original.flatten()) * (1 / 1.9 - 1 / 1.999) * RATE / theta
    slots: dict[str, Any] = {"optimizer": Adam(RATE, (0.9, 0.999))}
    if unused:
        used = torch.tensor([1.0, 0.0])
        slots["latents"] = lambda variable, classes, number: variable * used
        slopes[1] = 0.0
    expected = slopes.square().sum().item() / 4
    assert profile(builder(**slots), 2, original) == pytest.approx(expected, rel=1e-3)


def test_what_does_not_ask_the_target_has_no_information() -> None:
    """Adam moves by the sign of the first gradient: its size, and with it theta, matters hardly; a search
    that is projected to a point not at all."""
    original = torch.tensor([[[[0.2, 0.9]]]])
    assert profile(builder(optimizer=Adam(RATE, (0.9, 0.999))), 1, original) < 1e-12
    assert profile(builder(project=torch.zeros_like), 1, original) == 0.0

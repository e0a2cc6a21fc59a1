"""KEDMI's inversion-specific GAN: losses by hand, what the target teaches, resuming."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.attacks.inversion_prior import (
    critic_loss,
    entropy_sum,
    feature_matching,
    objective,
    realness,
)
from orchestrator.attacks.prior import AdversarialStep, Adversaries
from orchestrator.config import Prior
from orchestrator.models.build import build_critic, build_generator
from orchestrator.training.loop import Fitted, fit
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import Preempted, World
from tests.attacks.test_prior import leaving_after, weights
from tests.training.test_loop import Memory, same

PRIOR = Prior.model_validate(
    {"loss": "kedmi", "model": {"name": "gmi", "width": 0.02}, "epochs": 2, "batch_size": 8, "seed": 3}
)


@pytest.mark.parametrize(("k", "value"), [(2, 1.4451858789), (5, 2.5964784254), (1000, 10.3626324188)])
def test_the_critics_loss_at_zero_logits_and_uniform_scores(k: int, value: float) -> None:
    """ln k + 1/2 [ln((k + 1) / k) + ln(k + 1)]."""
    zeros = torch.zeros(3, k, dtype=torch.float64)
    loss = critic_loss(torch.full_like(zeros, 1 / k), zeros, zeros, zeros).item()
    assert loss == pytest.approx(value, abs=1e-9)
    assert loss == pytest.approx(math.log(k) + (math.log((k + 1) / k) + math.log(k + 1)) / 2)


def test_the_entropy_is_summed_over_the_batch() -> None:
    assert 1e-4 * entropy_sum(torch.zeros(64, 5)).item() == pytest.approx(0.0103004026, rel=1e-6)


def test_the_critics_loss_by_its_parts() -> None:
    """Softplus of the log-sum-exp minus it is softplus of minus it: real images have odds to be real."""
    scores, labelled = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.0, math.log(3.0)]])
    real, fake = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, 0.5]])
    classes = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    odds_real, odds_fake = math.e + math.e**2, math.exp(-1.0) + math.exp(0.5)
    expected = classes + 0.5 * (math.log(1 + 1 / odds_real) + math.log(1 + odds_fake))
    assert critic_loss(scores, labelled, real, fake).item() == pytest.approx(expected)
    assert realness(torch.tensor([[1.0, 2.0, 3.0]])).item() == pytest.approx(3.4076059645)


def test_feature_matching_compares_means() -> None:
    """Means (1, 2) and (3, 2): distances 2 and 0."""
    fake, real = torch.tensor([[0.0, 2.0], [2.0, 2.0]]), torch.tensor([[3.0, 1.0], [3.0, 3.0]])
    assert feature_matching(fake, real).item() == 1.0


class Teacher(nn.Module):
    """A target of two classes, bright and dark; it counts how often it is asked in training mode, and keeps
    the dtypes of a linear layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.dtypes: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.asked += self.training
        brightness = images.flatten(1) @ torch.full((images[0].numel(), 1), 1 / images[0].numel())
        self.dtypes.add(brightness.dtype)
        return torch.cat([brightness - 0.5, 0.5 - brightness], dim=1) * 100.0


def pairs() -> Pairs:
    """Return noise around a bright and a dark grey, and the target's scores."""
    noise = torch.randint(0, 40, (40, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    images = noise + 170 * (torch.arange(40) % 2)[:, None, None, None]
    return Pairs(images.to(torch.uint8), Teacher()(images / 255).softmax(dim=1))


def adversaries() -> Adversaries:
    def build() -> Adversaries:
        shapes: Any = {"classes": 2, "channels": 1, "image_size": 32}
        return Adversaries(build_generator(PRIOR, **shapes), build_critic(PRIOR, **shapes))

    built = seeded(build, PRIOR.seed)
    assert isinstance(built, Adversaries)
    return built


def trained(world: World, prior: Prior = PRIOR, teacher: Teacher | None = None) -> tuple[Adversaries, Fitted]:
    torch.set_num_threads(1)
    model = adversaries()
    goal = objective(prior, pairs().inputs, teacher)
    return model, fit(model, pairs(), goal, prior.recipe, prior.seed, world)


def test_it_repeats_and_resumes_midway_with_the_same_bytes() -> None:
    model, fitted = trained(World())
    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(checkpoint=memory, is_preempted=leaving_after(7)))
    again, refitted = trained(World(checkpoint=memory))
    assert same(model.state_dict(), again.state_dict())
    assert fitted == refitted
    assert set(fitted.curves) == {"train_loss", "validation_real", "validation_fake"}


class Recorder(nn.Module):
    """A critic of two classes, linear in the means of both halves of an image; it keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -1.0], [0.5, 2.0]]))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach())
        return images.flatten(1).unflatten(1, (2, -1)).mean(2)

    def logits(self, features: Tensor) -> Tensor:
        return features @ self.weight


def recorded() -> tuple[Adversaries, Recorder, Tensor, Tensor, Tensor]:
    """Return networks whose average is another generator, their critic, a batch, its scores and other public
    images (3, 1, 32, 32)."""
    model, critic = adversaries(), Recorder()
    model.critic = critic
    for parameter in model.average.parameters():
        parameter.add_(0.05)
    images, scores = pairs().batch(torch.arange(4), torch.device("cpu"))
    public = torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(9))
    return model, critic, images, scores, public.to(torch.uint8)


def halves(images: Tensor) -> Tensor:
    """Return the means of both halves of images (N, C, S, S), (N, 2)."""
    return torch.stack([images.flatten(1)[:, :512].mean(1), images.flatten(1)[:, 512:].mean(1)], dim=1)


def test_the_critics_loss_is_of_the_batch_of_other_public_images_and_of_generated_ones() -> None:
    model, critic, images, scores, public = recorded()
    torch.manual_seed(7)
    value = objective(PRIOR, public, None).loss(model, images, scores)
    torch.manual_seed(7)
    fake = model.generator(torch.randn(4, model.generator.latent_size)).detach()
    other = public[torch.randint(3, (4,))] / 255
    for shown, wanted in zip(critic.shown, (images, other, fake), strict=True):
        torch.testing.assert_close(shown, wanted)
    weight = critic.weight.detach()
    labelled, real, generated = (halves(part) @ weight for part in (images, other, fake))
    classes = -(scores * labelled.softmax(1).log()).sum(1).mean()
    odds = [part.exp().sum(1) for part in (real, generated)]
    expected = classes + 0.5 * ((1 + 1 / odds[0]).log().mean() + (1 + odds[1]).log().mean())
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_generators_loss_by_hand() -> None:
    model, critic, images, _, public = recorded()
    goal = objective(PRIOR, public, None)
    step = goal.step(model, goal, PRIOR.recipe, World())
    assert isinstance(step, AdversarialStep)
    torch.manual_seed(7)
    value = step.generator_loss(model, images)
    torch.manual_seed(7)
    fake = halves(model.generator(torch.randn(4, model.generator.latent_size)).detach())
    real = halves(public[torch.randint(3, (4,))] / 255)
    scores = (fake @ critic.weight.detach()).softmax(1)
    apart = (fake.mean(0) - real.mean(0)).abs().mean()
    entropy = -(scores * scores.log()).sum()
    assert value.item() == pytest.approx((apart + 1e-4 * entropy).item(), rel=1e-5)
    assert 1e-4 * entropy > 1e-3 * apart  # so that its weight is seen


def test_held_out_sums_are_of_real_images_and_of_the_average() -> None:
    model, critic, images, scores, public = recorded()
    torch.manual_seed(7)
    sums = objective(PRIOR, public, None).sums(model, images, scores)
    torch.manual_seed(7)
    fake = model.average(torch.randn(4, model.generator.latent_size))
    both = {"real": images, "fake": fake}
    wanted = {
        name: (halves(part) @ critic.weight).exp().sum(1).log().sum().item() for name, part in both.items()
    }
    assert sums == pytest.approx(wanted, rel=1e-5)


def test_each_network_follows_its_own_loss_on_its_own_batches() -> None:
    model = adversaries()
    goal = objective(PRIOR, pairs().inputs, None)
    step = goal.step(model, goal, PRIOR.recipe, World())
    assert isinstance(step, AdversarialStep)
    step.begin(1, 1)
    images, scores = pairs().batch(torch.arange(8), torch.device("cpu"))
    for batch in range(1, 6):
        critic, generator = weights(model.critic), weights(model.generator)
        step.train(images, scores)
        assert not same(weights(model.critic), critic)
        assert same(weights(model.generator), generator) == (batch < 5)
    assert same(model.average.state_dict(), model.generator.state_dict())


def test_the_critic_learns_the_targets_classes() -> None:
    model, fitted = trained(World(), PRIOR.but(epochs=12, critic_learning_rate=3e-3))
    images = pairs().inputs[:].float() / 255
    told = model.critic.eval()(images).argmax(1)
    assert torch.equal(told, pairs().outputs[:].argmax(1))
    assert fitted.curves["train_loss"][-1] < fitted.curves["train_loss"][0]


def test_a_teacher_in_training_mode_is_asked_for_each_batch() -> None:
    teacher = Teacher()
    trained(World(), PRIOR.but(teacher_mode="train"), teacher)
    assert teacher.asked == 2 * 5  # two epochs of 38 images in batches of 8


def test_a_teacher_answers_in_float32_whatever_the_precision_of_training() -> None:
    teacher = Teacher()
    trained(World(precision="bfloat16"), PRIOR.but(teacher_mode="train", epochs=1), teacher)
    assert teacher.dtypes == {torch.float32}

"""Training of priors: losses and penalty by hand, when which network steps, the average, resuming."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.attacks.prior import (
    AdversarialStep,
    Adversaries,
    critic_loss,
    decay_after,
    follow,
    gradient_penalty,
    hinge_loss,
    objective,
    wasserstein_loss,
)
from orchestrator.config import Prior
from orchestrator.models.build import build_critic, build_generator
from orchestrator.models.gan import Generator
from orchestrator.training.loop import Fitted, fit
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import Cancelled, Preempted, World
from tests.training.test_loop import Memory, same, stopping_after

SHAPE = (1, 2, 2)
SLOPES = torch.tensor([1.0, -2.0, 3.0, 0.5])


class Linear(nn.Module):
    """A critic a . x of four pixels."""

    def __init__(self, slopes: Tensor = SLOPES) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes.clone())

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.slopes


class Quadratic(nn.Module):
    """A critic ||x||^2 / 2, whose gradient is the image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).square().sum(1) / 2


def random(count: int, seed: int = 0) -> Tensor:
    """Return random images of four pixels."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


# Losses


def test_the_hinge_loss_by_hand() -> None:
    """Real 0.5 and 2 lack 0.5 and nothing of 1; fake -3 and 0 exceed -1 by nothing and by 1."""
    value = hinge_loss(torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0]))
    assert value.item() == pytest.approx(0.25 + 0.5)


def test_the_wasserstein_loss_by_hand() -> None:
    value = wasserstein_loss(torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0]))
    assert value.item() == pytest.approx(-1.5 - 1.25)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_penalty_of_a_linear_critic_depends_on_no_image(seed: int) -> None:
    norm = (1.0 + 4.0 + 9.0 + 0.25) ** 0.5
    value = gradient_penalty(Linear(), 5.0 * random(6, seed), random(6, seed + 10))
    assert value.item() == pytest.approx((norm - 1.0) ** 2)


def test_the_penalty_has_a_gradient_by_the_critic() -> None:
    """d (||a|| - 1)^2 / da = 2 (||a|| - 1) a / ||a||."""
    critic = Linear()
    gradient_penalty(critic, random(3), random(3, 1)).backward()
    norm = SLOPES.norm()
    torch.testing.assert_close(critic.slopes.grad, 2 * (norm - 1) * SLOPES / norm)


def test_the_penalty_is_taken_between_the_images_with_one_draw_for_each_pair() -> None:
    """Between 0 and v the gradient of the quadratic critic is a v."""
    fake = 3.0 * random(5)
    torch.manual_seed(3)
    value = gradient_penalty(Quadratic(), torch.zeros(5, *SHAPE), fake)
    torch.manual_seed(3)
    shares = torch.rand(5)
    norms = shares * fake.flatten(1).norm(dim=1)
    assert value.item() == pytest.approx((norms - 1).square().mean().item())
    same_ends = gradient_penalty(Quadratic(), fake, fake).item()
    assert same_ends == pytest.approx((fake.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=1e-5)


def test_the_penalty_of_a_critic_without_slope_is_finite() -> None:
    critic = Linear(torch.zeros(4))
    value = gradient_penalty(critic, random(3), random(3, 1))
    value.backward()
    assert value.item() == 1.0
    assert critic.slopes.grad is not None
    assert critic.slopes.grad.isfinite().all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_critics_loss_adds_up(precision: str) -> None:
    real, fake = random(4), random(4, 1)
    with World(precision=precision).autocast():
        hinge = critic_loss(Prior(), Linear(), real, fake)
        wasserstein = critic_loss(Prior(loss="wgan-gp", penalty=2.0), Linear(), real, fake)
    on_real, on_fake = real.flatten(1) @ SLOPES, fake.flatten(1) @ SLOPES
    tolerance = 1e-6 if precision == "float32" else 0.05
    assert hinge.item() == pytest.approx(hinge_loss(on_real, on_fake).item(), abs=tolerance)
    expected = (on_fake.mean() - on_real.mean()).item() + 2.0 * (SLOPES.norm().item() - 1) ** 2
    assert wasserstein.item() == pytest.approx(expected, abs=tolerance)


def test_the_critics_penalty_is_taken_between_real_and_generated_images() -> None:
    real, fake = random(5), 3.0 * random(5, 1)
    torch.manual_seed(3)
    value = critic_loss(Prior(loss="wgan-gp", penalty=2.0), Quadratic(), real, fake)
    torch.manual_seed(3)
    share = torch.rand(5)[:, None]
    norms = (real.flatten(1) + share * (fake - real).flatten(1)).norm(dim=1)
    apart = (fake.flatten(1).square().sum(1) - real.flatten(1).square().sum(1)).mean() / 2
    assert value.item() == pytest.approx((apart + 2.0 * (norms - 1).square().mean()).item(), rel=1e-5)


# The average


def test_the_average_by_hand() -> None:
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(network.weight, 3.0)
    network.running_mean = torch.tensor([1.0, 2.0])
    network.num_batches_tracked = torch.tensor(7)
    follow(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean is not None
    assert average.running_mean.tolist() == [0.25, 0.5]
    assert average.num_batches_tracked == torch.tensor(7)
    follow(average, network, 0.0)
    assert same(average.state_dict(), network.state_dict())


def test_the_decay_begins_small() -> None:
    assert [decay_after(steps, 0.99) for steps in (1, 8, 890, 10_000)] == [2 / 11, 0.5, 0.99, 0.99]
    assert decay_after(5, 0.0) == 0.0


# Steps

SMALL: dict[str, Any] = {"model": {"name": "gmi", "width": 0.02}, "batch_size": 8, "epochs": 2, "seed": 3}


def prior(**changes: Any) -> Prior:
    """Return a narrow prior of few steps."""
    return Prior.model_validate({**SMALL, **changes})


def adversaries(one: Prior) -> Adversaries:
    """Return untrained networks of grey 32x32 images."""

    def build() -> Adversaries:
        shapes: Any = {"classes": 0, "channels": 1, "image_size": 32}
        return Adversaries(build_generator(one, **shapes), build_critic(one, **shapes))

    built = seeded(build, one.seed)
    assert isinstance(built, Adversaries)
    return built


def step_of(one: Prior, model: Adversaries) -> AdversarialStep:
    step = objective(one).step(model, objective(one), one.recipe, World())
    assert isinstance(step, AdversarialStep)
    step.begin(1, 2)
    return step


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_the_generator_steps_on_every_fifth_batch_counted_over_epochs() -> None:
    one = prior(loss="wgan-gp", critic_steps=5)
    model = adversaries(one)
    step = step_of(one, model)
    stepped = []
    for batch in range(1, 12):
        if batch == 4:
            step.begin(2, 2)
        before, critic = weights(model.generator), weights(model.critic)
        step.train(torch.rand(4, 1, 32, 32), torch.zeros(4))
        assert not same(weights(model.critic), critic)
        if not same(weights(model.generator), before):
            stepped.append(batch)
    assert stepped == [5, 10]


def test_a_generator_step_leaves_the_critics_weights_and_the_first_moves_by_the_rate() -> None:
    """Adam's first step moves every weight by the learning rate, against the sign of its gradient."""
    one = prior(learning_rate=0.01, critic_learning_rate=0.03, augmentation="none")
    model = adversaries(one)
    before = {name: weights(model.get_submodule(name)) for name in ("generator", "critic")}
    step_of(one, model).train(torch.rand(4, 1, 32, 32), torch.zeros(4))
    for name, rate in (("generator", 0.01), ("critic", 0.03)):
        moves = [
            (now - before[name][part]).abs().max().item()
            for part, now in weights(model.get_submodule(name)).items()
        ]
        assert max(moves) == pytest.approx(rate, rel=1e-3)


def test_both_optimisers_are_adam_with_the_released_betas() -> None:
    one = prior(loss="wgan-gp")
    rates = {}
    for name, descent in step_of(one, adversaries(one)).descents.items():
        (group,) = descent.optimizer.param_groups
        assert isinstance(descent.optimizer, torch.optim.Adam)
        assert (group["betas"], group["amsgrad"], group["weight_decay"]) == ((0.5, 0.999), False, 0.0)
        rates[name] = group["lr"]
    assert rates == {"generator": 2e-4, "critic": 2e-4}


def test_without_decay_the_prior_is_the_generator() -> None:
    one = prior(average=0.0)
    model = adversaries(one)
    step_of(one, model).train(torch.rand(4, 1, 32, 32), torch.zeros(4))
    assert same(model.average.state_dict(), model.generator.state_dict())
    assert not any(parameter.requires_grad for parameter in model.average.parameters())


class Recorder(nn.Module):
    """A critic that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach())
        return self.weight * images.flatten(1).mean(1)


@pytest.mark.parametrize("name", ["none", "brightness-shift"])
def test_real_and_generated_images_are_augmented_alike(name: str) -> None:
    """Grey images differ by their brightness alone, wherever they are moved to."""
    one = prior(augmentation=name)
    generator = build_generator(one, classes=0, channels=1, image_size=32)
    assert isinstance(generator, Generator)
    for parameter in generator.blocks[-2].parameters():
        nn.init.zeros_(parameter)  # every generated image is grey
    critic = Recorder()
    step_of(one, Adversaries(generator, critic)).train(torch.full((64, 1, 32, 32), 0.5), torch.zeros(64))
    on_both, in_generator_step = critic.shown
    assert on_both.shape == (128, 1, 32, 32)
    for images in (*on_both.chunk(2), in_generator_step):
        levels = images.flatten(1)
        torch.testing.assert_close(levels, levels[:, :1].expand_as(levels))
        spread = levels[:, 0] - 0.5
        assert spread.abs().max() <= 0.25
        assert (spread.std() > 0.1) if name != "none" else (spread == 0.0).all()


def test_held_out_sums_are_of_real_images_and_of_the_average() -> None:
    one = prior()
    model = adversaries(one)
    model.critic = Recorder()
    for parameter in model.average.parameters():
        parameter.add_(0.05)
    images = torch.full((4, 1, 32, 32), 0.8)
    torch.manual_seed(7)
    sums = objective(one).sums(model, images, torch.zeros(4))
    torch.manual_seed(7)
    fake = model.average(torch.randn(4, model.generator.latent_size))
    assert sums == pytest.approx({"real": 4 * 0.8, "fake": fake.mean(dim=(1, 2, 3)).sum().item()}, rel=1e-5)


# Training


def pairs() -> Pairs:
    """Return bright images: each pixel is 0.7 to 0.9."""
    noise = torch.randint(179, 230, (40, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    return Pairs(noise.to(torch.uint8), torch.zeros(40))


def trained(one: Prior, world: World) -> tuple[dict[str, Tensor], Fitted]:
    """Fit a prior; return the weights of all three networks and the fit."""
    torch.set_num_threads(1)
    model = adversaries(one)
    fitted = fit(model, pairs(), objective(one), one.recipe, one.seed, world)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, fitted


WAYS = {"hinge": prior(), "wgan-gp": prior(loss="wgan-gp", critic_steps=3, average=0.5)}


@pytest.fixture(scope="module", params=WAYS)
def one(request: pytest.FixtureRequest) -> Prior:
    """Return a prior of each loss."""
    return WAYS[request.param]


@pytest.fixture(scope="module")
def whole(one: Prior) -> tuple[dict[str, Tensor], Fitted]:
    """Return an undisturbed training: two epochs of five batches."""
    return trained(one, World())


def test_training_repeats_bit_for_bit(one: Prior, whole: tuple[dict[str, Tensor], Fitted]) -> None:
    assert set(whole[1].curves) == {"train_loss", "validation_real", "validation_fake"}
    assert whole[1].best_epoch == 2
    assert len(whole[1].held_out) == 2
    again = trained(one, World())
    assert same(again[0], whole[0])
    assert again[1] == whole[1]


def test_training_stopped_between_epochs_ends_with_the_same_bytes(
    one: Prior, whole: tuple[dict[str, Tensor], Fitted]
) -> None:
    memory = Memory()
    with pytest.raises(Cancelled):
        trained(one, World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(1)))
    assert memory.saves == 1
    again = trained(one, World(checkpoint=memory))
    assert same(again[0], whole[0])
    assert again[1] == whole[1]


def leaving_after(batches: int) -> Callable[[], bool]:
    """Preempt once that many batches have begun."""
    polls = itertools.count()
    return lambda: next(polls) >= batches


@pytest.mark.parametrize("batches", [2, 7])
def test_training_preempted_midway_ends_with_the_same_bytes(
    batches: int, one: Prior, whole: tuple[dict[str, Tensor], Fitted]
) -> None:
    memory = Memory()
    with pytest.raises(Preempted):
        trained(one, World(checkpoint=memory, is_preempted=leaving_after(batches)))
    again = trained(one, World(checkpoint=memory))
    assert same(again[0], whole[0])
    assert again[1] == whole[1]


def test_a_state_without_the_count_is_refused_with_nothing_changed(one: Prior) -> None:
    step = step_of(one, adversaries(one))
    step.train(torch.rand(4, 1, 32, 32), torch.zeros(4))
    before = step.state()
    with pytest.raises(ValueError, match="counts no batches"):
        step.load({name: tensor + 1 for name, tensor in before.items() if name != "batches"})
    assert same(step.state(), before)


def test_the_generator_learns_the_brightness_of_the_images() -> None:
    one = prior(epochs=15, learning_rate=4e-3, critic_learning_rate=8e-3, augmentation="none")
    model = adversaries(one)
    latents = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    untrained = model.average(latents).mean().item()
    fit(model, pairs(), objective(one), one.recipe, one.seed, World())
    brightness = model.average.eval()(latents).mean().item()
    assert abs(untrained - 0.5) < 0.1
    assert abs(brightness - 0.8) < 0.1

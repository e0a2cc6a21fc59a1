"""The inverter's other losses by hand: values, gradients and signs, and that their training repeats."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks.losses import (
    AdversarialStep,
    Rival,
    adversarial,
    feature_distance,
    non_saturating,
    objective,
)
from orchestrator.config.attacks import AdversarialForm
from orchestrator.models.build import build_inverter
from orchestrator.models.classifier import Classifier
from orchestrator.models.discriminator import Discriminator
from orchestrator.training.loop import Fitted, fit
from orchestrator.training.objectives import reconstruction
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import Cancelled, Preempted, World
from tests.training.test_loop import Memory, same, stopping_after

SURROGATE = config.Surrogate(model=config.Model(name="ami-digit"))
REAL, FAKE = 0.75, 0.25
SLOPE, BIAS = 2.0, -0.5
LOGIT_REAL, LOGIT_FAKE = SLOPE * REAL + BIAS, SLOPE * FAKE + BIAS


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Brightness(nn.Module):
    """The logit of being real is a line in the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.bias = nn.Parameter(torch.tensor(SLOPE)), nn.Parameter(torch.tensor(BIAS))

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images.mean(dim=(1, 2, 3))[:, None] + self.bias


class MeanFeatures(Classifier):
    """Its only feature is the image's mean times a weight."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.cut_points = {}
        self.weight = nn.Parameter(torch.tensor(weight))

    def features(self, images: Tensor) -> Tensor:
        return self.weight * images.mean(dim=(1, 2, 3))[:, None]

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


def grey(level: float, number: int = 2) -> Tensor:
    return torch.full((number, 1, 2, 2), level)


class Picture(nn.Module):
    """A network whose reconstructions are its only parameter."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = nn.Parameter(images)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.images


def stepped(
    discriminator: nn.Module,
    reconstructions: Tensor,
    images: Tensor,
    weight: float,
    form: AdversarialForm = "minimax",
) -> Rival:
    """Take one adversarial step without a smooth loss; its gradients are left on both networks."""
    model = Rival(Picture(reconstructions), discriminator)
    recipe = config.Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.0)
    plain = objective(config.Losses(), None)
    step = AdversarialStep(
        model, plain, recipe, World(), smooth=lambda r, i: 0.0 * r.sum(), weight=weight, form=form
    )
    step.begin(1, 1)
    step.train(images, images)
    return model


def gradient(parameter: Tensor | nn.Module) -> Tensor:
    """Return the gradient that a step left."""
    assert isinstance(parameter, Tensor)
    assert parameter.grad is not None
    return parameter.grad


def gradients(weight: float, form: AdversarialForm = "minimax") -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by the discriminator's slope and bias and by the reconstructions."""
    discriminator = Brightness()
    model = stepped(discriminator, grey(FAKE), grey(REAL), weight, form)
    return gradient(discriminator.slope), gradient(discriminator.bias), gradient(model.network.images)


def test_the_adversarial_loss_by_hand() -> None:
    value = adversarial(Brightness(), grey(FAKE), grey(REAL)).item()
    assert value == pytest.approx(softplus(-LOGIT_REAL) + softplus(LOGIT_FAKE))
    minus_equation_7 = -math.log(sigmoid(LOGIT_REAL)) - math.log(1 - sigmoid(LOGIT_FAKE))
    assert value == pytest.approx(minus_equation_7)


def test_the_adversarial_loss_is_a_mean_over_images() -> None:
    images = torch.cat([grey(0.0, 1), grey(1.0, 1)])
    value = adversarial(Brightness(), images, images).item()
    low, high = BIAS, SLOPE + BIAS
    assert value == pytest.approx((softplus(-low) + softplus(-high) + softplus(low) + softplus(high)) / 2)


def test_sure_logits_stay_finite() -> None:
    discriminator = Brightness()
    nn.init.constant_(discriminator.slope, 1e4)
    value = adversarial(discriminator, grey(1.0), grey(-1.0))
    assert value.item() == pytest.approx(2e4, rel=1e-4)
    model = stepped(discriminator, grey(1.0), grey(-1.0), 1.0)
    assert gradient(model.network.images).isfinite().all()


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_gradients_by_hand(weight: float) -> None:
    """The discriminator's are plain; the images' are plain ones times -weight: 2 images of 4 pixels."""
    by_slope, by_bias, by_images = gradients(weight)
    real, fake = -sigmoid(-LOGIT_REAL), sigmoid(LOGIT_FAKE)
    assert by_slope.item() == pytest.approx(real * REAL + fake * FAKE)
    assert by_bias.item() == pytest.approx(real + fake)
    torch.testing.assert_close(by_images, torch.full((2, 1, 2, 2), -weight * fake * SLOPE / 8))


def test_reconstructions_receive_minus_the_weight_times_the_plain_gradient() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(channels=1, image_size=8, width=0.1)
    guesses, images = torch.rand(3, 1, 8, 8, requires_grad=True), torch.rand(3, 1, 8, 8)
    (plain,) = torch.autograd.grad(nn.functional.softplus(discriminator(guesses)).mean(), guesses)
    model = stepped(discriminator, guesses.detach(), images, 0.25)
    torch.testing.assert_close(gradient(model.network.images), -0.25 * plain)
    assert plain.abs().max() > 0


def test_the_weight_scales_the_generators_part_only() -> None:
    half, whole = gradients(0.5), gradients(1.0)
    assert torch.equal(half[0], whole[0])
    assert torch.equal(half[1], whole[1])
    torch.testing.assert_close(2 * half[2], whole[2])


def test_the_non_saturating_loss_by_hand() -> None:
    value = non_saturating(Brightness(), grey(FAKE)).item()
    assert value == pytest.approx(-math.log(sigmoid(LOGIT_FAKE)))


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_the_non_saturating_form_changes_what_the_reconstructions_receive_alone(weight: float) -> None:
    """-log D has the slope D - 1 by the logit, where log(1 - D) has -D: 2 images of 4 pixels."""
    plain, other = gradients(weight), gradients(weight, "non-saturating")
    assert torch.equal(plain[0], other[0])
    assert torch.equal(plain[1], other[1])
    slope = sigmoid(LOGIT_FAKE) - 1
    torch.testing.assert_close(other[2], torch.full((2, 1, 2, 2), weight * slope * SLOPE / 8))


def test_only_the_non_saturating_form_passes_a_gradient_where_the_discriminator_is_sure() -> None:
    received = {}
    for form in get_args(AdversarialForm):
        discriminator = Brightness()
        nn.init.constant_(discriminator.bias, -30.0)
        model = stepped(discriminator, grey(FAKE), grey(REAL), 1.0, form)
        received[form] = gradient(model.network.images).abs().max().item()
    assert received["minimax"] < 1e-10
    assert received["non-saturating"] == pytest.approx(SLOPE / 8)


def test_one_step_makes_the_discriminator_better_and_the_reconstructions_harder() -> None:
    discriminator = Brightness()
    before = adversarial(discriminator, grey(FAKE), grey(REAL))
    model = stepped(discriminator, grey(FAKE), grey(REAL), 1.0)
    assert (Brightness()(model.network.images) > Brightness()(grey(FAKE))).all()
    assert adversarial(discriminator, grey(FAKE), grey(REAL)) < before


def test_the_feature_distance_by_hand() -> None:
    """Means 0.2 and 0.5 against 0.6 and 0.4, times 2: (0.8^2 + 0.2^2) / 2."""
    guesses, images = torch.cat([grey(0.2, 1), grey(0.5, 1)]), torch.cat([grey(0.6, 1), grey(0.4, 1)])
    assert feature_distance(MeanFeatures(2.0), guesses, images).item() == pytest.approx(0.34)
    assert feature_distance(MeanFeatures(2.0), images, images).item() == 0.0


def test_the_feature_distance_moves_guesses_and_neither_surrogate_nor_images() -> None:
    """A feature's gradient by each of 4 pixels is 1/4; 2 (0.2 - 0.6) / 2 images."""
    surrogate = MeanFeatures().requires_grad_(False)
    guesses, images = grey(0.2).requires_grad_(), grey(0.6).requires_grad_()
    feature_distance(surrogate, guesses, images).backward()
    torch.testing.assert_close(guesses.grad, torch.full((2, 1, 2, 2), -0.1))
    assert images.grad is None
    assert surrogate.weight.grad is None


STRIPES = torch.tensor([[[[0.0, 0.5], [0.0, 0.5]]], [[[0.0, 1.0], [0.0, 1.0]]]])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # white images: squared errors (1, 0.25, 1, 0.25) and (1, 0, 1, 0)
        ({}, 0.5625),
        # means 0.25 and 0.5 against 1
        ({"features": 2.0, "surrogate": SURROGATE}, 0.5625 + 2 * (0.75**2 + 0.5**2) / 2),
        # sums 2 * 0.25 and 2 * 1 over 4 pixels
        ({"total_variation": 0.1}, 0.5625 + 0.1 * (0.5 + 2.0) / 2 / 4),
        (
            {"features": 2.0, "surrogate": SURROGATE, "total_variation": 0.1},
            0.5625 + 0.8125 + 0.03125,
        ),
        ({"surrogate": SURROGATE}, 0.5625),
    ],
    ids=["none", "features", "total variation", "both", "surrogate without weight"],
)
def test_the_objective_adds_up(weights: dict[str, Any], expected: float) -> None:
    one = objective(config.Losses(**weights), MeanFeatures())
    white = torch.ones_like(STRIPES)
    assert one.loss(nn.Identity(), STRIPES, white).item() == pytest.approx(expected)
    sums = one.sums(nn.Identity(), STRIPES, white)
    assert sums == {"loss": pytest.approx(2 * 0.5625), "total": pytest.approx(2 * expected)}


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    """Whatever the sizes of the batches, as validation adds them."""
    generator = torch.Generator().manual_seed(1)
    guesses, images = (torch.rand(5, 3, 8, 8, generator=generator) for _ in range(2))
    losses = config.Losses(features=3.0, total_variation=0.2, surrogate=SURROGATE)
    one = objective(losses, MeanFeatures())
    whole = one.sums(nn.Identity(), guesses, images)
    parts = [one.sums(nn.Identity(), guesses[part], images[part]) for part in (slice(0, 4), slice(4, 5))]
    assert whole == {name: pytest.approx(parts[0][name] + parts[1][name]) for name in whole}


def test_no_other_loss_is_the_plain_squared_error() -> None:
    one, plain = objective(config.Losses(), None), reconstruction()
    white = torch.ones_like(STRIPES)
    loss = one.loss(nn.Identity(), STRIPES, white)
    assert torch.equal(loss, plain.loss(nn.Identity(), STRIPES, white))


def test_the_adversarial_part_is_trained_on_and_not_chosen_by() -> None:
    rival = Rival(nn.Identity(), Brightness())
    images = torch.ones_like(STRIPES)
    one = objective(config.Losses(adversarial=0.3), None)
    picture = Rival(Picture(STRIPES.clone()), rival.discriminator)
    expected = adversarial(rival.discriminator, STRIPES, images)
    step = one.step(picture, one, RECIPE, World())
    total = step.train(STRIPES, images)["loss"]
    torch.testing.assert_close(total - nn.functional.mse_loss(STRIPES, images), expected)
    assert one.sums(rival, STRIPES, images)["total"] == pytest.approx(2 * 0.5625)
    assert one.selection_key({"loss": 1.0, "total": 2.0}) < one.selection_key({"loss": 0.5, "total": 3.0})


def test_a_rival_reconstructs_as_its_network() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 4)
    inputs = torch.rand(5, 3)
    assert torch.equal(Rival(network, Brightness())(inputs), network(inputs))


# Training both networks

RECIPE = config.Recipe(epochs=3, batch_size=8, learning_rate=0.01, validation_fraction=0.2)
LOSSES = config.Losses(adversarial=0.1, features=0.5, total_variation=0.01, surrogate=SURROGATE)


def pairs() -> Pairs:
    """Return encoded scores of two classes and images that differ in brightness."""
    labels = torch.arange(30) % 2
    noise = torch.randint(0, 120, (30, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    return Pairs(50.0 * torch.eye(2)[labels], (noise + 100 * labels[:, None, None, None]).to(torch.uint8))


def rival() -> Rival:
    """Return an untrained inverter and its discriminator."""
    model = config.Model(name="ami-digit", width=0.01)

    def build() -> nn.Module:
        network = build_inverter(model, classes=2, channels=1, image_size=32)
        return Rival(network, Discriminator(channels=1, image_size=32, width=0.05))

    built = seeded(build, 3)
    assert isinstance(built, Rival)
    return built


def trained(world: World) -> tuple[dict[str, Tensor], Fitted]:
    """Fit an inverter against a discriminator; return the weights of both and the fit."""
    torch.set_num_threads(1)
    model, surrogate = rival(), MeanFeatures().requires_grad_(False)
    fitted = fit(model, pairs(), objective(LOSSES, surrogate), RECIPE, 7, world)
    assert surrogate.weight.item() == 1.0
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, fitted


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], Fitted]:
    """Return an undisturbed training."""
    return trained(World())


def test_training_moves_both_networks(whole: tuple[dict[str, Tensor], Fitted]) -> None:
    before = rival().state_dict()
    for part in ("network.", "discriminator."):
        names = [name for name, _ in rival().named_parameters() if name.startswith(part)]
        assert names
        assert not any(torch.equal(before[name], whole[0][name]) for name in names), part
    assert set(whole[1].curves) == {"train_loss", "validation_loss", "validation_total"}


def test_training_repeats_bit_for_bit(whole: tuple[dict[str, Tensor], Fitted]) -> None:
    weights, fitted = trained(World())
    assert same(weights, whole[0])
    assert fitted == whole[1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_interrupted_training_ends_with_the_same_bytes(
    epoch: int, whole: tuple[dict[str, Tensor], Fitted]
) -> None:
    memory = Memory()
    with pytest.raises(Cancelled, match=f"stopped after epoch {epoch} of 3"):
        trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(epoch)))
    assert memory.saves == epoch
    weights, fitted = trained(World(checkpoint=memory))
    assert same(weights, whole[0])
    assert fitted == whole[1]


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is reversed and weighted (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return -ctx.weight * gradient, None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["amsgrad", "sgd"])
def test_two_optimisers_give_the_bits_of_one_with_a_reversed_gradient(optimizer: str, precision: str) -> None:
    """Stored inverters of earlier versions were trained by the latter."""
    torch.set_num_threads(1)
    recipe, world = RECIPE.but(optimizer=optimizer, weight_decay=1e-3), World(precision=precision)
    surrogate = MeanFeatures().requires_grad_(False)
    two = objective(LOSSES, surrogate)
    smooth = objective(LOSSES.but(adversarial=0.0), surrogate)

    def loss(model: Any, inputs: Tensor, images: Tensor) -> Tensor:
        reconstructions = model(inputs).float()
        total = smooth.loss(lambda _: reconstructions, inputs, images)
        turned = Reversed.apply(reconstructions, LOSSES.adversarial)
        return total + adversarial(model.discriminator, turned, images)

    states, fits = [], []
    for one in (two, replace(smooth, loss=loss)):
        model = rival()
        fits.append(fit(model, pairs(), one, recipe, 7, world))
        states.append(model.state_dict())
    assert same(*states)
    assert fits[0] == fits[1]


def leaving_after(batches: int) -> Callable[[], bool]:
    """Preempt once that many batches have begun."""
    polls = itertools.count()
    return lambda: next(polls) >= batches


@pytest.mark.parametrize("batches", [1, 2, 4])  # of three in each epoch
def test_training_preempted_midway_ends_with_the_same_bytes(
    batches: int, whole: tuple[dict[str, Tensor], Fitted]
) -> None:
    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(checkpoint=memory, is_preempted=leaving_after(batches)))
    weights, fitted = trained(World(checkpoint=memory))
    assert same(weights, whole[0])
    assert fitted == whole[1]


def test_a_checkpoint_of_one_optimiser_starts_the_training_over(
    whole: tuple[dict[str, Tensor], Fitted], caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    world = World(checkpoint=memory, is_preempted=leaving_after(4))
    with pytest.raises(Preempted):
        fit(rival(), pairs(), objective(LOSSES.but(adversarial=0.0), None), RECIPE, 7, world)
    weights, _ = trained(World(checkpoint=memory))
    assert "event=checkpoint_unusable" in caplog.text
    assert same(weights, whole[0])

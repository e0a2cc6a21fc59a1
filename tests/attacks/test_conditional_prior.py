"""PLG-MI's conditional GAN: pseudo labels and losses by hand, what the target is asked, resuming."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.attacks.conditional_prior import chosen, max_margin, objective
from orchestrator.attacks.crops import random_views
from orchestrator.attacks.prior import AdversarialStep, Adversaries, images_of_generator_steps
from orchestrator.config import Prior
from orchestrator.models.build import build_critic, build_generator
from orchestrator.training.loop import Fitted, fit
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import Preempted, World
from tests.attacks.test_prior import leaving_after
from tests.training.test_loop import Memory, same

PRIOR = Prior.model_validate(
    {"loss": "plg", "model": {"name": "plg", "width": 0.02}, "epochs": 3, "batch_size": 8, "seed": 3}
)


@pytest.mark.parametrize(
    ("classes", "value"), [([1], -2.0), ([0], 4.0), ([1, 0], 1.0)], ids=["own", "other", "both"]
)
def test_the_max_margin_of_logits_by_hand(classes: list[int], value: float) -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0]]).expand(len(classes), 3)
    assert max_margin(logits, torch.tensor(classes)).mean().item() == value


def test_an_image_may_serve_several_classes_and_ties_go_to_the_first() -> None:
    scores = torch.tensor([[0.1, 0.4], [0.4, 0.4], [0.4, 0.1], [0.4, 0.4]])
    positions, classes = chosen(scores, 2)
    assert positions.tolist() == [1, 2, 0, 1]
    assert classes.tolist() == [0, 0, 1, 1]
    positions, classes = chosen(scores, 9)
    assert positions.tolist() == [1, 2, 3, 0, 0, 1, 3, 2]
    assert classes.tolist() == [0] * 4 + [1] * 4


class Teacher(nn.Module):
    """A target of two classes, bright and dark; it counts the images that it is asked for, and keeps the
    dtypes of a linear layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.dtypes: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        brightness = images.flatten(1) @ torch.full((images[0].numel(), 1), 1 / images[0].numel())
        self.dtypes.add(brightness.dtype)
        return torch.cat([brightness - 0.5, 0.5 - brightness], dim=1) * 10.0


def pairs() -> Pairs:
    """Return noise around a bright and a dark grey, of classes 0 and 1."""
    noise = torch.randint(0, 40, (42, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    labels = torch.arange(42) % 2
    return Pairs((noise + 170 * (1 - labels)[:, None, None, None]).to(torch.uint8), labels)


def adversaries(prior: Prior = PRIOR) -> Adversaries:
    def build() -> Adversaries:
        shapes: Any = {"classes": 2, "channels": 1, "image_size": 32}
        return Adversaries(build_generator(prior, **shapes), build_critic(prior, **shapes))

    built = seeded(build, prior.seed)
    assert isinstance(built, Adversaries)
    return built


def trained(world: World, teacher: Teacher, prior: Prior = PRIOR) -> tuple[Adversaries, Fitted]:
    torch.set_num_threads(1)
    model = adversaries(prior)
    return model, fit(model, pairs(), objective(prior, teacher, 2), prior.recipe, prior.seed, world)


def test_it_repeats_and_resumes_midway_with_the_same_bytes() -> None:
    model, fitted = trained(World(), Teacher())
    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(checkpoint=memory, is_preempted=leaving_after(7)), Teacher())
    again, refitted = trained(World(checkpoint=memory), Teacher())
    assert same(model.state_dict(), again.state_dict())
    assert fitted == refitted
    assert set(fitted.curves) == {"train_loss", "validation_real", "validation_fake"}


def test_the_target_is_asked_in_the_generators_steps_alone() -> None:
    """Each epoch has 40 of 42 images in batches of 16, 16 and 8; every second batch of all is followed by a
    generator's step: 16 + 16 + 8 + 16."""
    prior, teacher = PRIOR.but(batch_size=16, critic_steps=2), Teacher()
    _, fitted = trained(World(), teacher, prior)
    assert fitted.images_seen == 3 * 40
    assert teacher.asked == images_of_generator_steps(prior, 40, workers=1) == 16 + 16 + 8 + 16


def test_workers_leave_out_what_they_cannot_share() -> None:
    """40 images in batches of 16 for 3 workers: 15, 15 and 6; for 5 workers 15 and 15."""
    prior = PRIOR.but(batch_size=16, critic_steps=1, epochs=1)
    counts = [images_of_generator_steps(prior, 40, workers) for workers in (3, 5)]
    assert counts == [15 + 15 + 6, 15 + 15]


class Recorder(nn.Module):
    """A critic of the mean of an image, whose slope is that of its class; it keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([3.0, -1.0]))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        self.shown.append((images.detach(), classes))
        return self.slopes[classes] * images.flatten(1).mean(1)


def recorded() -> tuple[Adversaries, Recorder, Tensor, Tensor]:
    """Return networks whose average is another generator, their critic, a batch and its classes."""
    model, critic = adversaries(), Recorder()
    model.critic = critic
    for parameter in model.average.parameters():
        parameter.add_(0.05)
    return model, critic, *pairs().batch(torch.arange(4), torch.device("cpu"))


def drawn(model: Adversaries) -> tuple[Tensor, Tensor]:
    """Return the four images that the generator makes next, and their classes."""
    latents, classes = torch.randn(4, 128), torch.randint(2, (4,))
    return model.generator(latents, classes).detach(), classes


def test_the_critics_loss_by_hand() -> None:
    model, critic, images, labels = recorded()
    torch.manual_seed(7)
    value = objective(PRIOR, Teacher(), 2).loss(model, images, labels)
    torch.manual_seed(7)
    fake, of_fake = drawn(model)
    noise = torch.rand(4, 1, 32, 32) / 256
    shown, classes = critic.shown[0]
    torch.testing.assert_close(shown, torch.cat([images + noise, fake]))
    assert classes.tolist() == [*labels.tolist(), *of_fake.tolist()]
    slopes = torch.tensor([3.0, -1.0])
    on_real, on_fake = (
        slopes[of] * part.flatten(1).mean(1) for part, of in ((images + noise, labels), (fake, of_fake))
    )
    expected = (1 - on_real).clamp_min(0).mean() + (1 + on_fake).clamp_min(0).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_generators_loss_by_hand() -> None:
    model, _, images, _ = recorded()
    goal = objective(PRIOR.but(inversion_weight=0.3), Teacher(), 2)
    step = goal.step(model, goal, PRIOR.recipe, World())
    assert isinstance(step, AdversarialStep)
    torch.manual_seed(7)
    value = step.generator_loss(model, images)
    torch.manual_seed(7)
    fake, classes = drawn(model)
    brightness = random_views(fake, torch.rand(4, 8), jitter=0.5).flatten(1).mean(1)
    margins = torch.where(classes == 0, -1.0, 1.0) * 20.0 * (brightness - 0.5)
    realness = torch.tensor([3.0, -1.0])[classes] * fake.flatten(1).mean(1)
    assert value.item() == pytest.approx((0.3 * margins.mean() - realness.mean()).item(), rel=1e-4)


def test_the_target_answers_in_float32_whatever_the_precision_of_training() -> None:
    teacher = Teacher()
    trained(World(precision="bfloat16"), teacher, PRIOR.but(epochs=1, critic_steps=1))
    assert teacher.dtypes == {torch.float32}


def test_held_out_sums_are_of_real_images_and_of_the_average() -> None:
    model, critic, images, labels = recorded()
    torch.manual_seed(7)
    sums = objective(PRIOR, Teacher(), 2).sums(model, images, labels)
    torch.manual_seed(7)
    both = {"real": images, "fake": model.average(torch.randn(4, 128), labels)}
    slopes = critic.slopes.detach()[labels]
    wanted = {name: (slopes * part.flatten(1).mean(1)).sum().item() for name, part in both.items()}
    assert sums == pytest.approx(wanted, rel=1e-5)


def test_both_networks_have_adam_of_its_betas() -> None:
    goal = objective(PRIOR, Teacher(), 2)
    step = goal.step(adversaries(), goal, PRIOR.recipe, World())
    assert isinstance(step, AdversarialStep)
    groups = [descent.optimizer.param_groups[0] for descent in step.descents.values()]
    assert [(group["betas"], group["lr"]) for group in groups] == [((0.0, 0.9), 2e-4)] * 2


def test_the_generator_learns_the_targets_classes() -> None:
    """With the target's weight alone, bright images of class 0 and dark ones of class 1."""
    prior = PRIOR.but(epochs=6, critic_steps=1, inversion_weight=5.0, learning_rate=5e-3)
    model, _ = trained(World(), Teacher(), prior)
    classes = torch.tensor([0, 1]).repeat(8)
    latents = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = model.average.eval()(latents, classes)
    assert Teacher()(images).argmax(1).tolist() == classes.tolist()

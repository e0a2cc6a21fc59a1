"""LOMMA's identity loss worked out by hand, its variants, what bounds it, and its settings."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import gmi, kedmi, lomma_g, lomma_k
from orchestrator.attacks.latent import GenerativePrior, normal_rows
from orchestrator.attacks.lomma import identity_loss
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.threat import FeatureBox, WhiteBox
from tests import tiny
from tests.attacks.priors import (
    CLASSES,
    SIZE,
    Line,
    Parted,
    Slope,
    boxed,
    small_network,
    small_prior,
)


class Says(nn.Module):
    """A classifier whose logits are the same for every image; its features are the pixels."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def head(self, features: Tensor) -> Tensor:
        return self.logits.expand(len(features), -1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)


IMAGES = torch.tensor([[[[1.0, 3.0]]], [[[1.0, 1.0]]]])
"""Two images of two pixels."""


def losses(target: Says, students: list[Says], mean: Tensor | None = None, **settings: Any) -> list[float]:
    """Return the identity loss of both images for class 0, at a weight of 100."""
    prior = GenerativePrior(Line(), Slope(0.0), students, torch.zeros(2) if mean is None else mean)
    augmentation = config.Augmentation.model_validate(settings)
    if not augmentation.reads_features:
        prior = dataclasses.replace(prior, features=None)
    identity = identity_loss(augmentation, 100.0, FeatureBox(target), prior)
    found, logits = identity(IMAGES, torch.tensor([0, 0]))
    assert torch.equal(logits, target(IMAGES))
    values: list[float] = found.tolist()
    return values


def test_the_identity_loss_by_hand() -> None:
    """All logits (2, 1) and features off by 1: -2 + 1 = -1, times 100."""
    assert losses(Says(2, 1), [Says(2, 1)] * 3)[1] == pytest.approx(-100.0)


def test_logits_are_averaged_and_the_feature_term_is_not() -> None:
    """-(2 + 5 - 1 + 6) / 4 = -3; features (1, 3) are (1 + 9) / 2 = 5 off, (1, 1) are 1 off; weight 0.5."""
    found = losses(Says(2, 0), [Says(5, 0), Says(-1, 0), Says(6, 0)], feature_weight=0.5)
    assert found == pytest.approx([-300 + 250, -300 + 50])


def test_a_loss_of_exactly_0_adds_the_feature_term_once() -> None:
    assert losses(Says(0, 1), [Says(0, 1)] * 3)[1] == pytest.approx(100.0)


def test_logit_leaves_the_students_out() -> None:
    assert losses(Says(2, 1), [], loss="logit") == pytest.approx([-200 + 500, -200 + 100])


def test_augmented_is_the_mean_cross_entropy_without_the_feature_term() -> None:
    """ln(1 + e^-1) and ln(1 + e^1), whose difference is 1."""
    sure, unsure = 0.3132616875182228, 1.3132616875182228
    found = losses(Says(1, 0), [Says(0, 1)], loss="augmented")
    assert found == pytest.approx([100 * (sure + unsure) / 2] * 2)


def on_a_feature_line(mean: float = 0.0) -> tuple[FeatureBox, GenerativePrior]:
    """Return a target with logits (z, 0) and the feature z, and a prior with D(G(z)) = 0."""
    linear = nn.Linear(1, 2)
    linear.weight = nn.Parameter(torch.tensor([[1.0], [0.0]]))
    linear.bias = nn.Parameter(torch.zeros(2))
    target = FeatureBox(Parted(nn.Sequential(nn.Flatten(), linear)))
    return target, GenerativePrior(Line(), Bare(), [], torch.tensor([mean]))


class Bare(Slope):
    """D(x) = 0, which KEDMI's search reads as logits 0."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def logits(self, features: Tensor, beside: Tensor) -> Tensor:
        return features.new_zeros(len(features), 2)


def end_of(name: str, mean: float = 0.0, **settings: Any) -> float:
    """Return the z of the last image of a search on the line without students."""
    target, prior = on_a_feature_line(mean)
    weight = settings.pop("feature_weight", 1.0)
    identity = {"loss": "logit", "feature_weight": weight}
    if not weight:
        prior = dataclasses.replace(prior, features=None)
    raw = {"name": name, "identity": identity, **settings}
    if name == "lomma-g":
        search = lomma_g.search(config.LommaGAttack.model_validate(raw), target, prior)
    else:
        search = lomma_k.search(config.LommaKAttack.model_validate(raw), target, prior)
    return float(search_to_the_end(search, torch.tensor([[1.0, 0.0]])).images)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lomma-g", {"steps": 300, "identities": 100, "clip": 10.0}),
        ("lomma-k", {"steps": 600, "log_variance": -20.0, "clip": None}),
    ],
)
def test_the_feature_term_bounds_the_logit(name: str, settings: dict[str, Any]) -> None:
    """-z + (z - p)^2 has its minimum at p + 1/2."""
    for mean in (0.0, 0.25):
        assert end_of(name, mean, **settings) == pytest.approx(mean + 0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lomma-g", {"steps": 300, "identities": 100}),
        ("lomma-k", {"steps": 300, "log_variance": -20.0}),
    ],
)
def test_without_it_the_logit_grows_until_the_clip_holds_it(name: str, settings: dict[str, Any]) -> None:
    alone = {**settings, "feature_weight": 0.0}
    assert end_of(name, **alone) == pytest.approx(1.0, abs=1e-3)
    assert end_of(name, **alone, clip=0.6) == pytest.approx(0.6, abs=1e-3)


def searched(attack: Any, module: Any, prior: GenerativePrior | None = None, **settings: Any) -> SearchResult:
    """Search small images of three classes with an attack of the same seed as any other here."""
    target = boxed(small_network(), attack.access)
    search = module.search(attack.but(**settings), target, prior or small_prior())
    return search_to_the_end(search, torch.eye(CLASSES)[[0, 3, 5]])


def test_it_starts_where_its_base_attack_does() -> None:
    own, base = config.LommaGAttack(name="lomma-g"), config.GmiAttack(name="gmi")
    assert torch.equal(searched(own, lomma_g, steps=0).images, searched(base, gmi, steps=0).images)
    latent: dict[str, Any] = {"steps": 0, "log_variance": 1.0}
    own_k, base_k = config.LommaKAttack(name="lomma-k"), config.KedmiAttack(name="kedmi")
    one, other = searched(own_k, lomma_k, **latent), searched(base_k, kedmi, **latent)
    assert torch.equal(one.images, other.images)


def test_it_descends_as_torch_does_on_the_loss_written_out() -> None:
    prior, network = small_prior(), Parted(small_network())
    for part in (prior.generator, prior.critic, *prior.students, network):
        part.requires_grad_(False)
    z = nn.Parameter(normal_rows(torch.tensor([3]), (1, SIZE), "gmi", 0)[:, 0])
    sgd = torch.optim.SGD([z], lr=0.02, momentum=0.9, nesterov=True)
    for _ in range(12):
        images = prior.generator(z)
        every = [network(images), *(student(images) for student in prior.students)]
        logit = sum(one[0, 3] for one in every) / 4
        apart = (images.flatten(1) - 0.5).square().mean()  # the features are the pixels
        sgd.zero_grad()
        ((100 * (-logit + 0.25 * apart) - prior.critic(images).sum()) / 60).backward()
        sgd.step()
        z.data.clamp_(-1, 1)
    attack = config.LommaGAttack(name="lomma-g", steps=12, identity=config.Augmentation(feature_weight=0.25))
    target = FeatureBox(Parted(small_network()))
    found = search_to_the_end(lomma_g.search(attack, target, small_prior()), torch.eye(CLASSES)[[3]])
    torch.testing.assert_close(found.images, prior.generator(z.detach()), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("attack", "module"),
    [(config.LommaGAttack(name="lomma-g"), lomma_g), (config.LommaKAttack(name="lomma-k"), lomma_k)],
)
def test_the_weight_of_the_identity_loss_is_the_attacks(attack: Any, module: Any) -> None:
    costs = [
        searched(attack, module, steps=0, prior_weight=0.0, identity_weight=weight).costs
        for weight in (1.0, 7.0)
    ]
    torch.testing.assert_close(costs[1], 7 * costs[0])


def test_it_raises_the_logit_of_every_class() -> None:
    attack = config.LommaGAttack(name="lomma-g", identities=1)
    agreeing = dataclasses.replace(small_prior(), students=[small_network()] * 3)
    before, after = (searched(attack, lomma_g, agreeing, steps=steps) for steps in (0, 100))
    target, classes = WhiteBox(small_network()), torch.tensor([0, 3, 5])
    logits = [target.logits(one.images).gather(1, classes[:, None]) for one in (before, after)]
    assert (logits[1] > logits[0]).all()
    assert (after.costs < before.costs).all()


PRIORS = {"lomma-g": ("kedmi", "hinge or wgan-gp"), "lomma-k": ("hinge", "kedmi")}


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_of_the_other_kind_is_refused(name: str) -> None:
    loss, others = PRIORS[name]
    text = rf"prior\.loss={loss} is none that attack\.name={name} searches; use {others}, or choose another"
    changes = {"attack": {"name": name}, "prior": {"loss": loss}, "evaluation.task": "class-inference"}
    with pytest.raises(ValueError, match=text):
        tiny.spec(changes)


@pytest.mark.parametrize("loss", ["full", "logit", "augmented"])
def test_a_prior_without_public_images_is_refused(loss: str) -> None:
    attack = {"name": "lomma-g", "identity": {"loss": loss}, "prior_weight": 0.0}
    changes = {"attack": attack, "prior": {"weights": "faces"}, "evaluation.task": "class-inference"}
    text = r"prior\.weights=faces brings no public images, for which attack\.name=lomma-g asks the target"
    with pytest.raises(ValueError, match=text):
        tiny.spec(changes)


@pytest.mark.parametrize("loss", ["full", "augmented"])
def test_a_loss_over_students_needs_one(loss: str) -> None:
    text = (
        rf"students=\{{\}} names none, and loss={loss} averages over them; leave it out for three "
        r"EfficientNets or use loss=logit\."
    )
    changes = {"attack": {"name": "lomma-g", "identity": {"loss": loss, "students": {}}}, "prior": {}}
    with pytest.raises(ValueError, match=text):
        tiny.spec({**changes, "evaluation.task": "class-inference"})


def test_the_students_of_print_are_the_default() -> None:
    students = config.LommaKAttack(name="lomma-k").students
    assert [one.model.name for one in students.values()] == [f"efficientnet_b{n}" for n in range(3)]
    recipe = students["b0"].recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (20, 64, "sgd")
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.01, 0.9, 1e-4)

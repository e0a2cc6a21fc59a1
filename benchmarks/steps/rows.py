"""Rows of the benchmark: a network with the stage code that trains it, and the loop that its authors write.

Both start from the same weights and take the same batches in the same order, so that their losses must agree.
Images are random bytes: no step depends on what they show.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.steps import plain
from orchestrator import config
from orchestrator.attacks import build_attack, gmi, latent, prior
from orchestrator.attacks.latent import GenerativePrior, LatentSearch
from orchestrator.attacks.prior import Adversaries
from orchestrator.attacks.row_search import State
from orchestrator.models.build import build_classifier, build_critic, build_generator
from orchestrator.threat import BlackBox, WhiteBox
from orchestrator.training.augmentation import augmentation
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import classification, reconstruction
from orchestrator.training.pairs import Pairs, as_unit
from orchestrator.training.seeds import seeded
from orchestrator.training.world import World

SEED, BATCHES = 0, 4  # of weights and images; batches that a loop goes through in turns

Take = Callable[[int], Tensor]
"""Takes one step with the batch of a number and returns its loss, a scalar."""


@dataclass(frozen=True)
class Setting:
    """What a row is measured with."""

    device: torch.device
    precision: str
    width: float
    batch: int | None  # images; None takes the row's own

    @property
    def world(self) -> World:
        """One worker with the device and the precision."""
        return World(device=self.device, precision=self.precision)


@dataclass(frozen=True)
class Loops:
    """Both loops of a row, before their first step."""

    ours: Take
    plain: Take
    flop: float  # of a step: one multiply-add is two, without F(x), which one loop stores and one computes
    images: int  # of a step


@dataclass(frozen=True)
class Row:
    """One line of the table for each precision."""

    build: Callable[[Setting, "Row"], Loops]
    model: str
    classes: int
    channels: int
    side: int
    batch: int
    precisions: tuple[str, ...] = ("float32", "bfloat16")

    @property
    def shapes(self) -> dict[str, Any]:
        """Arguments that networks are built with."""
        return {"classes": self.classes, "channels": self.channels, "image_size": self.side}

    def images(self, setting: Setting) -> Tensor:
        """Return random images (N, C, S, S) uint8 of all batches."""
        count = BATCHES * (setting.batch or self.batch)
        generator = torch.Generator().manual_seed(SEED)
        shape = (count, self.channels, self.side, self.side)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def labels(self, setting: Setting) -> Tensor:
        """Return random labels (N,) int64; 0 where there are no classes."""
        generator = torch.Generator().manual_seed(SEED + 1)
        count = BATCHES * (setting.batch or self.batch)
        return torch.randint(0, max(1, self.classes), (count,), generator=generator)


def _classifier(setting: Setting, row: Row) -> Loops:
    """Return the loops of a classifier on images and labels."""
    model = config.Model(name=row.model, width=setting.width)
    network = seeded(lambda: build_classifier(model, **row.shapes), SEED)
    recipe = _RECIPES[row.model].but(batch_size=setting.batch or row.batch)
    images, labels = row.images(setting), row.labels(setting)
    step, counted = (
        plain.ClassifierStep(deepcopy(network), plain.optimizer(recipe), setting.device) for _ in range(2)
    )
    batches = plain.Batches(images, labels, recipe.batch_size, setting.device)
    flop = plain.flop((lambda: counted.loss(*batches.first()), counted.network.parameters()))
    ours = _fitted(network, Pairs(images, labels), classification(), recipe, setting)
    return Loops(ours, lambda number: step.take(*batches.next()), flop, recipe.batch_size)


def _inverter(setting: Setting, row: Row) -> Loops:
    """Return the loops of an inverter: ours on stored scores, the plain one asks F in every step."""
    model = config.Model(name=row.model, width=setting.width)
    attack = config.InverterAttack(model=model)
    target = seeded(lambda: build_classifier(model, **row.shapes), SEED).to(setting.device).eval()
    inverter: Any = seeded(lambda: build_attack(attack, **row.shapes), SEED).to(setting.device)
    recipe = _RECIPES[row.model].but(batch_size=setting.batch or row.batch)
    images = row.images(setting)
    step, counted = (
        plain.InverterStep(
            target, plain.inverter(inverter, row.channels), float(inverter.offset), plain.optimizer(recipe)
        )
        for _ in range(2)
    )
    batches = plain.Batches(images, row.labels(setting), recipe.batch_size, setting.device)
    flop = plain.flop(
        (lambda: counted.loss(batches.first()[0], has_scores=True), counted.network.parameters())
    )
    scores = BlackBox(deepcopy(target), config.Release()).query(as_unit(images))
    with torch.no_grad():
        encoded = inverter.cpu().encode(scores.cpu(), row.classes)
    ours = _fitted(inverter.network, Pairs(encoded, images), reconstruction(), recipe, setting)
    return Loops(ours, lambda number: step.take(batches.next()[0]), flop, recipe.batch_size)


def _prior(setting: Setting, row: Row) -> Loops:
    """Return the loops of a generator and its critic under the hinge loss, one step of each on a batch."""
    spec = config.Prior(model=config.Model(name=row.model, width=setting.width))
    shapes: dict[str, Any] = {"classes": 0, "channels": row.channels, "image_size": row.side}

    def build() -> Adversaries:
        return Adversaries(build_generator(spec, **shapes), build_critic(spec, **shapes))

    network: Any = seeded(build, SEED)
    recipe = spec.recipe.but(batch_size=setting.batch or row.batch)
    images = row.images(setting)
    step, counted = (
        plain.HingeStep(deepcopy(network), spec, augmentation(spec.augmentation), setting.device)
        for _ in range(2)
    )
    batches = plain.Batches(images, row.labels(setting), recipe.batch_size, setting.device)
    flop = plain.flop(
        (lambda: counted.critic_loss(batches.first()[0]), counted.model.critic.parameters()),
        (lambda: counted.generator_loss(batches.first()[0]), counted.model.generator.parameters()),
    )
    nothing = torch.zeros(len(images))
    ours = _fitted(network, Pairs(images, nothing), prior.objective(spec), recipe, setting)
    return Loops(ours, lambda number: step.take(batches.next()[0]), flop, recipe.batch_size)


def _gmi(setting: Setting, row: Row) -> Loops:
    """Return the loops of one iteration of GMI on a batch of classes; its target answers in float32."""
    spec = config.Prior(model=config.Model(name="gmi", width=setting.width))
    shapes: dict[str, Any] = {"classes": 0, "channels": row.channels, "image_size": row.side}
    model = config.Model(name=row.model, width=setting.width)
    target = seeded(lambda: build_classifier(model, **row.shapes), SEED).to(setting.device).eval()
    generator: Any = seeded(lambda: build_generator(spec, **shapes), SEED).to(setting.device).eval()
    critic = seeded(lambda: build_critic(spec, **shapes), SEED).to(setting.device).eval()
    count = setting.batch or row.batch
    classes = torch.arange(count) % row.classes
    attack = config.GmiAttack(name="gmi", steps=100_000, identities=count)
    starts = latent.normal_rows(classes, (1, generator.latent_size), "gmi", attack.seed)[:, 0]
    step, counted = (
        plain.GmiStep(*deepcopy((generator, critic, target)), starts.to(setting.device), classes, attack)
        for _ in range(2)
    )
    for network in (counted.generator, counted.critic, counted.target):
        network.requires_grad_(False)
    flop = plain.flop((counted.loss, [counted.latents]))
    box, adversary = WhiteBox(target), GenerativePrior(generator, critic)
    search = _Recorded(gmi.search(attack, box, adversary).method, box, adversary)
    rows = functional.one_hot(classes, row.classes).float()
    state: State = {}

    def take(number: int) -> Tensor:
        nonlocal state
        state = search.advance(rows, state)
        return search.last

    return Loops(take, lambda number: step.take(), flop, count)


class _Recorded(LatentSearch):
    """A search that keeps the mean loss of its last step."""

    last: Tensor

    def losses(self, variable: Tensor, classes: Tensor, number: int) -> Tensor:
        """Return the losses (n, r) of a step."""
        losses = super().losses(variable, classes, number)
        self.last = losses.detach().mean()
        return losses


def _fitted(
    network: nn.Module, pairs: Pairs, objective: Objective, recipe: config.Recipe, setting: Setting
) -> Take:
    """Return the step of `training.loop.fit`, on batches in their order."""
    network.to(setting.device)
    network.to(memory_format=torch.channels_last)
    step = objective.step(network, objective, recipe, setting.world)
    step.begin(1, 1)
    augment = augmentation(recipe.augmentation)
    places = torch.arange(len(pairs)).split(recipe.batch_size)
    network.train()

    def take(number: int) -> Tensor:
        inputs, outputs = pairs.batch(places[number % BATCHES], setting.device)
        return step.train(objective.augment(augment(inputs)), outputs)["loss"]

    return take


def chosen(names: list[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of these names, or all, in the table's order."""
    yield from ((name, row) for name, row in ROWS.items() if name in (names or ROWS))


_AMI = config.Recipe(epochs=1)
_RECIPES = {
    "ami-digit": _AMI,
    "ami-face": _AMI,
    "vgg16": config.Recipe(epochs=1, optimizer="sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-4),
}

ROWS: dict[str, Row] = {
    "digit-inverter": Row(_inverter, "ami-digit", 10, 1, 32, 128),
    "face-inverter": Row(_inverter, "ami-face", 530, 1, 64, 128),
    "digit-classifier": Row(_classifier, "ami-digit", 10, 1, 32, 128),
    "face-classifier": Row(_classifier, "ami-face", 530, 1, 64, 128),
    "vgg16": Row(_classifier, "vgg16", 1000, 3, 64, 64),
    "hinge-prior": Row(_prior, "gmi", 0, 3, 64, 64),
    "gmi-iteration": Row(_gmi, "vgg16", 1000, 3, 64, 60, precisions=("float32",)),
}
"""Name -> row. A search runs in float32 at any precision of training steps."""

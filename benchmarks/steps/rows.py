"""Rows of the benchmark: a network with the stage code that trains it, and the loop that its authors write.

Both start from the same weights and take the same batches in the same order, so that their losses must agree.
Images are random bytes: no step depends on what they show.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.rows import (
    SEED,
    Network,
    Place,
    adversaries,
    new_classifier,
    new_inverter,
    pictures,
)
from benchmarks.steps import plain
from orchestrator import config
from orchestrator.attacks import gmi, latent, prior
from orchestrator.attacks.latent import GenerativePrior, LatentSearch
from orchestrator.attacks.row_search import State
from orchestrator.threat import BlackBox, WhiteBox
from orchestrator.training.augmentation import augmentation
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import classification, reconstruction
from orchestrator.training.pairs import Pairs, as_unit

BATCHES = 4  # that a loop goes through in turns

Take = Callable[[int], Tensor]
"""Takes one step with the batch of a number and returns its loss, a scalar."""


@dataclass(frozen=True)
class Setting:
    """What a row is measured with: its sizes, a place, and batches of how many images."""

    sizes: Network
    place: Place
    batch: int

    @property
    def images(self) -> Tensor:
        """Random images (N, C, S, S) uint8 of all batches."""
        return pictures(BATCHES * self.batch, self.sizes.channels, self.sizes.side)

    @property
    def labels(self) -> Tensor:
        """Random labels (N,) int64; 0 where there are no classes."""
        generator = torch.Generator().manual_seed(SEED + 1)
        return torch.randint(0, max(1, self.sizes.classes), (BATCHES * self.batch,), generator=generator)

    def recipe(self) -> config.Recipe:
        """Return one epoch of the authors' recipe."""
        return _RECIPES.get(self.sizes.model, config.Recipe(epochs=1)).but(batch_size=self.batch)


@dataclass(frozen=True)
class Loops:
    """Both loops of a row, before their first step."""

    ours: Take
    plain: Take
    flop: float  # of a step: one multiply-add is two, without F(x), which one loop stores and one computes
    images: int  # of a step


def _classifier(setting: Setting) -> Loops:
    """Return the loops of a classifier on images and labels."""
    network = new_classifier(setting.sizes, setting.place)
    recipe, device = setting.recipe(), setting.place.device
    images, labels = setting.images, setting.labels
    step, counted = (
        plain.ClassifierStep(deepcopy(network), plain.optimizer(recipe), device) for _ in range(2)
    )
    batches = plain.Batches(images, labels, recipe.batch_size, device)
    flop = plain.flop((lambda: counted.loss(*batches.first()), counted.network.parameters()))
    ours = _fitted(network, Pairs(images, labels), classification(), recipe, setting)
    return Loops(ours, lambda number: step.take(*batches.next()), flop, recipe.batch_size)


def _inverter(setting: Setting) -> Loops:
    """Return the loops of an inverter: ours on stored scores, the plain one asks F in every step."""
    sizes, device = setting.sizes, setting.place.device
    target = new_classifier(sizes, setting.place).to(device).eval()
    inverter = new_inverter(sizes, setting.place).to(device)
    recipe, images = setting.recipe(), setting.images
    step, counted = (
        plain.InverterStep(
            target, plain.inverter(inverter, sizes.channels), float(inverter.offset), plain.optimizer(recipe)
        )
        for _ in range(2)
    )
    batches = plain.Batches(images, setting.labels, recipe.batch_size, device)
    flop = plain.flop(
        (lambda: counted.loss(batches.first()[0], has_scores=True), counted.network.parameters())
    )
    scores = BlackBox(deepcopy(target), config.Release()).query(as_unit(images))
    with torch.no_grad():
        encoded = inverter.cpu().encode(scores.cpu(), sizes.classes)
    ours = _fitted(inverter.network, Pairs(encoded, images), reconstruction(), recipe, setting)
    return Loops(ours, lambda number: step.take(batches.next()[0]), flop, recipe.batch_size)


def _prior(setting: Setting) -> Loops:
    """Return the loops of a generator and its critic under the hinge loss, one step of each on a batch."""
    spec, network = adversaries(setting.sizes, setting.place)
    recipe, images = spec.recipe.but(batch_size=setting.batch), setting.images
    step, counted = (
        plain.HingeStep(deepcopy(network), spec, augmentation(spec.augmentation), setting.place.device)
        for _ in range(2)
    )
    batches = plain.Batches(images, setting.labels, recipe.batch_size, setting.place.device)
    flop = plain.flop(
        (lambda: counted.critic_loss(batches.first()[0]), counted.model.critic.parameters()),
        (lambda: counted.generator_loss(batches.first()[0]), counted.model.generator.parameters()),
    )
    nothing = torch.zeros(len(images))
    ours = _fitted(network, Pairs(images, nothing), prior.objective(spec), recipe, setting)
    return Loops(ours, lambda number: step.take(batches.next()[0]), flop, recipe.batch_size)


def _gmi(setting: Setting) -> Loops:
    """Return the loops of one iteration of GMI on a batch of classes; its target answers in float32."""
    sizes, device, count = setting.sizes, setting.place.device, setting.batch
    target = new_classifier(sizes, setting.place).to(device).eval()
    _, networks = adversaries(sizes, setting.place)
    generator: Any = networks.generator.to(device).eval()
    critic = networks.critic.to(device).eval()
    classes = torch.arange(count) % sizes.classes
    attack = config.GmiAttack(name="gmi", steps=100_000, identities=count)
    starts = latent.normal_rows(classes, (1, generator.latent_size), "gmi", attack.seed)[:, 0]
    step, counted = (
        plain.GmiStep(*deepcopy((generator, critic, target)), starts.to(device), classes, attack)
        for _ in range(2)
    )
    for network in (counted.generator, counted.critic, counted.target):
        network.requires_grad_(False)
    flop = plain.flop((counted.loss, [counted.latents]))
    box, adversary = WhiteBox(target), GenerativePrior(generator, critic)
    search = _Recorded(gmi.search(attack, box, adversary).method, box, adversary)
    rows = functional.one_hot(classes, sizes.classes).float()
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
    device = setting.place.device
    network.to(device)
    network.to(memory_format=torch.channels_last)
    step = objective.step(network, objective, recipe, setting.place.world)
    step.begin(1, 1)
    augment = augmentation(recipe.augmentation)
    pairs = pairs.on(device)
    places = torch.arange(len(pairs), device=pairs.device).split(recipe.batch_size)
    network.train()

    def take(number: int) -> Tensor:
        inputs, outputs = pairs.batch(places[number % BATCHES], device)
        return step.train(objective.augment(augment(inputs)), outputs)["loss"]

    return take


_RECIPES = {
    "vgg16": config.Recipe(epochs=1, optimizer="sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-4),
}

BUILDERS: Mapping[str, Callable[[Setting], Loops]] = {
    "digit-inverter": _inverter,
    "face-inverter": _inverter,
    "digit-classifier": _classifier,
    "face-classifier": _classifier,
    "vgg16": _classifier,
    "hinge-prior": _prior,
    "gmi-iteration": _gmi,
}


def loops(row: str, setting: Setting) -> Loops:
    """Build both loops of a row."""
    return BUILDERS[row](setting)

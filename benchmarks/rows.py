"""Rows: training steps and search iterations that benchmarks time, with the project's own step code.

Each row is built for a device, a precision, a batch and a factor of the networks' width; its step takes
images from tensors that are where `training.loop.fit` puts them, scales them there and trains on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orchestrator import config
from orchestrator.attacks import build_attack, gmi, prior
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.attacks.prior import Adversaries
from orchestrator.models.build import build_classifier, build_critic, build_generator
from orchestrator.threat import WhiteBox, truncate
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import classification, reconstruction
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import World

SEED = 0
ITERATIONS = 10  # of a search in one call


@dataclass(frozen=True)
class Place:
    """Where and how a row runs."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "bfloat16"
    width: float = 1.0
    """Factor of every network's width."""

    @property
    def world(self) -> World:
        """The world of one worker there."""
        return World(device=self.device, precision=self.precision)


@dataclass(frozen=True)
class Network:
    """The network of a row by its name, and the sizes that the papers give it."""

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


NETWORKS: Mapping[str, Network] = {
    "digit-inverter": Network("ami-digit", 10, 1, 32, 128),
    "face-inverter": Network("ami-face", 530, 1, 64, 128),
    "digit-classifier": Network("ami-digit", 10, 1, 32, 128),
    "face-classifier": Network("ami-face", 530, 1, 64, 128),
    "vgg16": Network("vgg16", 1000, 3, 64, 64),
    "hinge-prior": Network("gmi", 0, 3, 64, 64),
    "gmi-iteration": Network("vgg16", 1000, 3, 64, 60, precisions=("float32",)),
}
"""Row -> its network. A search runs in float32 at any precision of training steps."""

SEARCHES = {name for name, network in NETWORKS.items() if network.precisions == ("float32",)}


@dataclass(frozen=True)
class Ready:
    """A row that is built."""

    call: Callable[[], Any]
    images: int
    """Images that a call trains on, or that it takes a step with."""

    iterations: int = 1
    """Steps of a call."""


def training(
    network: nn.Module, pairs: Pairs, objective: Objective, recipe: config.Recipe, place: Place
) -> Ready:
    """Return one training step on all pairs as a batch, as `fit` takes it."""
    world = place.world
    network.to(world.device).to(memory_format=torch.channels_last)
    network.train()
    step = objective.step(network, objective, recipe, world)
    step.begin(1, recipe.epochs)
    placed = pairs.on(world.device)
    index = torch.arange(len(pairs), device=placed.device)
    return Ready(lambda: step.train(*placed.batch(index, world.device)), len(pairs))


def pictures(number: int, channels: int, side: int) -> Tensor:
    """Return random images (number, channels, side, side) uint8."""
    drawn = torch.Generator().manual_seed(SEED)
    return torch.randint(0, 256, (number, channels, side, side), dtype=torch.uint8, generator=drawn)


def scores_of(number: int, classes: int) -> Tensor:
    """Return random full scores, float32 (number, classes)."""
    drawn = torch.Generator().manual_seed(SEED)
    return (4 * torch.randn(number, classes, generator=drawn)).softmax(dim=1)


def inverter(sizes: Network, place: Place, batch: int) -> Ready:
    """Return a step of an inverter of full scores."""
    network, pairs = inverter_parts(sizes, place, batch)
    return training(network, pairs, reconstruction(), config.Recipe(), place)


def inverter_parts(
    sizes: Network, place: Place, number: int, *, m: int | None = None, offset: float = 50.0, seed: int = SEED
) -> tuple[nn.Module, Pairs]:
    """Build an inverter's network and its pairs: encoded scores of which the m largest are kept (None: all),
    images (number, channels, side, side)."""
    attack, kept = new_inverter(sizes, place, offset=offset, seed=seed), m or sizes.classes
    scores = truncate(scores_of(number, sizes.classes), kept)
    return attack.network, Pairs(attack.encode(scores, kept), pictures(number, sizes.channels, sizes.side))


def new_inverter(sizes: Network, place: Place, *, offset: float = 50.0, seed: int = SEED) -> Any:
    """Build an inverter whose weights depend on the seed alone."""
    attack = config.InverterAttack(model=config.Model(name=sizes.model, width=place.width), offset=offset)
    return seeded(lambda: build_attack(attack, **sizes.shapes), seed)


def classifier(sizes: Network, place: Place, batch: int) -> Ready:
    """Return a step of a classifier."""
    pairs = Pairs(pictures(batch, sizes.channels, sizes.side), torch.arange(batch) % sizes.classes)
    return training(new_classifier(sizes, place), pairs, classification(), config.Recipe(), place)


def new_classifier(sizes: Network, place: Place) -> Any:
    """Build a classifier whose weights depend on `SEED` alone."""
    model = config.Model(name=sizes.model, width=place.width)
    return seeded(lambda: build_classifier(model, **sizes.shapes), SEED)


def adversaries(sizes: Network, place: Place) -> tuple[config.Prior, Adversaries]:
    """Build the networks of GMI's prior by the hinge loss, for images of these sizes."""
    spec = config.Prior(model=config.Model(name="gmi", width=place.width))
    shapes: Any = {**sizes.shapes, "classes": 0}
    made: Any = seeded(
        lambda: Adversaries(build_generator(spec, **shapes), build_critic(spec, **shapes)), SEED
    )
    return spec, made


def hinge_prior(sizes: Network, place: Place, batch: int) -> Ready:
    """Return a step of critic and generator."""
    spec, networks = adversaries(sizes, place)
    pairs = Pairs(pictures(batch, sizes.channels, sizes.side), torch.zeros(batch))
    return training(networks, pairs, prior.objective(spec), spec.recipe, place)


def gmi_iterations(sizes: Network, place: Place, batch: int) -> Ready:
    """Return `ITERATIONS` steps of GMI with a batch of classes, float32."""
    box = WhiteBox(new_classifier(sizes, place).to(place.device))
    _, networks = adversaries(sizes, place)
    learned = GenerativePrior(networks.average, networks.critic)
    rows = torch.eye(sizes.classes)[torch.arange(batch) % sizes.classes]

    def search(steps: int) -> Any:
        return gmi.search(config.GmiAttack(name="gmi", steps=steps), box, learned)

    state = search(1).advance(rows, {})  # the starts, which are drawn once, are made
    on = search(1 + ITERATIONS)
    return Ready(lambda: on.advance(rows, state), ITERATIONS * batch, ITERATIONS)


BUILDERS: Mapping[str, Callable[[Network, Place, int], Ready]] = {
    "digit-inverter": inverter,
    "face-inverter": inverter,
    "digit-classifier": classifier,
    "face-classifier": classifier,
    "vgg16": classifier,
    "hinge-prior": hinge_prior,
    "gmi-iteration": gmi_iterations,
}


def ready(row: str, place: Place, batch: int) -> Ready:
    """Build a row at a place."""
    return BUILDERS[row](NETWORKS[row], place, batch)


def flops(built: Ready) -> float:
    """Return the floating-point operations of convolutions and matrix products for each image of a call."""
    with FlopCounterMode(display=False) as counter:
        built.call()
    return counter.get_total_flops() / built.images

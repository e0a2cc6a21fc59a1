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


def inverter(name: str, classes: int, side: int) -> Callable[[Place, int], Ready]:
    """Return the row of an inverter of full scores."""

    def build(place: Place, batch: int) -> Ready:
        network, pairs = inverter_parts(name, classes, side, place, batch)
        return training(network, pairs, reconstruction(), config.Recipe(), place)

    return build


def inverter_parts(  # noqa: PLR0913 - the sizes of a network and of its images
    name: str,
    classes: int,
    side: int,
    place: Place,
    number: int,
    *,
    m: int | None = None,
    offset: float = 50.0,
    seed: int = SEED,
) -> tuple[nn.Module, Pairs]:
    """Build an inverter's network and its pairs: encoded scores of which the m largest are kept (None: all),
    images (number, 1, side, side)."""
    attack = config.InverterAttack(model=config.Model(name=name, width=place.width), offset=offset)
    made: Any = seeded(lambda: build_attack(attack, classes=classes, channels=1, image_size=side), seed)
    kept = m or classes
    scores = truncate(scores_of(number, classes), kept)
    return made.network, Pairs(made.encode(scores, kept), pictures(number, 1, side))


def classifier(name: str, classes: int, channels: int, side: int) -> Callable[[Place, int], Ready]:
    """Return the row of a classifier."""

    def build(place: Place, batch: int) -> Ready:
        pairs = Pairs(pictures(batch, channels, side), torch.arange(batch) % classes)
        network = new_classifier(name, classes, channels, side, place)
        return training(network, pairs, classification(), config.Recipe(), place)

    return build


def new_classifier(name: str, classes: int, channels: int, side: int, place: Place) -> Any:
    """Build a classifier whose weights depend on `SEED` alone."""
    model = config.Model(name=name, width=place.width)
    return seeded(lambda: build_classifier(model, classes=classes, channels=channels, image_size=side), SEED)


def adversaries(place: Place, channels: int, side: int) -> tuple[config.Prior, Adversaries]:
    """Build the networks of a prior by the hinge loss."""
    spec = config.Prior(model=config.Model(name="gmi", width=place.width))
    shapes: Any = {"classes": 0, "channels": channels, "image_size": side}
    made: Any = seeded(
        lambda: Adversaries(build_generator(spec, **shapes), build_critic(spec, **shapes)), SEED
    )
    return spec, made


def hinge_prior(place: Place, batch: int) -> Ready:
    """Return a step of critic and generator at 64x64 in colour."""
    spec, networks = adversaries(place, 3, 64)
    pairs = Pairs(pictures(batch, 3, 64), torch.zeros(batch))
    return training(networks, pairs, prior.objective(spec), spec.recipe, place)


def gmi_iterations(place: Place, batch: int) -> Ready:
    """Return `ITERATIONS` steps of GMI with a batch of classes, against VGG16 at 64x64 in colour, float32."""
    classes = 1000
    box = WhiteBox(new_classifier("vgg16", classes, 3, 64, place).to(place.device))
    _, networks = adversaries(place, 3, 64)
    learned = GenerativePrior(networks.average, networks.critic)
    rows = torch.eye(classes)[torch.arange(batch) % classes]

    def search(steps: int) -> Any:
        return gmi.search(config.GmiAttack(name="gmi", steps=steps), box, learned)

    state = search(1).advance(rows, {})  # the starts, which are drawn once, are made
    on = search(1 + ITERATIONS)
    return Ready(lambda: on.advance(rows, state), ITERATIONS * batch, ITERATIONS)


ROWS: Mapping[str, Callable[[Place, int], Ready]] = {
    "digit inverter": inverter("ami-digit", 10, 32),
    "face inverter": inverter("ami-face", 530, 64),
    "digit classifier": classifier("ami-digit", 10, 1, 32),
    "face classifier": classifier("ami-face", 530, 1, 64),
    "VGG16": classifier("vgg16", 1000, 3, 64),
    "hinge prior": hinge_prior,
    "GMI iteration": gmi_iterations,
}
"""Label -> the function of place and batch that builds it."""

SEARCHES = {"GMI iteration"}
"""Rows that are computed in float32 at any precision of training steps."""


def flops(ready: Ready) -> float:
    """Return the floating-point operations of convolutions and matrix products for each image of a call."""
    with FlopCounterMode(display=False) as counter:
        ready.call()
    return counter.get_total_flops() / ready.images

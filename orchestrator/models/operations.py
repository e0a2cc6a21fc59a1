"""Operations of networks: multiply-adds and activations of one image, without torch, for forecasts.

Convolutions and linear layers count; norms, activations and poolings are no multiply-adds. AMI's, VGG16, IR
and the GANs are computed from the layers that their files build; library networks are in
`library_operations`.
tests/models/test_operations.py holds each against the real network.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from orchestrator.config.base import Model
from orchestrator.models import CLASSIFIERS, CRITICS, GENERATORS, INVERTERS, outline, outlines
from orchestrator.models.budgets import frozen_blocks
from orchestrator.models.generator_outlines import Shapes, generator_outline
from orchestrator.models.library_operations import LIBRARY
from orchestrator.models.outlines import scaled

HEAD = "head"
"""Part of a classifier behind its last cut point."""

LATENT, CONDITIONAL_LATENT, START = 100, 128, 4
"""Numbers of the latents of GMI's and PLG-MI's generators; side of the first maps of both."""

KERNELS, KERNEL_SIZE = 64, 50
"""Of KEDMI's minibatch discrimination at width 1."""

Part = tuple[float, float]
"""Multiply-adds and activations of one image in the layers up to a cut point, from the one before."""

Unknown = Literal["", "size", "time"]
"""What is not known of a network: nothing; its operations; or even whether its time goes by images."""


@dataclass(frozen=True)
class Operations:
    """What one image costs in a network."""

    family: str
    """The architecture, whatever its width and the image side."""

    forward: float
    """Multiply-adds of one pass."""

    backward: float
    """Multiply-adds of the gradients that a training step takes, of the layers that train."""

    activations: float
    """Numbers that a training step keeps of one image, about."""

    parameters: float
    """Of the whole network, about."""

    unknown: Unknown = ""
    """Where it is not empty the numbers above are placeholders."""

    @property
    def trained(self) -> float:
        """Multiply-adds of one image in a training step."""
        return self.forward + self.backward

    @property
    def searched(self) -> float:
        """Multiply-adds of one pass and of the gradient by what is searched, through all layers; weights have
        none."""
        return 2 * self.forward


@functools.lru_cache(maxsize=4096)
def classifier(
    model: Model, *, classes: int, channels: int, image_size: int, budget: str = "full", resizes: bool = False
) -> Operations:
    """Return what an image costs in a classifier of `models.CLASSIFIERS`, of which `budget`, a cut by name,
    leaves some layers to train; `resizes` as of `models.outline`. Raise `Refused` as that does."""
    architecture = CLASSIFIERS[model.name]
    side = architecture.image_size if resizes or not architecture.is_flexible else image_size
    network = outline(model, classes=classes, channels=channels, image_size=image_size, resizes=resizes)
    parts = _CLASSIFIERS.get(model.name, _library)(model, classes, channels, side)
    frozen, ends = frozen_blocks(network, budget), network.cut_points
    trains = [not (cut in ends and frozen.start < ends[cut] <= frozen.stop) for cut in parts]
    counts = list(parts.values())
    first = trains.index(True)
    weights = sum(count for (count, _), one in zip(counts, trains, strict=True) if one)
    return Operations(
        family=architecture.path,
        forward=sum(count for count, _ in counts),
        backward=weights
        + sum(count for count, _ in counts[first + 1 :]),  # nothing flows before the first one
        activations=sum(kept for _, kept in counts[first:]),
        parameters=float(network.trainable + network.constant),
    )


@functools.lru_cache(maxsize=4096)
def inverter(model: Model, *, classes: int, channels: int, image_size: int) -> Operations:
    """Return what an image costs in an inverter of `models.INVERTERS` that reads `classes` scores."""
    counts = [scaled(count, model.width) for count in reversed(outlines.AMI_CHANNELS[image_size])]
    sizes = [16.0 * classes * counts[0]]
    kept, side = [2.0 * counts[0] * START**2], START
    for before, after in pairwise([*counts, channels]):
        sizes.append(16.0 * before * after * side**2)
        side *= 2
        kept.append(3.0 * after * side**2)
    parameters = 16.0 * (classes * counts[0] + sum(a * b for a, b in pairwise([*counts, channels])))
    return _whole(INVERTERS[model.name].path, sizes, kept, parameters)


@functools.lru_cache(maxsize=1024)
def generator(model: Model, *, channels: int, image_size: int) -> Operations:
    """Return what an image costs in a generator of `models.GENERATORS`."""
    architecture = GENERATORS[model.name]
    if architecture.is_conditional:
        return _conditional_generator(architecture.path, model, channels, image_size)
    counts = outlines.gan_channels(image_size, model.width)[::-1]
    sizes, kept, side = [float(LATENT * counts[0] * START**2)], [3.0 * counts[0] * START**2], START
    for before, after in pairwise([*counts, channels]):
        sizes.append(25.0 * before * after * side**2)
        side *= 2
        kept.append(3.0 * after * side**2)
    parameters = sizes[0] + 25.0 * sum(a * b for a, b in pairwise([*counts, channels]))
    return _whole(architecture.path, sizes, kept, parameters)


def _conditional_generator(path: str, model: Model, channels: int, image_size: int) -> Operations:
    counts = outlines.conditional_channels(image_size, model.width)[::-1]
    sizes, kept, side = (
        [float(CONDITIONAL_LATENT * counts[0] * START**2)],
        [1.0 * counts[0] * START**2],
        START,
    )
    parameters = sizes[0]
    for before, after in pairwise(counts):
        side *= 2
        weights = 9.0 * before * after + 9.0 * after * after + before * after
        sizes.append(weights * side**2)
        kept.append((3.0 * before + 4.0 * after) * side**2)
        parameters += weights
    sizes.append(float(counts[-1] * channels * side**2))
    return _whole(path, sizes, kept, parameters)


@functools.lru_cache(maxsize=1024)
def critic(loss: str, width: float, *, classes: int, channels: int, image_size: int) -> Operations:
    """Return what an image costs in the critic of a prior's loss, of `models.CRITICS`."""
    path = CRITICS[loss].path
    if loss == "plg":
        return _projection_critic(path, width, channels, image_size)
    counts = [channels, *outlines.gan_channels(64 if loss == "kedmi" else image_size, width)]
    counts = counts[:4] if loss == "kedmi" else counts
    sizes, kept, side, parameters = [], [1.0 * channels * image_size**2], image_size, 0.0
    for before, after in pairwise(counts):
        side //= 2
        sizes.append(25.0 * before * after * side**2)
        kept.append(3.0 * after * side**2)
        parameters += 25.0 * before * after
    if loss == "kedmi":
        side //= 2
        features = counts[-1] * side**2
        heads = features * scaled(KERNELS, width) * scaled(KERNEL_SIZE, width)
        sizes += [9.0 * counts[-1] ** 2 * side**2, float(heads), float((features + 1) * classes)]
        parameters += 9.0 * counts[-1] ** 2 + heads + features * classes
    else:
        sizes.append(float(counts[-1] * START**2))
    return _whole(path, sizes, kept, parameters)


def _projection_critic(path: str, width: float, channels: int, image_size: int) -> Operations:
    counts = outlines.conditional_channels(image_size, width)
    sizes, kept, side, parameters = [], [], image_size, 0.0
    for before, hidden, after in [
        (channels, counts[0], counts[0]),
        *((a, a, b) for a, b in pairwise(counts)),
    ]:
        weights = 9.0 * before * hidden + 9.0 * hidden * after
        sizes.append(weights * side**2 + before * after * (side // 2) ** 2)
        kept.append((before + 2.0 * hidden + after) * side**2)
        parameters += weights + before * after
        side //= 2
    return _whole(path, sizes, kept, parameters)


@functools.lru_cache(maxsize=1024)
def discriminator(width: float, *, channels: int, image_size: int) -> Operations:
    """Return what an image costs in the discriminator that is trained against an inverter; raise `Refused` as
    `outlines.count_halvings` does."""
    halvings = outlines.count_halvings(image_size)
    counts = [scaled(count, width) for count in outlines.DISCRIMINATOR_CHANNELS[:halvings]]
    sizes, kept, side = [], [1.0 * channels * image_size**2], image_size
    for before, after in pairwise([channels, *counts]):
        side //= 2
        sizes.append(16.0 * before * after * side**2)
        kept.append(2.0 * after * side**2)
    head = counts[-1] * float(START**2)
    parameters = 16.0 * sum(a * b for a, b in pairwise([channels, *counts])) + head
    return _whole("discriminator.Discriminator", [*sizes, head], kept, parameters)


def placeholder(family: str, unknown: Unknown = "size") -> Operations:
    """Return what stands for a network whose operations are not known: times of the same one are comparable
    by images alone, or (`time`, of a service) not at all."""
    return Operations(family, 1.0, 1.0, 0.0, 0.0, unknown)


def brought_generator(shapes: Shapes, name: str) -> Operations:
    """Return what an image costs in a generator that others trained, by the shapes of its tensors; raise
    `Refused` if they are of no kind of generator."""
    made = generator_outline(shapes, name)
    counts, channels = made.arguments["counts"], made.arguments["channels"]
    sizes, kept = [], []
    if made.kind == "stylegan2":
        for place, (before, after) in enumerate(pairwise((0, *counts))):
            side = START * 2**place
            first = 9.0 * before * after * (side // 2) ** 2  # it doubles the side behind the products
            sizes.append(first + (9.0 * after * after + after * channels) * side**2)
            kept.append((8.0 * after + channels) * side**2)
    else:
        side = START
        sizes.append(16.0 * made.arguments["latent_size"] * counts[0])
        for before, after in pairwise([*counts, channels]):
            sizes.append(16.0 * before * after * side**2)
            side *= 2
            kept.append(3.0 * after * side**2)
    parameters = float(sum(_product(shape) for shape in shapes.values()))
    return _whole(f"{made.kind}-{made.image_size}", sizes, kept, parameters)


def _product(shape: tuple[int, ...]) -> int:
    return functools.reduce(lambda one, other: one * other, shape, 1)


def _whole(family: str, sizes: list[float], kept: list[float], parameters: float) -> Operations:
    """Return the operations of a network all of whose layers train."""
    forward = sum(sizes)
    return Operations(family, forward, 2 * forward - sizes[0], sum(kept), parameters)


def _ami(model: Model, classes: int, channels: int, side: int) -> dict[str, Part]:
    counts = (channels, *(scaled(count, model.width) for count in outlines.AMI_CHANNELS[side]))
    parts: dict[str, Part] = {}
    for place, (before, after) in enumerate(pairwise(counts), start=1):
        parts[f"block{place}"] = 9.0 * before * after * side**2, 2.5 * after * side**2
        side //= 2
    hidden, features = outlines.AMI_HIDDEN_PER_CLASS * classes, counts[-1] * START**2
    return {**parts, HEAD: (float(features * hidden + hidden * classes), float(2 * hidden + classes))}


def _vgg16(model: Model, classes: int, channels: int, side: int) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    before = channels
    for stage, counts in enumerate(outlines.VGG16_STAGES, start=1):
        for place, count in enumerate(counts, start=1):
            after = scaled(count, model.width)
            parts[f"conv{stage}_{place}"] = 9.0 * before * after * side**2, 3.0 * after * side**2
            before = after
        side //= 2
    features = before * side**2
    return {**parts, HEAD: (float(features * classes), float(2 * features + classes))}


def _ir(units: tuple[int, ...], model: Model, classes: int, channels: int, side: int) -> dict[str, Part]:
    counts = [scaled(count, model.width) for count in outlines.IR_CHANNELS]
    before, place = counts[0], 0
    parts: dict[str, Part] = {"input": (9.0 * channels * before * side**2, 3.0 * before * side**2)}
    for num_units, after in zip(units, counts, strict=True):
        for number in range(num_units):
            inner, side = side, side if number else side // 2
            projected = before * after * side**2 if before != after else 0
            macs = 9.0 * before * after * inner**2 + 9.0 * after * after * side**2 + projected
            kept = (before + 2.0 * after) * inner**2 + 3.0 * after * side**2
            parts[f"unit{place}"] = macs, kept
            before, place = after, place + 1
    features = before * side**2
    return {**parts, HEAD: (float(features * before + before * classes), float(2 * features + 2 * before))}


def _library(model: Model, classes: int, channels: int, side: int) -> dict[str, Part]:
    return LIBRARY[model.name].parts(classes, channels, side, HEAD)


_CLASSIFIERS: Mapping[str, Callable[[Model, int, int, int], dict[str, Part]]] = {
    "ami-digit": _ami,
    "ami-face": _ami,
    "vgg16": _vgg16,
    "ir152": functools.partial(_ir, outlines.IR152_UNITS),
    "facenet64": functools.partial(_ir, outlines.IR50_UNITS),
    "facenet": functools.partial(_ir, outlines.IR50_UNITS),
}

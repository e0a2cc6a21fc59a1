"""Target model F: trained on its private classes; frozen layers keep the public weights (TL-DMI)."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from orchestrator import defenses
from orchestrator.config import Data, Target
from orchestrator.datasets.selection import ImageSet
from orchestrator.models.budgets import Frozen
from orchestrator.models.classifier import Classifier
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.target_model import private_sets, trained_target, untrained, with_accuracy
from orchestrator.training.loop import Fitted, fit
from orchestrator.training.pairs import Pairs, Rows, as_unit, concatenated
from orchestrator.training.world import World

logger = logging.getLogger(__name__)

ACTIVATION_BATCH = 64  # images through the frozen layers at a time: larger ones outgrow a CPU's caches
ACTIVATION_BYTES = 4 * 2**30  # what frozen layers make of all training images is kept up to this size


def run(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Train F; leave it with its snapshots and its accuracy."""
    network, frozen = untrained(inputs, data, target)
    fitted = train(inputs, data, target, network, frozen)
    outputs = trained_target("target", network, fitted, frozen)
    if target.defense.dp:
        outputs.metrics["target/epsilon"] = _epsilon(target, fitted)
    return with_accuracy(outputs, inputs, data, target, network)


def train(inputs: Inputs, data: Data, target: Target, network: Classifier, frozen: Frozen) -> Fitted:
    """Train F in place on its private images and keep the epoch that the spec chooses.

    What frozen layers make of an image is computed once where it is always the same.
    """
    loss = defenses.objective(target.defense, target.classes)
    loss = replace(loss, keeps_last=target.selection == "last")
    images, chosen_on = private_sets(inputs, data, target)
    place, pairs_of = _preparation(network, frozen, target, images, inputs.world)
    pairs, held_out = pairs_of(images), pairs_of(chosen_on) if chosen_on else None
    recipe, snapshots = target.recipe, target.snapshots
    with network.starting_at(place):
        return fit(network, pairs, loss, recipe, target.seed, inputs.world, held_out, snapshots)


def _preparation(
    network: Classifier, frozen: Frozen, target: Target, images: ImageSet, world: World
) -> tuple[int, Callable[[ImageSet], Pairs]]:
    """Return how many leading blocks are computed once and what turns images into training pairs."""
    if not _is_reusable(network, frozen, target, images):
        return 0, lambda images: Pairs(images.images, images.labels)
    logger.info("event=activations_reused cut=%s images=%d", frozen.cut, len(images))
    return frozen.prefix, lambda images: Pairs(
        _activations(network, frozen, images.images, world), images.labels
    )


def _is_reusable(network: Classifier, frozen: Frozen, target: Target, images: ImageSet) -> bool:
    """Return whether the frozen layers always make the same of an image, and it can be kept."""
    is_fixed = target.freeze == "weights+statistics" and target.recipe.augmentation == "none"
    if not frozen.prefix or not is_fixed or defenses.needs_pixels(target.defense):
        return False
    one = _activations(network, frozen, images.images[:1], World())
    return one.numel() * one.element_size() * len(images) <= ACTIVATION_BYTES


@torch.no_grad()
def _activations(network: Classifier, frozen: Frozen, images: Rows, world: World) -> Tensor:
    """Return the frozen blocks' outputs, float32 (N, ...) on the CPU, of images (N, C, S, S) uint8, computed
    as a training step would."""
    prefix = network.blocks[: frozen.prefix].to(world.device).eval()
    prefix.to(memory_format=torch.channels_last)

    def of(batch: Tensor) -> Tensor:
        unit = as_unit(batch.to(world.device)).contiguous(memory_format=torch.channels_last)
        return prefix(unit).float().cpu()

    with torch.autocast(world.device.type, torch.bfloat16, enabled=world.precision == "bfloat16"):
        return concatenated((of(batch) for batch in images.split(ACTIVATION_BATCH)), len(images))


def _epsilon(target: Target, fitted: Fitted) -> float:
    """Return the privacy loss of F's training by DP-SGD, at its delta."""
    dp, recipe = target.defense.dp, target.recipe
    assert dp is not None
    num_images = fitted.images_seen // recipe.epochs
    rate = min(1.0, recipe.batch_size / num_images)
    return defenses.private.epsilon(dp, rate, recipe.epochs * math.ceil(num_images / recipe.batch_size))

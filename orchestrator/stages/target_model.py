"""The victim F: how it is put together (public weights, frozen-layer budget, defense), trained, measured."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from orchestrator.config import Data, Target
from orchestrator.datasets import selection
from orchestrator.datasets.selection import ImageSet
from orchestrator.defenses import defended, needs_pixels, private
from orchestrator.metrics.classification import is_among
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import Frozen, freeze
from orchestrator.stages.io import (
    Inputs,
    Outputs,
    fitted_images,
    new_classifier,
    npy,
    tensors,
    trained,
    transfer,
)
from orchestrator.training.loop import Fitted, fit, predict
from orchestrator.training.objectives import Objective, as_unit
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import World

logger = logging.getLogger(__name__)

ACTIVATION_BATCH = 64  # images through the frozen layers at a time: larger ones outgrow a CPU's caches
ACTIVATION_BYTES = 4 * 2**30  # what frozen layers make of all training images is kept up to this size


def untrained(inputs: Inputs, data: Data, target: Target) -> tuple[Classifier, Frozen]:
    """Return F before private training: its first or public weights, and what of it is frozen."""
    network = new_classifier(target.model, target.classes, data, target.seed)
    if target.pretrain:
        transfer(load_tensors(inputs.read("pretrain", "model.safetensors")), network)
    frozen = _protected(network, target)
    millions = (frozen.trainable / 1e6, frozen.total / 1e6)
    logger.info("event=budget cut=%s theta_c_millions=%.6f theta_t_millions=%.6f", frozen.cut, *millions)
    return network, frozen


def stored(inputs: Inputs, data: Data, target: Target) -> Classifier:
    """Return the trained F, on the device, in evaluation mode."""
    return holding(inputs.read("target", "model.safetensors"), inputs, data, target)


def holding(state: bytes, inputs: Inputs, data: Data, target: Target) -> Classifier:
    """Return F with the weights of a file, on the device, in evaluation mode."""
    network: Classifier = new_classifier(target.model, target.classes, data, 0)
    _protected(network, target)
    network.load_state_dict(load_tensors(state))
    return network.requires_grad_(True).to(inputs.world.device).eval()


def train(
    inputs: Inputs, data: Data, target: Target, objective: Objective, network: nn.Module, frozen: Frozen
) -> Fitted:
    """Train F (or F and G) on the private training images and keep the epoch that the spec asks for.

    What frozen layers make of an image is computed once where it is always the same.
    """
    private = inputs.datasets(data.dataset)
    images = selection.target_images(private, data, target.classes, "train")
    loss = replace(objective, keeps_last=target.selection == "last")

    def run(prepared: Callable[[ImageSet], Pairs]) -> Fitted:
        pairs, chosen_on = prepared(images), None
        if target.selection == "test":
            chosen_on = prepared(selection.target_images(private, data, target.classes, "evaluation"))
        recipe, snapshots = target.recipe, target.snapshots
        return fit(network, pairs, loss, recipe, target.seed, inputs.world, chosen_on, snapshots)

    if not isinstance(network, Classifier) or not _is_reusable(network, frozen, target, images):
        return run(lambda images: Pairs(images.images, images.labels))
    logger.info("event=activations_reused cut=%s images=%d", frozen.cut, len(images))

    def reused(images: ImageSet) -> Pairs:
        return Pairs(_activations(network, frozen, images.images, inputs.world), images.labels)

    with network.starting_at(frozen.prefix):
        return run(reused)


def with_accuracy(
    outputs: Outputs, inputs: Inputs, data: Data, target: Target, network: nn.Module
) -> Outputs:
    """Add F's accuracy on its test images, and for each of them whether it is right."""
    if inputs.world.rank != 0:
        return outputs
    test = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "evaluation")
    is_right = is_among(predict(network, test.images, inputs.world.device), test.labels)
    assert is_right is not None  # there are at least two classes
    table = np.empty(len(test), [("label", np.int32), ("accuracy", np.float32)])
    table["label"], table["accuracy"] = test.labels.numpy(), is_right.numpy()
    files = outputs.files | {"accuracy_test.npy": npy(table)}
    metrics = outputs.metrics | {"target/accuracy": float(is_right.mean())}
    return Outputs(files, metrics, outputs.images_seen)


def left(stage: str, network: nn.Module, fitted: Fitted, frozen: Frozen) -> Outputs:
    """Return F with its snapshots, and |theta_C| and |theta_T| in millions, as TL-DMI prints them."""
    outputs = trained(stage, network, fitted)
    for epoch, state in fitted.snapshots.items():
        outputs.files[snapshot_file(epoch)] = tensors(state)
    outputs.metrics["target/theta_c_millions"] = frozen.trainable / 1e6
    outputs.metrics["target/theta_t_millions"] = frozen.total / 1e6
    return outputs


def epsilon(inputs: Inputs, data: Data, target: Target) -> float:
    """Return the privacy loss of F's training by DP-SGD, at its delta."""
    dp, recipe = target.defense.dp, target.recipe
    assert dp is not None
    images, _ = fitted_images(inputs, data, target)
    rate = min(1.0, recipe.batch_size / len(images))
    return private.epsilon(dp, rate, recipe.epochs * math.ceil(len(images) / recipe.batch_size))


def snapshot_file(epoch: int) -> str:
    """Return the name of the file that holds F after an epoch."""
    return f"snapshot-{epoch:05d}.safetensors"


def _protected(network: Classifier, target: Target) -> Frozen:
    """Freeze and defend F, in place; new parts have first weights that depend on the seed alone."""
    frozen = freeze(network, str(target.budget), target.freeze)

    def protect() -> Any:
        return defended(network, target.defense, target.classes)

    seeded(protect, target.seed)
    return frozen


@torch.no_grad()
def _activations(network: Classifier, frozen: Frozen, images: Tensor, world: World) -> Tensor:
    """Return what flows out of the frozen blocks, float32 on the CPU, computed as a training step would."""
    prefix = network.blocks[: frozen.prefix].to(world.device).eval()
    prefix.to(memory_format=torch.channels_last)
    found = []
    with torch.autocast(world.device.type, torch.bfloat16, enabled=world.precision == "bfloat16"):
        for batch in images.split(ACTIVATION_BATCH):
            unit = as_unit(batch.to(world.device)).contiguous(memory_format=torch.channels_last)
            found.append(prefix(unit).float().cpu())
    return torch.cat(found)


def _is_reusable(network: Classifier, frozen: Frozen, target: Target, images: ImageSet) -> bool:
    """Return whether the frozen layers always make the same of an image, and it can be kept."""
    is_fixed = target.freeze == "weights+statistics" and target.recipe.augmentation == "none"
    if not frozen.prefix or not is_fixed or needs_pixels(target.defense):
        return False
    one = _activations(network, frozen, images.images[:1], World())
    return one.numel() * one.element_size() * len(images) <= ACTIVATION_BYTES

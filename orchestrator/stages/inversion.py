"""Inversion: the inverter G, trained on released scores of the auxiliary images (AMI, section IV)."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from orchestrator.attacks import losses as extra
from orchestrator.attacks.class_count import named_classes
from orchestrator.attacks.inverter import own_rates
from orchestrator.config import Auxiliary, Data, InverterAttack, Release, Target
from orchestrator.datasets.gathered import Images
from orchestrator.models.discriminator import Discriminator
from orchestrator.stages.images import auxiliary_images, fitted_images
from orchestrator.stages.io import Inputs, Outputs, read_npy, tensors, trained
from orchestrator.stages.networks import (
    AtRandomTruncations,
    AtTruncation,
    answers,
    black_box,
    new_inverter,
    stored_classifier,
)
from orchestrator.stages.target_model import ask_ahead, stored_target
from orchestrator.threat import released, released_length
from orchestrator.training.loop import Objective, fit, forward_batch
from orchestrator.training.objectives import reconstruction
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded

PairsOf = Callable[[Tensor, Images], Pairs]
"""Released scores (N, k) and images (N, C, S, S) uint8 -> training pairs."""


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    auxiliary: Auxiliary,
    attack: InverterAttack,
    release: Release,
) -> Outputs:
    """Train the inverter and keep the epoch that the attack chooses."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    scores = released(read_npy(inputs, "predictions", "scores.npy"), release)
    m = released_length(target.classes, release)
    named = named_classes(scores) if attack.estimates_classes else None
    inverter = new_inverter(attack, data, target, named)
    is_random = attack.align == "random"
    # Nothing trained or drawn precedes the network then: encode once.
    is_encoded = not attack.offset_learnable and not is_random

    def pairs_of(scores: Tensor, images: Images) -> Pairs:
        return Pairs(inverter.encode(scores, m) if is_encoded else scores, images)

    encoding = AtRandomTruncations(inverter) if is_random else AtTruncation(inverter, m)
    network = inverter.network if is_encoded else encoding
    network, loss = _with_losses(inputs, network, attack, data, target)
    loss = replace(loss, keeps_last=attack.selection == "last", own_rates=own_rates(attack))
    chosen_on, num_queries = _chosen_on(inputs, data, target, attack, release, pairs_of)
    pairs = pairs_of(scores, images)
    fitted = fit(network, pairs, loss, attack.recipe, attack.seed, inputs.world, chosen_on)
    outputs = trained("inversion", network, fitted)
    if num_queries:  # beside those of the auxiliary images
        outputs.metrics["attack/queries"] = float(len(images) + num_queries)
    if named is not None:
        outputs.metrics["attack/classes_estimated"] = float(len(named))
    outputs.files["inverter.safetensors"] = tensors(inverter.state_dict())
    del outputs.files["model.safetensors"]
    return outputs


def _chosen_on(
    inputs: Inputs, data: Data, target: Target, attack: InverterAttack, release: Release, pairs_of: PairsOf
) -> tuple[Pairs | None, int]:
    """Return the target's training images to choose the epoch on, and how many queries they cost; None where
    the adversary's own images choose it."""
    if attack.selection != "victim-train":
        return None, 0
    images = fitted_images(inputs, data, target).images
    network = stored_target(inputs, data, target)
    ask_ahead(network, images)
    box = black_box(inputs, network, release, forward_batch(inputs.world.device))
    return pairs_of(answers(box, images), images), box.num_queries


def asked(inputs: Inputs, data: Data, target: Target, attack: InverterAttack) -> list[Images]:
    """Return the images that F is asked for beside the adversary's."""
    is_chosen_on = attack.selection == "victim-train"
    return [fitted_images(inputs, data, target).images] if is_chosen_on else []


def _with_losses(
    inputs: Inputs, network: nn.Module, attack: InverterAttack, data: Data, target: Target
) -> tuple[nn.Module, Objective]:
    """Return what is trained and its objective: the inverter alone on the squared error, or with rivals."""
    losses = attack.losses
    if not (losses.adversarial or losses.features or losses.total_variation):
        return network, reconstruction()
    comparator = None
    if losses.features and losses.surrogate:
        model = losses.surrogate.model
        comparator = stored_classifier(inputs, "surrogate", model, target.classes, data).requires_grad_(False)
    if losses.adversarial:
        channels, image_size, width = data.channels, data.image_size, attack.model.width
        rival = seeded(
            lambda: Discriminator(channels=channels, image_size=image_size, width=width), attack.seed
        )
        network = extra.Rival(network, rival)
    return network, extra.objective(losses, comparator)

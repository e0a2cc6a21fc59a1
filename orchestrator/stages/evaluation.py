"""Evaluation: reconstructions of private images, or images of classes, measured and judged."""

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from orchestrator.config import Attack, Data, Evaluation, Judge, Release, Target
from orchestrator.datasets import selection
from orchestrator.metrics.yardsticks import GREY
from orchestrator.stages.images import inferred_classes, one_hot, private_images
from orchestrator.stages.io import Inputs, Outputs, read_npy
from orchestrator.stages.measuring import Attacked, measure_classes, measure_images
from orchestrator.stages.networks import (
    AtTruncation,
    features_of,
    judged_training,
    stored_classifier,
    stored_inverter,
)
from orchestrator.stages.similarity import FeatureSimilarity
from orchestrator.stages.target_model import stored_target
from orchestrator.threat import released, released_length
from orchestrator.training.loop import predict
from orchestrator.training.pairs import as_unit


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    judge: Judge,
    evaluation: Evaluation,
) -> Outputs:
    """Reconstruct the private images, or infer an image of each class; measure them and have them judged."""
    private, device = inputs.datasets(data.dataset), inputs.world.device
    num_classes = private.description.num_classes
    judging = stored_classifier(inputs, "judge", judge.model, num_classes, data, resizes=True)
    original = torch.tensor(selection.private_classes(private, data, target.classes))
    training = selection.target_images(private, data, target.classes, "train")
    similarity = FeatureSimilarity(training, judged_training(inputs, original), inputs)
    network = stored_target(inputs, data, target)

    def attacked(images: Tensor, labels: Tensor) -> Attacked:
        scores = predict(network, images, device).softmax(1)
        features = features_of(judging, images, device)
        logits = predict(judging.head, features, device)
        return Attacked(images, labels, scores, features.flatten(1), logits, original)

    if evaluation.task == "class-inference":
        labels, _ = inferred_classes(target, evaluation)
        images = _attack_images(inputs, data, target, attack, "class", one_hot(labels, target), 1)
        is_made = _is_made(inputs, attack, labels)
        if is_made is not None:
            images = torch.where(is_made[:, None, None, None], images, GREY / 255.0)
        measured = [measure_classes(training, attacked(images, labels), similarity, is_made)]
    else:
        measured, m = [], released_length(target.classes, release)
        for part, (originals, labels) in private_images(inputs, data, target, evaluation).items():
            scores = released(read_npy(inputs, "victims", f"scores_{part}.npy"), release)
            images = _attack_images(inputs, data, target, attack, part, scores, m)
            measured.append(measure_images(part, originals, attacked(images, labels), similarity))
    files = {name: content for one in measured for name, content in one.files(evaluation.grid).items()}
    metrics = {name: value for one in measured for name, value in one.metrics.items()}
    return Outputs(files, metrics, sum(len(one.labels) for one in measured))


def _is_made(inputs: Inputs, attack: Attack, labels: Tensor) -> Tensor | None:
    """Return of which classes (N,) the adversary makes an image, bool (N,): those that it knows of; None for
    all of them."""
    if not attack.estimates_classes:
        return None
    return torch.isin(labels, load_tensors(inputs.read("attack", "inverter.safetensors"))["named"])


def _attack_images(
    inputs: Inputs, data: Data, target: Target, attack: Attack, part: str, scores: Tensor, m: int
) -> Tensor:
    """Return the attack's image (N, C, S, S) in [0, 1] for each released row of scores (N, k)."""
    if attack.leaves == "images":
        return as_unit(read_npy(inputs, "attack", f"reconstructions_{part}.npy"))
    device = inputs.world.device
    inverter = stored_inverter(inputs, data, target, attack)
    return predict(AtTruncation(inverter, m).to(device), scores, device)

"""Evaluation: reconstructions of private images, or images of classes, measured and judged."""

import torch
from torch import Tensor

from orchestrator.config import Attack, Data, Evaluation, Judge, Release, Target
from orchestrator.datasets import selection
from orchestrator.metrics.names import CLASS
from orchestrator.stages.images import attacked_scores, inferred_classes, private_images
from orchestrator.stages.io import Inputs, Outputs, read_npy
from orchestrator.stages.measuring import Attacked, measure_classes, measure_images
from orchestrator.stages.networks import (
    features_and_logits,
    grey_unless,
    inverted,
    judged_training,
    made_classes,
    stored_judge,
)
from orchestrator.stages.similarity import FeatureSimilarity
from orchestrator.stages.target_model import stored_target
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
    judging = stored_judge(inputs, data, judge, num_classes)
    original = torch.tensor(selection.private_classes(private, data, target.classes))
    training = selection.target_images(private, data, target.classes, "train")
    similarity = FeatureSimilarity(training, judged_training(inputs, original), inputs)
    # A service is asked for nothing here: each setting of the adversary would cost it new queries.
    network = None if target.service else stored_target(inputs, data, target)

    def attacked(images: Tensor, labels: Tensor) -> Attacked:
        scores = None if network is None else predict(network, images, device).softmax(1)
        return Attacked(images, labels, scores, *features_and_logits(judging, images, device), original)

    def rebuilt(part: str) -> Tensor:
        if attack.leaves == "images":
            return as_unit(read_npy(inputs, "attack", f"reconstructions_{part}.npy"))
        return inverted(inputs, data, target, attack, scores[part], m)

    scores, m = attacked_scores(inputs, target, release, evaluation)
    if evaluation.task == "class-inference":
        labels, _ = inferred_classes(target, evaluation)
        is_made = made_classes(inputs, attack, labels)
        images = grey_unless(is_made, rebuilt(CLASS))
        measured = [measure_classes(training, attacked(images, labels), similarity, is_made)]
    else:
        measured = [
            measure_images(part, originals, attacked(rebuilt(part), labels), similarity)
            for part, (originals, labels) in private_images(inputs, data, target, evaluation).items()
        ]
    files = {name: content for one in measured for name, content in one.files(evaluation.grid).items()}
    metrics = {name: value for one in measured for name, value in one.metrics.items()}
    return Outputs(files, metrics, sum(len(one.labels) for one in measured))

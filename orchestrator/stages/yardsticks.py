"""Yardsticks: guesses that need no target or no training, measured like the attack, and what chance gives.

They are made of the images that the adversary has and of what the target released for them, so that all
attacks on one release share them. A developer has F's training images; an adversary without images has
nothing but a constant one.
"""

import numpy as np
import torch
from torch import Tensor

from orchestrator.config import Auxiliary, Data, Evaluation, Judge, Release, Target
from orchestrator.datasets import selection
from orchestrator.metrics import yardsticks
from orchestrator.metrics.classification import is_among
from orchestrator.metrics.names import CLASS, METRICS, per_image_file
from orchestrator.stages.images import auxiliary_images, fitted_images, inferred_classes, private_images
from orchestrator.stages.io import Inputs, Outputs, npy, per_image, read_npy
from orchestrator.stages.networks import answers, stored_classifier
from orchestrator.stages.target_model import stored_target
from orchestrator.threat import BlackBox, released
from orchestrator.training.loop import forward_batch, predict
from orchestrator.training.seeds import derive_seed


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    evaluation: Evaluation,
    auxiliary: Auxiliary | None = None,
    release: Release | None = None,
    judge: Judge | None = None,
) -> Outputs:
    """Measure what the adversary could guess of private images, or of classes, without an attack.

    A developer has no auxiliary set, an adversary without images no use for what is released; images of
    classes are judged.
    """
    owned = _owned(inputs, data, target, auxiliary, release)
    metrics, files = _chances(inputs, data, target), {}
    if judge is not None:
        labels, values = _of_classes(inputs, data, target, judge, evaluation, owned)
        measured = {CLASS: (labels, values)}
    else:
        measured = _of_images(inputs, data, target, evaluation, release, owned)
    for part, (labels, values) in measured.items():
        files[per_image_file(part)] = npy(per_image(labels, values))
        metrics |= {str(METRICS[name].on(part)): float(value.mean()) for name, value in values.items()}
    return Outputs(files, metrics, sum(len(labels) for labels, _ in measured.values()))


def _owned(
    inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary | None, release: Release | None
) -> yardsticks.Owned | None:
    """Return the adversary's images with released scores; those of a developer are F's training images."""
    if release is None:
        return None
    if auxiliary is not None:
        images, scores = (
            auxiliary_images(inputs, data, target, auxiliary),
            read_npy(inputs, "predictions", "scores.npy"),
        )
    else:
        images = fitted_images(inputs, data, target).images
        box = BlackBox(stored_target(inputs, data, target), Release(), forward_batch(inputs.world.device))
        scores = answers(box, images)
    return yardsticks.Owned(images, released(scores, release).numpy())


def _of_images(
    inputs: Inputs,
    data: Data,
    target: Target,
    evaluation: Evaluation,
    release: Release | None,
    owned: yardsticks.Owned | None,
) -> dict[str, tuple[Tensor, dict[str, np.ndarray]]]:
    """Return labels (N,) and the error of each guess (N,) by part, by the metric's name."""
    measured = {}
    for part, (images, labels) in private_images(inputs, data, target, evaluation).items():
        if owned is None or release is None:
            errors = yardsticks.constant_errors(images.numpy())
        else:
            scores = released(read_npy(inputs, "victims", f"scores_{part}.npy"), release)
            errors = yardsticks.look_up_errors(owned, images, scores.numpy())
        measured[part] = labels, {f"{guess}_mse": values for guess, values in errors.items()}
    return measured


def _of_classes(
    inputs: Inputs,
    data: Data,
    target: Target,
    judge: Judge,
    evaluation: Evaluation,
    owned: yardsticks.Owned | None,
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return labels (N,) and for each guess the squared distance to the class's mean training image and
    whether the evaluation model finds the class, (N,) each, by the metric's name."""
    private, device = inputs.datasets(data.dataset), inputs.world.device
    labels, _ = inferred_classes(target, evaluation)
    training = selection.target_images(private, data, target.classes, "train")
    seed = derive_seed("yardsticks", evaluation.seed)
    if owned is None:
        shape = (len(labels), *training.images.shape[1:])
        guesses = {"grey": np.full(shape, yardsticks.GREY / 255.0, dtype=np.float32)}
    else:
        guesses = yardsticks.class_guesses(owned, labels.numpy(), seed)
    num_classes = private.description.num_classes
    judging = stored_classifier(inputs, "judge", judge.model, num_classes, data, resizes=True)
    wanted = torch.tensor(selection.private_classes(private, data, target.classes))[labels]
    values: dict[str, np.ndarray] = {}
    for guess, images in guesses.items():
        found = is_among(predict(judging, torch.from_numpy(images), device), wanted)
        assert found is not None  # there are at least two classes
        means = yardsticks.class_errors(images, labels.numpy(), training.images, training.labels.numpy())
        values |= {f"yardstick_{guess}_mse": means, f"yardstick_{guess}_top1": found.numpy()}
    return labels, values


def _chances(inputs: Inputs, data: Data, target: Target) -> dict[str, float]:
    """Return how often the most frequent class is right on the test images of F and of the evaluation model,
    how many these are, and how often a recognition by chance is."""
    private = inputs.datasets(data.dataset)
    every = selection.class_counts(private, data, "evaluation")
    of_target = every[list(selection.private_classes(private, data, target.classes))]
    return {
        "yardstick/target_chance": float(of_target.max() / of_target.sum()),
        "yardstick/target_images": float(of_target.sum()),
        "yardstick/judge_chance": float(every.max() / every.sum()),
        "yardstick/judge_images": float(every.sum()),
        "yardstick/chance": 1.0 / len(every),
    }

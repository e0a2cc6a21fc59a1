"""Evaluation model: trained on every class of the private data set, never shown to an attack."""

from orchestrator.config import Data, Judge
from orchestrator.datasets import selection
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.stages.io import Inputs, Outputs, npy, trained
from orchestrator.stages.networks import (
    JUDGED_FEATURES,
    JUDGED_LABELS,
    features_of,
    new_classifier,
    start_from,
)
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs


def run(inputs: Inputs, data: Data, judge: Judge) -> Outputs:
    """Train the evaluation model and measure its accuracy on the evaluation part of every class.

    Its features of the `train` images, which are the target's, are kept: every evaluation compares
    reconstructions with some of them.
    """
    private = inputs.datasets(data.dataset)
    images = selection.judge_images(private, data, judge.images)
    network = new_classifier(judge.model, images.num_classes, data, judge.seed, resizes=True)
    if (public := inputs.weights("start")) is not None:
        start_from(network, public, str(judge.weights))
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), judge.recipe, judge.seed, inputs.world)
    outputs = trained("judge", network, fitted)
    if inputs.world.rank == 0:
        test = selection.judge_images(private, data, "evaluation")
        logits = predict(network, test.images, inputs.world.device)
        outputs.metrics["judge/accuracy"] = topk_accuracy(logits, test.labels, 1) or 0.0
        seen = selection.judge_images(private, data, "train")
        features = features_of(network, seen.images, inputs.world.device)
        outputs.files[JUDGED_FEATURES] = npy(features.flatten(1))
        outputs.files[JUDGED_LABELS] = npy(seen.labels)
    return outputs

"""Evaluation model: trained on every class of the private data set, or given; never shown to an attack."""

from orchestrator.config import Data, Judge
from orchestrator.datasets import Dataset, selection
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.models.classifier import Classifier
from orchestrator.models.public import whole
from orchestrator.stages.io import Inputs, Outputs, npy, tensors, trained
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
    """Train the evaluation model, or take it as given, and measure its accuracy on the evaluation part of
    every class; raise `ValueError` if that is lower than `minimum_accuracy`.

    Its features of the `train` images, which are the target's, are kept: every evaluation compares
    reconstructions with some of them.
    """
    private = inputs.datasets(data.dataset)
    network, outputs = (_trained if judge.trained else _given)(inputs, private, data, judge)
    if inputs.world.rank == 0:
        test = selection.judge_images(private, data, "evaluation")
        logits = predict(network, test.images, inputs.world.device)
        outputs.metrics["judge/accuracy"] = topk_accuracy(logits, test.labels, 1) or 0.0
        _check_accuracy(outputs.metrics["judge/accuracy"], judge)
        seen = selection.judge_images(private, data, "train")
        features = features_of(network, seen.images, inputs.world.device)
        outputs.files[JUDGED_FEATURES] = npy(features.flatten(1))
        outputs.files[JUDGED_LABELS] = npy(seen.labels)
    return outputs


def _trained(inputs: Inputs, private: Dataset, data: Data, judge: Judge) -> tuple[Classifier, Outputs]:
    images = selection.judge_images(private, data, judge.images)
    network = new_classifier(judge.model, images.num_classes, data, judge.seed, resizes=True)
    if (public := inputs.weights("start")) is not None:
        start_from(network, public, str(judge.weights))
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), judge.recipe, judge.seed, inputs.world)
    return network, trained("judge", network, fitted)


def _given(inputs: Inputs, private: Dataset, data: Data, judge: Judge) -> tuple[Classifier, Outputs]:
    public = inputs.weights("start")
    assert public is not None  # the plan has them
    classes = private.description.num_classes
    network: Classifier = new_classifier(judge.model, classes, data, judge.seed, resizes=True)
    network.load_state_dict(network.state_dict() | whole(network, public, name=str(judge.weights)))
    network.to(inputs.world.device)
    return network, Outputs({"model.safetensors": tensors(network.state_dict())}, {})


def _check_accuracy(reached: float, judge: Judge) -> None:
    if reached < judge.minimum_accuracy:
        raise ValueError(
            f"the judge of weights={judge.weights} reaches an accuracy of {reached:.3f} on the evaluation "
            f"images of every class, below minimum_accuracy={judge.minimum_accuracy}; check the order of the "
            "classes and model.scaling, or lower it."
        )

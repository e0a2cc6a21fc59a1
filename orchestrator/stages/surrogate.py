"""Surrogate: the adversary's own classifier, whose features an inverter's loss compares."""

from orchestrator.config import Auxiliary, Data, Release, Surrogate, Target
from orchestrator.stages.images import auxiliary_images
from orchestrator.stages.io import Inputs, Outputs, read_npy, trained
from orchestrator.stages.networks import new_classifier
from orchestrator.threat import released
from orchestrator.training.loop import fit
from orchestrator.training.objectives import distillation
from orchestrator.training.pairs import Pairs


def run(
    inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary, surrogate: Surrogate, release: Release
) -> Outputs:
    """Train a classifier on F's released answers to the auxiliary images."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    scores = released(read_npy(inputs, "predictions", "scores.npy"), release)
    network = new_classifier(surrogate.model, target.classes, data, surrogate.seed)
    pairs = Pairs(images, scores)
    fitted = fit(network, pairs, distillation(), surrogate.recipe, surrogate.seed, inputs.world)
    return trained("surrogate", network, fitted)

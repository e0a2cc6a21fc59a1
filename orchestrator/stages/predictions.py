"""Predictions: the target model's answers to the adversary's auxiliary images (AMI, section IV-A)."""

from orchestrator.attacks.class_count import class_count
from orchestrator.config import Auxiliary, Data, Release, Target
from orchestrator.datasets import selection
from orchestrator.datasets.gathered import Images
from orchestrator.stages.images import auxiliary_images, private_and_other
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.networks import answers
from orchestrator.stages.target_model import ask_ahead, stored_target
from orchestrator.threat import BlackBox
from orchestrator.training.loop import forward_batch


def run(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Outputs:
    """Query F once with every auxiliary image; full scores (N, k) are stored, truncated on reading."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    network = stored_target(inputs, data, target)
    ask_ahead(network, images)
    box = BlackBox(network, Release(), forward_batch(inputs.world.device))
    scores = answers(box, images)
    counted = class_count(scores.argmax(1))  # the top label is in every release
    metrics = {
        "predictions/images": float(len(images)),
        "predictions/classes_seen": float(counted.seen),
        "predictions/classes_chao1": counted.chao1,
        "predictions/shared_identities": float(_num_shared(inputs, data, auxiliary)),
        "attack/queries": float(box.num_queries),
    }
    return Outputs({"scores.npy": npy(scores)}, metrics, len(images))


def asked(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> list[Images]:
    """Return the images that F is asked for."""
    return [auxiliary_images(inputs, data, target, auxiliary)]


def _num_shared(inputs: Inputs, data: Data, auxiliary: Auxiliary) -> int:
    """Return how many private classes the adversary's own data set has too, by name."""
    private, other = private_and_other(inputs, data)
    is_public = auxiliary.kind in ("generic", "augmented")
    return len(selection.shared_identities(private, other, data)) if is_public and other else 0

"""Shield: F's answers as a shield moves them (SSD), kept in full like those that it moves.

Other stages read them in place of `predictions` and `victims` and truncate them on reading. A search that
asks the service itself reads the class means and moves each answer alike.
"""

import torch
from torch import Tensor, nn

from orchestrator.config import Auxiliary, Data, Evaluation, Shield, Target
from orchestrator.datasets import selection
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.selection import ImageSet
from orchestrator.defenses.shield import Mover, class_means, mover
from orchestrator.stages.images import auxiliary_images, fitted_images, held_out_images, private_images
from orchestrator.stages.io import Inputs, Outputs, npy, read_npy
from orchestrator.stages.networks import QUERY_BATCH
from orchestrator.stages.target_model import stored_target
from orchestrator.training.loop import predict
from orchestrator.training.pairs import concatenated

MEANS = "means.npy"


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    shield: Shield,
    auxiliary: Auxiliary | None = None,
    evaluation: Evaluation | None = None,
) -> Outputs:
    """Move the stored answers, and those to the test images to see how many labels stay right.

    An adversary without images has no answers that are stored, class inference none to private images.
    """
    network = stored_target(inputs, data, target)
    means = _means(inputs, data, target, shield, network)
    moves, files = mover(shield, means), {MEANS: npy(means)}
    if auxiliary is not None:
        images = auxiliary_images(inputs, data, target, auxiliary)
        files["scores.npy"] = npy(_moved(moves, images, read_npy(inputs, "predictions", "scores.npy")))
    parts = private_images(inputs, data, target, evaluation) if evaluation else {}
    for part, (images, _) in parts.items():
        name = f"scores_{part}.npy"
        files[name] = npy(_moved(moves, images, read_npy(inputs, "victims", name)))
    test = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "evaluation")
    answered = _moved(moves, test.images, predict(network, test.images, inputs.world.device).softmax(1))
    metrics = {"shield/accuracy": (answered.argmax(1) == test.labels).double().mean().item()}
    return Outputs(files, metrics, len(test))


def _moved(moves: Mover, images: Images, scores: Tensor) -> Tensor:
    """Return the scores (N, k) of images (N, C, S, S) uint8, moved a part at a time."""
    pairs = zip(images.split(QUERY_BATCH), scores.split(QUERY_BATCH), strict=True)
    return concatenated((moves(batch, answers) for batch, answers in pairs), len(scores))


def _means(inputs: Inputs, data: Data, target: Target, shield: Shield, network: nn.Module) -> Tensor:
    """Return the mean answer to each class, float32 (k, k)."""

    def of(images: ImageSet) -> tuple[Tensor, Tensor]:
        return class_means(predict(network, images.images, inputs.world.device).softmax(1), images.labels)

    means, _ = of(fitted_images(inputs, data, target))
    if shield.means == "held-out":
        held, counts = of(held_out_images(inputs, data, target))
        means = torch.where((counts > 0)[:, None], held, means)
    return means.float()

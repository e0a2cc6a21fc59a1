"""Private scores: the target model's full scores of its own training and test images (stage `victims`)."""

from orchestrator.config import Data, Evaluation, Target
from orchestrator.datasets.gathered import Images
from orchestrator.stages.images import private_images
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.target_model import ask_ahead, stored_target
from orchestrator.threat import as_scores
from orchestrator.training.loop import predict


def run(inputs: Inputs, data: Data, target: Target, evaluation: Evaluation) -> Outputs:
    """Record what the service will release parts of: scores float32 (N, k) of each part."""
    files, seen = {}, 0
    network = stored_target(inputs, data, target)
    for part, (images, _) in private_images(inputs, data, target, evaluation).items():
        ask_ahead(network, images)
        outputs = predict(network, images, inputs.world.device)
        files[f"scores_{part}.npy"] = npy(as_scores(network, outputs))
        seen += len(images)
    return Outputs(files, {}, seen)


def asked(inputs: Inputs, data: Data, target: Target, evaluation: Evaluation) -> list[Images]:
    """Return the images that F is asked for."""
    return [images for images, _ in private_images(inputs, data, target, evaluation).values()]

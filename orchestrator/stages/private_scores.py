"""Private scores: the target model's full scores of its own training and test images (stage `victims`)."""

from orchestrator.config import Data, Evaluation, Target
from orchestrator.stages.images import private_images
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.target_model import stored_target
from orchestrator.training.loop import predict


def run(inputs: Inputs, data: Data, target: Target, evaluation: Evaluation) -> Outputs:
    """Record what the service will release parts of: scores float32 (N, k) of each part."""
    files, seen = {}, 0
    network = stored_target(inputs, data, target)
    for part, (images, _) in private_images(inputs, data, target, evaluation).items():
        files[f"scores_{part}.npy"] = npy(predict(network, images, inputs.world.device).softmax(1))
        seen += len(images)
    return Outputs(files, {}, seen)

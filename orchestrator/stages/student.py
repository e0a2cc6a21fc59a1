"""Student: the adversary's copy of F, distilled on the prior's public images (Nguyen et al., CVPR 2023).

The loss is KL(softmax F || softmax S), but for the entropy of F's scores, which no weight of S changes: the
cross-entropy against them.
"""

from orchestrator.config import Data, Student
from orchestrator.stages.images import public_images
from orchestrator.stages.io import Inputs, Outputs, read_npy, trained
from orchestrator.stages.networks import new_classifier, start_from
from orchestrator.training.loop import fit
from orchestrator.training.objectives import distillation
from orchestrator.training.pairs import Pairs


def run(inputs: Inputs, data: Data, student: Student) -> Outputs:
    """Train a classifier on F's full scores, which were asked for once.

    `data`: the settings of the public images.
    """
    scores = read_npy(inputs, "answers", "scores.npy")
    network = new_classifier(student.model, scores.shape[1], data, student.seed)
    if (public := inputs.weights("start")) is not None:
        start_from(network, public, str(student.weights))
    pairs = Pairs(public_images(inputs, data), scores)
    fitted = fit(network, pairs, distillation(), student.recipe, student.seed, inputs.world)
    return trained("student", network, fitted)

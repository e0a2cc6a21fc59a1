"""Reconstructions: the inverter's image of everything that is attacked, kept whole.

Whoever asks for a judge or a metric later reads these and rebuilds no attack. A search leaves its images
itself, in files of the same names.
"""

from orchestrator.config import Attack, Data, Evaluation, Release, Target
from orchestrator.metrics.names import CLASS
from orchestrator.stages.images import attacked_scores, made_file
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.networks import grey_unless, inverted, made_classes
from orchestrator.training.pairs import as_stored


def run(
    inputs: Inputs, data: Data, target: Target, attack: Attack, release: Release, evaluation: Evaluation
) -> Outputs:
    """Reconstruct all attacked images, or classes, and keep the images (N, C, S, S) as uint8, rounded.

    `evaluation` measures the same images before they are rounded; row i of both is the same image. Where the
    adversary makes no image of some classes, a file names those that it makes.
    """
    parts, m = attacked_scores(inputs, target, release, evaluation)
    images = {part: inverted(inputs, data, target, attack, scores, m) for part, scores in parts.items()}
    files = {}
    if CLASS in images:
        is_made = made_classes(inputs, attack, parts[CLASS].argmax(1))
        images[CLASS] = grey_unless(is_made, images[CLASS])
        files = {} if is_made is None else {made_file(CLASS): npy(is_made)}
    files |= {f"reconstructions_{part}.npy": npy(as_stored(made)) for part, made in images.items()}
    return Outputs(files, {}, sum(map(len, images.values())))

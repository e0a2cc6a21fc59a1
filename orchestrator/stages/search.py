"""Search: an image for each prediction or class by the target's gradient (AMI, section II-B; stage
`optimization`)."""

from functools import partial

import torch

from orchestrator.attacks import SEARCHED
from orchestrator.attacks.sharded_search import search_all
from orchestrator.config import Data, Evaluation, MiaAttack, OptimizationAttack, Release, Target
from orchestrator.stages.io import Inputs, Outputs, npy, read_npy
from orchestrator.stages.target_model import stored_target
from orchestrator.threat import WhiteBox, released, released_length


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: MiaAttack | OptimizationAttack,
    release: Release,
    evaluation: Evaluation,
) -> Outputs:
    """Search an image for each released prediction of private images, or for each class."""
    box = WhiteBox(stored_target(inputs, data, target))
    shape = (data.channels, data.image_size, data.image_size)
    if evaluation.task == "class-inference":
        parts, m = {"class": torch.eye(target.classes)}, 1
    else:
        full = {part: read_npy(inputs, "victims", f"scores_{part}.npy") for part in ("train", "test")}
        parts = {part: released(scores, release) for part, scores in full.items()}
        m = released_length(target.classes, release)
    search = partial(SEARCHED[attack.name], attack, box, m=m, shape=shape)
    scores = torch.cat(list(parts.values()))
    result = search_all(search, scores, inputs.world)
    sizes = [len(part) for part in parts.values()]
    images = result.images.mul(255).round().to(torch.uint8).split(sizes)
    files = {f"reconstructions_{part}.npy": npy(made) for part, made in zip(parts, images, strict=True)}
    metrics = {
        "optimization/steps": result.steps.double().mean().item(),
        "optimization/cost": result.costs.double().mean().item(),
        "attack/queries": float((result.steps + 1).sum()),  # and one of the last image
    }
    return Outputs(files, metrics, len(scores))

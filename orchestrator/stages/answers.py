"""Answers: F's scores of the prior's public images and the mean of its features, for attacks that distil F or
hold its features near their mean (LOMMA)."""

import torch
from torch import Tensor

from orchestrator.config import Data, Target
from orchestrator.stages.images import public_images
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.networks import MEAN_FEATURES
from orchestrator.stages.target_model import stored_target
from orchestrator.threat import FeatureBox
from orchestrator.training.loop import forward_batch
from orchestrator.training.pairs import Rows, as_unit
from orchestrator.training.seeds import derive_seed

AVERAGED = 5050
"""Images whose features are averaged, at most: LOMMA's 101 batches of 50."""


def run(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Query F once with every public image; leave full scores (N, k) and the mean feature (d,).

    `data`: the settings of the public images.
    """
    images = public_images(inputs, data)
    box = FeatureBox(stored_target(inputs, data, target))
    scores, mean = asked(box, images, forward_batch(inputs.world.device))
    metrics = {"answers/images": float(len(images)), "answers/queries": float(box.num_queries)}
    return Outputs({"scores.npy": npy(scores), MEAN_FEATURES: npy(mean)}, metrics, len(images))


def asked(box: FeatureBox, images: Rows, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return scores, float32 (N, k), of images (N, C, S, S) uint8, and the mean of the features, float32
    (d,), of `AVERAGED` of them at most, drawn at random."""
    chosen, scores, total, start = _chosen(len(images)), [], torch.zeros(1, dtype=torch.float64), 0
    with torch.no_grad():
        for batch in images.split(batch_size):
            logits, features = box.answers(as_unit(batch.to(box.device)))
            scores.append(logits.softmax(dim=1).cpu())
            total = total + features.cpu()[chosen[start : start + len(batch)]].double().sum(dim=0)
            start += len(batch)
    return torch.cat(scores), (total / chosen.sum()).float()


def _chosen(num_images: int) -> Tensor:
    """Return which images are averaged, bool (N,)."""
    drawn = torch.Generator().manual_seed(derive_seed("answers", "averaged"))
    is_chosen = torch.zeros(num_images, dtype=torch.bool)
    is_chosen[torch.randperm(num_images, generator=drawn)[:AVERAGED]] = True
    return is_chosen

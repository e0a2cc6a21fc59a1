"""Recognition: a recogniser that others trained accepts or refuses the stored reconstructions by distance.

It knows each class by the target's training images, and finds its threshold on real photographs of these
classes, whose descriptors every trial shares. So it needs no training, no attack and no other judge.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from orchestrator.config import Data, Evaluation, Recogniser, Target
from orchestrator.datasets import selection
from orchestrator.metrics.names import CLASS
from orchestrator.metrics.recognition import Calibration, calibrate, class_distances, false_positives, ranks
from orchestrator.stages.images import evaluated, parts_of, stored_reconstructions
from orchestrator.stages.io import Inputs, Outputs, read_npy
from orchestrator.stages.measuring import Values, as_failures, outputs_of
from orchestrator.stages.networks import described, descriptor_files, stored_recogniser
from orchestrator.training.seeds import derive_seed


def run(
    inputs: Inputs, data: Data, target: Target, recogniser: Recogniser, evaluation: Evaluation
) -> Outputs:
    """Measure which reconstructions the recogniser accepts as their person, and which person is nearest."""
    recognised = _Recognition(inputs, data, target)
    calibration, accuracy = _calibrated(recognised, target, recogniser)
    calibrated = {
        "recogniser/accuracy": accuracy,
        "recogniser/threshold": calibration.threshold,
        "recogniser/false_accepts": calibration.false_accepts,
        "recogniser/false_rejects": calibration.false_rejects,
    }
    measured = []
    for part in parts_of(evaluation):
        (images, is_made), first = stored_reconstructions(inputs, part), evaluated(inputs, part)
        labels = torch.from_numpy(first["label"].astype(np.int64))
        found = recognised.values(images, labels, calibration.threshold)
        values = as_failures(found, is_made, target.classes)
        judged = torch.from_numpy(first["judge_top1" if part == CLASS else "accuracy_top1"].copy())
        share = false_positives(judged, values["recogniser_accepted"])
        totals = {} if share is None else {"false_positives": share}
        measured.append(Values(part, labels, values, totals))
    outputs = outputs_of(measured)
    outputs.metrics.update(calibrated)
    return outputs


class _Recognition:
    """Distances of images to the target's classes, by the descriptors that photographs have."""

    def __init__(self, inputs: Inputs, data: Data, target: Target) -> None:
        self._network, self._device = stored_recogniser(inputs), inputs.world.device
        self._classes = target.classes
        self._original = selection.private_classes(inputs.datasets(data.dataset), data, target.classes)
        self._inputs = inputs
        self._references, self._labels = self.photographs("train")

    def photographs(self, part: str) -> tuple[Tensor, Tensor]:
        """Return descriptors (N, d) of one part of the target's classes, and their labels (N,), 0..k-1."""
        descriptors, labels = (read_npy(self._inputs, "descriptors", name) for name in descriptor_files(part))
        place = torch.full((int(labels.max()) + 1,), -1)
        place[torch.tensor(self._original)] = torch.arange(self._classes)
        is_private = place[labels] >= 0
        return descriptors[is_private], place[labels][is_private]

    def distances(self, descriptors: Tensor) -> Tensor:
        """Return distances of descriptors (N, d) to each class, (N, k)."""
        return class_distances(descriptors, self._references, self._labels, self._classes)

    def values(self, images: Tensor, labels: Tensor, threshold: float) -> Mapping[str, Tensor]:
        """Return metric -> (N,) of images (N, C, S, S) that should show classes (N,)."""
        distances = self.distances(described(self._network, images, self._device))
        rank = ranks(distances, labels)
        accepted = distances.gather(1, labels[:, None])[:, 0] <= threshold
        return {
            "recogniser_accepted": accepted.double(),
            "recogniser_top1": (rank == 1).double(),
            "recogniser_rank": rank,
        }


def _calibrated(
    recognised: _Recognition, target: Target, recogniser: Recogniser
) -> tuple[Calibration, float]:
    """Return the threshold with its errors, and the share of test photographs whose own person is nearest."""
    descriptors, labels = recognised.photographs("evaluation")
    generator = torch.Generator().manual_seed(derive_seed("recognition", recogniser.seed))
    chosen = torch.randperm(len(labels), generator=generator)[: recogniser.pairs]
    steps = torch.randint(1, target.classes, (len(chosen),), generator=generator)
    distances, labels = recognised.distances(descriptors[chosen]), labels[chosen]
    own, others = (
        distances.gather(1, which[:, None])[:, 0] for which in (labels, (labels + steps) % target.classes)
    )
    accuracy = float((ranks(distances, labels) == 1).double().mean())
    return calibrate(own, others), accuracy

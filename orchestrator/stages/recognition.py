"""Recognition: a recogniser that others trained accepts or refuses the stored reconstructions by distance.

It sees the target's training images as pictures of each class, and finds its threshold on real photographs of
these classes. So it needs no training, no attack and no other judge.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from orchestrator.config import Data, Evaluation, Recogniser, Target
from orchestrator.datasets import selection
from orchestrator.datasets.gathered import Images, at
from orchestrator.metrics.names import CLASS, METRICS, per_image_file
from orchestrator.metrics.perceptual import features_of
from orchestrator.metrics.recognition import Calibration, calibrate, class_distances, false_positives, ranks
from orchestrator.models.face_descriptor import SIDE, FaceDescriptor, face_descriptor
from orchestrator.stages.images import parts_of, stored_reconstructions
from orchestrator.stages.io import Inputs, Outputs, npy, per_image
from orchestrator.training.seeds import derive_seed


def run(
    inputs: Inputs, data: Data, target: Target, recogniser: Recogniser, evaluation: Evaluation
) -> Outputs:
    """Measure which reconstructions the recogniser accepts as their person, and which person is nearest."""
    recognised = _Recognition(inputs, data, target)
    calibration, accuracy = _calibrated(recognised, inputs, data, target, recogniser)
    metrics = {
        "recogniser/accuracy": accuracy,
        "recogniser/threshold": calibration.threshold,
        "recogniser/false_accepts": calibration.false_accepts,
        "recogniser/false_rejects": calibration.false_rejects,
    }
    files: dict[str, bytes] = {}
    images_seen = 0
    for part in parts_of(evaluation):
        images, first = stored_reconstructions(inputs, part)
        labels = torch.from_numpy(first["label"].astype(np.int64))
        values = recognised.values(images, labels, calibration.threshold)
        judged = torch.from_numpy(first["judge_top1" if part == CLASS else "accuracy_top1"].copy())
        means = {name: float(value.mean()) for name, value in values.items()}
        share = false_positives(judged, values["recogniser_accepted"])
        means |= {} if share is None else {"false_positives": share}
        metrics |= {str(METRICS[name].on(part)): value for name, value in means.items()}
        files[per_image_file(part)] = npy(per_image(labels, values))
        images_seen += len(labels)
    return Outputs(files, metrics, images_seen)


class _Recognition:
    """Distances of images to the target's classes, whose descriptors are computed once."""

    def __init__(self, inputs: Inputs, data: Data, target: Target) -> None:
        weights = inputs.weights("recogniser")
        assert weights is not None  # the plan has them
        self._device, self._classes = inputs.world.device, target.classes
        self._network: FaceDescriptor = face_descriptor(weights).to(self._device)
        known = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "train")
        self._references, self._labels = self._descriptors(known.images), known.labels

    def distances(self, images: Images) -> Tensor:
        """Return distances of images (N, C, S, S) to each class, (N, k)."""
        return class_distances(self._descriptors(images), self._references, self._labels, self._classes)

    def values(self, images: Tensor, labels: Tensor, threshold: float) -> Mapping[str, Tensor]:
        """Return metric -> (N,) of images (N, C, S, S) that should show classes (N,)."""
        distances = self.distances(images)
        rank = ranks(distances, labels)
        accepted = distances.gather(1, labels[:, None])[:, 0] <= threshold
        return {
            "recogniser_accepted": accepted.double(),
            "recogniser_top1": (rank == 1).double(),
            "recogniser_rank": rank,
        }

    def _descriptors(self, images: Images) -> Tensor:
        return features_of(self._network, images, SIDE, self._device, normalise="descriptor")


def _calibrated(
    recognised: _Recognition, inputs: Inputs, data: Data, target: Target, recogniser: Recogniser
) -> tuple[Calibration, float]:
    """Return the threshold with its errors, and the share of test photographs whose own person is nearest."""
    private = inputs.datasets(data.dataset)
    photographs = selection.target_images(private, data, target.classes, "evaluation")
    generator = torch.Generator().manual_seed(derive_seed("recognition", recogniser.seed))
    chosen = torch.randperm(len(photographs), generator=generator)[: recogniser.pairs]
    labels = photographs.labels[chosen]
    steps = torch.randint(1, target.classes, (len(chosen),), generator=generator)
    distances = recognised.distances(at(photographs.images, chosen))
    own, others = (
        distances.gather(1, which[:, None])[:, 0] for which in (labels, (labels + steps) % target.classes)
    )
    accuracy = float((ranks(distances, labels) == 1).double().mean())
    return calibrate(own, others), accuracy

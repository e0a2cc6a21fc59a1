"""Measuring reconstructions: against the target's private images, or one image for each class.

Values are kept for each image with its class, because the class (the identity) is the unit of resampling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.classification import is_among
from orchestrator.metrics.names import CLASS, METRICS, per_image_file
from orchestrator.metrics.pictures import encode_png, pair_grid
from orchestrator.metrics.reconstruction import PIXEL_METRICS
from orchestrator.stages.io import Outputs, npy, per_image
from orchestrator.stages.similarity import FeatureSimilarity
from orchestrator.training.pairs import as_stored, as_unit


@dataclass(frozen=True, eq=False)
class Values:
    """What was measured of the images of one part."""

    part: str  # train, test or class
    labels: Tensor  # (N,) int64, the target's classes 0..k-1
    values: Mapping[str, Tensor]  # metric -> (N,)
    totals: Mapping[str, float]  # metric -> its value for all images together

    @property
    def metrics(self) -> dict[str, float]:
        """Return full metric names with means over images, and the values for all images together."""
        means = {name: float(value.double().mean()) for name, value in self.values.items()}
        return {str(METRICS[name].on(self.part)): value for name, value in {**means, **self.totals}.items()}

    @property
    def table(self) -> dict[str, bytes]:
        """Return the file with the values of every image."""
        return {per_image_file(self.part): npy(per_image(self.labels, self.values))}


def outputs_of(measured: Sequence[Values]) -> Outputs:
    """Return what a stage leaves that measures parts and has nothing to show."""
    files = {name: content for one in measured for name, content in one.table.items()}
    metrics = {name: value for one in measured for name, value in one.metrics.items()}
    return Outputs(files, metrics, sum(len(one.labels) for one in measured))


@dataclass(frozen=True, eq=False)
class MeasuredPart(Values):
    """One part of the reconstructions with what was measured of them."""

    originals: Tensor  # private images (N, C, S, S) uint8
    reconstructions: Tensor  # (N, C, S, S) in [0, 1]

    def files(self, num_shown: int) -> dict[str, bytes]:
        """Return the values of every image, and the first images themselves beside their originals."""
        originals = self.originals[:num_shown]
        shown = as_stored(self.reconstructions[:num_shown])
        return {
            f"grid_{self.part}.png": encode_png(pair_grid(originals, shown)),
            f"reconstructions_{self.part}.npy": npy(shown),
            f"victims_{self.part}.npy": npy(originals),
            **self.table,
        }


@dataclass(frozen=True, eq=False)
class Attacked:
    """Reconstructions with the outputs of the target and of the evaluation model on them."""

    reconstructions: Tensor  # (N, C, S, S) in [0, 1]
    labels: Tensor  # (N,) int64, the target's class that each one should show
    scores: Tensor | None  # (N, k) of the target, in [0, 1]; None where it is not asked for them
    features: Tensor  # (N, d) of the evaluation model, its head's input
    logits: Tensor  # (N, K) of the evaluation model
    classes: Tensor  # (k,) int64, the evaluation model's class of each label

    @property
    def target_confidence(self) -> dict[str, Tensor]:
        """Return `target_confidence`, (N,): F's score of the class; nothing where F is not asked."""
        if self.scores is None:
            return {}
        return {"target_confidence": self.scores.gather(1, self.labels[:, None])[:, 0]}

    @property
    def target_top1(self) -> dict[str, Tensor]:
        """Return `target_top1`, (N,) of 0 and 1: whether F finds the class; nothing where F is not asked."""
        return {} if self.scores is None else {"target_top1": (self.scores.argmax(1) == self.labels).float()}

    def judged(self, name: str) -> dict[str, Tensor]:
        """Return `name_top1` and `name_top5`, (N,) of 0 and 1: whether the evaluation model finds the class.

        Top 5 is left out where it has five classes or fewer.
        """
        return accepted(name, self.logits, self.classes[self.labels])


def accepted(name: str, logits: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Return `name_top1` and `name_top5`, (N,) of 0 and 1: whether a judge with these logits (N, K) finds the
    wanted classes (N,). Top 5 is left out where it has five classes or fewer."""
    judged = {f"{name}_top{k}": is_among(logits, wanted, k) for k in (1, 5)}
    return {metric: values for metric, values in judged.items() if values is not None}


def as_failures(values: Mapping[str, Tensor], is_made: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Return values (N,) by metric with those of failures where `is_made`, bool (N,), is False: 0 where a
    higher value leaks more, and the last rank among `num_classes` classes."""
    worst = {name: 0.0 for name in values if METRICS[name].leaks == "up"}
    worst |= {name: float(num_classes) for name in values if name.endswith("_rank")}
    return {**values, **{name: torch.where(is_made, values[name], worst[name]) for name in worst}}


def measure_images(
    part: str, originals: Tensor, attacked: Attacked, similarity: FeatureSimilarity
) -> MeasuredPart:
    """Compare reconstructions with their originals (N, C, S, S) uint8 and with all private images of the
    class.

    `target_confidence` is P_T of TL-DMI, section D.2. Raise `ValueError` if the shapes differ or a class has
    no private image.
    """
    reconstructions, labels = attacked.reconstructions, attacked.labels
    truth = as_unit(originals)
    values = {name: measure(truth, reconstructions) for name, measure in PIXEL_METRICS.items()}
    values |= attacked.judged("accuracy")
    values |= attacked.target_confidence
    values |= similarity.of_images(reconstructions, attacked.features, labels)
    totals = similarity.of_all(reconstructions, labels)
    return MeasuredPart(part, labels, values, totals, originals, reconstructions)


def measure_classes(
    private: ImageSet, attacked: Attacked, similarity: FeatureSimilarity, is_made: Tensor | None = None
) -> MeasuredPart:
    """Compare the image of each class with F's training images of it, and record whether the target and the
    evaluation model accept it (AMI, scenario 2).

    A class may have several images, or none. Where `is_made`, bool (N,), is False the adversary made none:
    nobody accepts the constant image that stands for it, however it is classified. Raise `ValueError` if a
    class has no private image.
    """
    reconstructions, labels = attacked.reconstructions, attacked.labels
    nearest, means, typical = _distances(private, reconstructions, labels)
    values: dict[str, Tensor] = {
        "mse_mean": means,
        "mse_nearest": nearest,
        **attacked.target_top1,
        **attacked.target_confidence,
    }
    values |= attacked.judged("judge")
    values |= similarity.of_images(reconstructions, attacked.features, labels)
    if is_made is not None:
        values |= as_failures(values, is_made, attacked.logits.shape[1])
    totals = similarity.of_all(reconstructions, labels)
    return MeasuredPart(CLASS, labels, values, totals, typical, reconstructions)


def _distances(private: ImageSet, reconstructions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each image of a class, labels (N,), the squared distance to the class's nearest training
    image and to its mean image, (N,) each, and the private image that is closest to the mean, (N, C, S, S)
    uint8."""
    nearest, means, typical = [], [], []
    for label, reconstruction in zip(labels, reconstructions, strict=True):
        stored = private.images[private.labels == label]
        images = as_unit(stored)
        mean = images.mean(dim=0)
        nearest.append((images - reconstruction).square().flatten(1).mean(1).min())
        means.append((mean - reconstruction).square().mean())
        typical.append(stored[(images - mean).square().flatten(1).mean(1).argmin()])
    return torch.stack(nearest), torch.stack(means), torch.stack(typical)

"""Feature metrics: distances and overlap of reconstructions and private images in a network's features.

Features are (N, d) float on the CPU: the evaluation model's penultimate ones, FaceNet's or Inception-v3's.
`found` are those of reconstructions, `private` (`real` where there are no classes) those of the target's
training images. A distance has one value for each reconstruction, because the class (the identity) is the
unit of resampling.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from orchestrator.training.pairs import Rows


@dataclass(frozen=True)
class Overlap:
    """How far two sets of features cover each other; higher means more leaks."""

    precision: float
    """Share in [0, 1] of found images inside the real ones' manifold (Kynkaanniemi et al. 2019, Eq. 1-2)."""

    recall: float
    """Share in [0, 1] of real images inside the found ones' manifold (Kynkaanniemi et al. 2019, Eq. 1-2)."""

    density: float
    """Mean number of real images' balls around a found image, over k; >= 0, may exceed 1 (Naeem et al.
    2020)."""

    coverage: float
    """Share in [0, 1] of real images with a found one inside their ball (Naeem et al. 2020)."""


def knn_distance(found: Tensor, found_labels: Tensor, private: Tensor, private_labels: Tensor) -> Tensor:
    """Return the smallest squared l2 distance to a private image of the same class, (N,) float64; lower means
    more leaks.

    In the evaluation model's penultimate features it is the papers' KNN dist or delta_EvalNet, in FaceNet's
    delta_FaceNet. found (N, d), private (M, d), labels (N,) and (M,) int64. Raise `ValueError` if a class has
    no private image.
    """
    return by_class(
        lambda some, others: _distances(some, others).square().amin(dim=1),
        found,
        found_labels,
        private,
        private_labels,
    )


def centroid_distance(found: Tensor, found_labels: Tensor, private: Tensor, private_labels: Tensor) -> Tensor:
    """Return the l2 distance (not squared) to the mean of the class's private features, (N,) float64; lower
    means more leaks. Arguments and errors are those of `knn_distance`."""
    return by_class(
        lambda some, others: _distances(some, others.double().mean(dim=0, keepdim=True))[:, 0],
        found,
        found_labels,
        private,
        private_labels,
    )


FEATURE_DISTANCES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "knn_distance": knn_distance,
    "centroid_distance": centroid_distance,
    "delta_facenet": knn_distance,
}
"""Metric -> its function, in the features of the network that it `needs` or else of the evaluation model."""


def frechet_distance(real: Tensor, found: Tensor) -> float:
    """Return the Frechet distance of feature sets (N, d) and (M, d), FID for Inception-v3's; >= 0, lower
    means more leaks.

    NaN if either set has fewer than two images: it has no covariance. Fewer images give larger values, so
    compare only sets of one size.
    """
    if min(len(real), len(found)) < 2:
        return math.nan
    from torchmetrics.image.fid import FrechetInceptionDistance  # here: 100 MiB, and few studies measure it

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(found.double(), real=False)
    return max(0.0, float(metric.compute()))  # the eigenvalues' rounding puts a set at -0.001 from itself


def precision_recall_density_coverage(real: Tensor, found: Tensor, *, k: int = 3) -> Overlap:
    """Return how private images (N, d) and reconstructions (M, d) of a class overlap; k = 3 as in PPA
    (Struppek 2022).

    A ball reaches from an image to its k-th nearest neighbour in its own set, its surface included, so a set
    has density (k + 1) / k with itself. Recall is NaN for k or fewer found images: they have no balls. Raise
    `ValueError` for k or fewer real images, or none found.
    """
    if len(real) <= k or not len(found):
        raise ValueError(
            f"{len(real)} real and {len(found)} found images are too few: k={k} needs at least {k + 1} real "
            "ones and one found; leave the class out."
        )
    distances = _distances(real, found)
    is_near_real = distances <= _radii(real, k)[:, None]  # (real, found)
    recall = math.nan
    if len(found) > k:
        recall = float((distances <= _radii(found, k)).any(dim=1).double().mean())
    return Overlap(
        precision=float(is_near_real.any(dim=0).double().mean()),
        recall=recall,
        density=float(is_near_real.sum()) / (k * len(found)),
        coverage=float(is_near_real.any(dim=1).double().mean()),
    )


def overlap_by_class(
    found: Tensor, found_labels: Tensor, private: Tensor, private_labels: Tensor, *, k: int = 3
) -> dict[int, Overlap]:
    """Return class -> overlap for each class with at least k + 1 private images and one found image."""
    overlaps = {}
    for label in found_labels.unique().tolist():
        real = private[private_labels == label]
        if len(real) > k:
            overlaps[label] = precision_recall_density_coverage(real, found[found_labels == label], k=k)
    return overlaps


def set_metrics(found: Tensor, labels: Tensor, private: Tensor, private_labels: Tensor) -> dict[str, float]:
    """Return FID and the classes' mean overlap by metric, without those that too few images leave undefined.

    Of Inception-v3's features (N, d) and (M, d) with labels (N,) and (M,) int64. FID compares with all
    private images of the classes in `labels`.
    """
    real = private[torch.isin(private_labels, labels)]
    overlap = mean_overlap(overlap_by_class(found, labels, private, private_labels).values())
    values = {"fid": frechet_distance(real, found)} | asdict(overlap)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def mean_overlap(overlaps: Iterable[Overlap]) -> Overlap:
    """Average over classes, each measure over those where it is defined; NaN where there is none."""
    classes = list(overlaps)
    means = {}
    for field in fields(Overlap):
        values = torch.tensor([getattr(one, field.name) for one in classes], dtype=torch.float64)
        means[field.name] = float(values.nanmean())
    return Overlap(**means)


def by_class(
    measure: Callable[[Tensor, Tensor], Tensor],
    found: Tensor,
    found_labels: Tensor,
    private: Rows,
    private_labels: Tensor,
) -> Tensor:
    """Return the values of `measure` for every reconstruction, (N,) float64.

    `measure` gets the reconstructions of one class (n, ...) and its private images (m, ...) and returns (n,).
    Raise `ValueError` if a class has no private image.
    """
    values = torch.empty(len(found), dtype=torch.float64)
    for label in found_labels.unique().tolist():
        references = private[private_labels == label]
        if not len(references):
            raise ValueError(
                f"found_labels has class {label}, of which there is no private image to compare with; "
                "label reconstructions with the target's classes."
            )
        members = found_labels == label
        values[members] = measure(found[members], references).double()
    return values


class _Given(nn.Module):
    """Identity in place of the library's Inception network: its inputs are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _distances(some: Tensor, others: Tensor) -> Tensor:
    """Return all l2 distances, (n, m) float64, by subtraction: the shortcut by products makes equal rows
    differ."""
    return torch.cdist(some.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _radii(features: Tensor, k: int) -> Tensor:
    """Return each row's distance to its k-th nearest neighbour, (N,); the very nearest is the row itself."""
    return _distances(features, features).kthvalue(k + 1, dim=1).values

"""Retrieval: how near a reconstruction is to its own private image, among private images and among classes.

Recognition by class asks whether a reconstruction shows the right class, which a released label alone gives
away. Retrieval asks whether it is nearer to the very image than to others of the class: an image that depends
on the label alone is at chance there.
"""

import torch
from torch import Tensor

from orchestrator.datasets.gathered import Images

BATCH = 1024  # rows of features whose distances to all references are held at a time
FEW = 128  # images that are made float64 at a time
EQUAL = (
    1e-9  # distances that differ by less of themselves are equal: float64 sums differ in their last digits
)

MEASURES = ("rank", "nearer", "top1", "chance")
"""What `own_image` measures."""


def own_image(
    queries: Tensor, labels: Tensor, own: Tensor, gallery: Images, classes: Tensor
) -> dict[str, Tensor]:
    """Return where the own private image stands among those of its class by squared distance to its
    reconstruction, measure -> (N,) float64.

    queries (N, ...) are reconstructions, labels (N,) their classes, own (N,) the places of their private
    images in the gallery (M, ...) with classes (M,), of one scale. `rank`: 1 is the nearest of the class's n
    images; `nearer`: share of the n - 1 others that are nearer, chance 0.5; `top1`: whether none is;
    `chance`: 1 / n, that of `top1`. Equally near images take their places by lot, and the values are expected
    ones. NaN where n is 1.
    """
    measures = {name: torch.full((len(queries),), torch.nan, dtype=torch.float64) for name in MEASURES}
    for label in labels.unique():
        rows, members = (labels == label).nonzero()[:, 0], (classes == label).nonzero()[:, 0]
        if len(members) < 2:
            continue
        for part in rows.split(FEW):
            asked = queries[part].flatten(1).double()
            known = (gallery[few].flatten(1).double() for few in members.split(FEW))
            distances = torch.cat([squared_distances(asked, references) for references in known], dim=1)
            is_own = members == own[part, None]
            to_own = (distances * is_own).sum(dim=1, keepdim=True)
            is_equal = ((distances - to_own).abs() <= EQUAL * (1.0 + to_own)) & ~is_own
            nearer = ((distances < to_own) & ~is_equal & ~is_own).sum(dim=1).double()
            equal = is_equal.sum(dim=1).double()
            measures["rank"][part] = 1.0 + nearer + equal / 2
            measures["nearer"][part] = (nearer + equal / 2) / (len(members) - 1)
            measures["top1"][part] = (nearer == 0).double() / (1.0 + equal)
            measures["chance"][part] = 1.0 / len(members)
    return measures


def class_rank(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the rank of the wanted class (N,) among logits (N, K), (N,) float64; 1 is the largest, lower
    leaks more. Of equal logits the lower class counts as larger."""
    own = logits.gather(1, wanted[:, None])
    is_before = torch.arange(logits.shape[1]) < wanted[:, None]
    return 1.0 + ((logits > own) | ((logits == own) & is_before)).sum(dim=1).double()


def nearest_class(queries: Tensor, references: Tensor, classes: Tensor) -> Tensor:
    """Return the class of the nearest reference of all, (N,) int64, for queries (N, d).

    References (M, d) with classes (M,), by squared distance; of equally near ones the first counts.
    """
    references = references.double()
    nearest = [squared_distances(part.double(), references).argmin(1) for part in queries.split(BATCH)]
    return classes[torch.cat(nearest)]


def squared_distances(some: Tensor, others: Tensor) -> Tensor:
    """Return squared Euclidean distances of rows (N, d) and (M, d), (N, M), at least 0."""
    squares = some.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return (squares - 2.0 * some @ others.T).clamp_min(0.0)

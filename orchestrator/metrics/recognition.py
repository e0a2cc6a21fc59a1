"""Recognition by distance: an image is accepted as a person whose pictures its descriptor is near to.

The distance of an image to a class is the mean Euclidean distance to the descriptors of the class's private
images. The threshold comes from real pairs of a photograph and a person (SoK 2506.07888 asks for a judge that
was trained elsewhere).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BATCH = 1024  # rows whose distances to all references are held at a time


@dataclass(frozen=True)
class Calibration:
    """Which distances are accepted, and how often that is wrong on real pairs that did not choose it."""

    threshold: float
    false_accepts: float  # share of photographs accepted as another person, in [0, 1]
    false_rejects: float  # share of photographs refused as their own person, in [0, 1]


def class_distances(descriptors: Tensor, references: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return each image's mean distance to the references of each class, (N, k), >= 0.

    Descriptors (N, d) and (M, d), labels (M,) int64 in 0..k-1, of which every class has one. Raise
    `ValueError` if a class has none.
    """
    members = torch.nn.functional.one_hot(labels, num_classes).to(references.dtype)
    sizes = members.sum(dim=0)
    if (sizes == 0).any():
        raise ValueError(f"class {int((sizes == 0).nonzero()[0])} has no image to be near to")
    parts = [torch.cdist(batch, references) @ members / sizes for batch in descriptors.split(BATCH)]
    return torch.cat(parts) if parts else members.new_zeros(0, num_classes)


def ranks(distances: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of the right class among all by distance, (N,) float64; 1 is the nearest.

    distances (N, k), labels (N,); of equal distances the right class's is the smaller; lower leaks more.
    """
    own = distances.gather(1, labels[:, None])
    return 1.0 + (distances < own).sum(dim=1).double()


def threshold(own: Tensor, others: Tensor) -> float:
    """Return the distance with the best balanced accuracy: at most as large is accepted.

    Distances of photographs to their own person (P,) and to another one (Q,), both not empty. It lies in the
    middle between two of them; of equally good ones the smallest is taken.
    """
    found = torch.cat([own, others]).double().unique()
    middles = torch.cat([found[:1], (found[:-1] + found[1:]) / 2])
    accepted = (own[None] <= middles[:, None]).double().mean(dim=1)
    refused = (others[None] > middles[:, None]).double().mean(dim=1)
    return float(middles[(accepted + refused).argmax()])


def calibrate(own: Tensor, others: Tensor) -> Calibration:
    """Return the threshold that every second pair asks for, with its errors on the other pairs.

    Distances (P,) and (Q,) as in `threshold`, at least two of each.
    """
    chosen = threshold(own[::2], others[::2])
    accepted, refused = (others[1::2] <= chosen).double(), (own[1::2] > chosen).double()
    return Calibration(chosen, float(accepted.mean()), float(refused.mean()))


def false_positives(accepted: Tensor, recognised: Tensor) -> float | None:
    """Return the share of images that a recogniser refuses among those that a trained judge accepts, in
    [0, 1]; both (N,) of 0 and 1. None where the judge accepts none."""
    chosen = accepted == 1
    return float((recognised[chosen] == 0).double().mean()) if chosen.any() else None

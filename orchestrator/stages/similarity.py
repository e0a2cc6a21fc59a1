"""How like attack images are to the private images of their class in what networks see (TL-DMI, section D.2).

The judge's penultimate features are always there; public networks measure where the spec names their
weights. References are the images that F was trained on.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.features import (
    centroid_distance,
    frechet_distance,
    knn_distance,
    mean_overlap,
    overlap_by_class,
)
from orchestrator.metrics.perceptual import (
    features_of,
    inception_network,
    lpips_network,
    nearest_lpips,
)
from orchestrator.models.classifier import Classifier
from orchestrator.models.inception_resnet import facenet
from orchestrator.stages.io import Inputs
from orchestrator.training.loop import predict

SIDES = {"inception": 299, "facenet": 160}
SCALINGS = {"inception": "symmetric", "facenet": "facenet"}


class Likeness:
    """Compares attack images with the private images of their class."""

    def __init__(self, private: ImageSet, judge: Classifier, inputs: Inputs) -> None:
        self._private, self._judge, self._device = private, judge, inputs.world.device
        self._networks = public_networks(inputs)
        self._known: dict[str, Tensor] = {}

    def of_images(self, guesses: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each measure's value for each image: guesses (N, C, S, S) in [0, 1], labels (N,) -> (N,)."""
        compared = (labels, self._features("judge"), self._private.labels)
        found = self._seen("judge", guesses)
        values = {
            "knn_distance": knn_distance(found, *compared),
            "centroid_distance": centroid_distance(found, *compared),
        }
        if "facenet" in self._networks:
            found = self._seen("facenet", guesses)
            theirs = (labels, self._features("facenet"), self._private.labels)
            values["delta_facenet"] = knn_distance(found, *theirs)
        for kind in ("vgg", "alex"):
            if (network := self._networks.get(kind)) is not None:
                pictures = (guesses, labels, self._private.images, self._private.labels)
                values[f"lpips_{kind}"] = nearest_lpips(network, *pictures)
        return values

    def of_all(self, guesses: Tensor, labels: Tensor) -> dict[str, float]:
        """Return what is measured of the images together, in Inception features, where these are known."""
        if "inception" not in self._networks:
            return {}
        found, real = self._seen("inception", guesses), self._features("inception")
        of_classes = torch.isin(self._private.labels, labels)
        overlap = mean_overlap(overlap_by_class(found, labels, real, self._private.labels).values())
        values = {"fid": frechet_distance(real[of_classes], found)} | asdict(overlap)
        return {name: value for name, value in values.items() if not math.isnan(value)}  # of too few images

    def _features(self, network: str) -> Tensor:
        """Return the private images' features, computed once."""
        if network not in self._known:
            self._known[network] = self._seen(network, self._private.images)
        return self._known[network]

    def _seen(self, network: str, images: Tensor) -> Tensor:
        if network == "judge":
            return predict(self._judge.blocks, images, self._device).flatten(1)
        public = self._networks[network]
        return features_of(public, images, SIDES[network], self._device, normalise=SCALINGS[network])  # type: ignore[arg-type]


def public_networks(inputs: Inputs) -> Mapping[str, nn.Module]:
    """Return the public networks whose weights a stage has, on the device, by role."""
    builders = {
        "inception": inception_network,
        "facenet": facenet,
        "vgg": lambda public: lpips_network("vgg", public),
        "alex": lambda public: lpips_network("alex", public),
    }
    found = {role: (build, inputs.weights(role)) for role, build in builders.items()}
    return {
        role: build(public).to(inputs.world.device)
        for role, (build, public) in found.items()
        if public is not None
    }

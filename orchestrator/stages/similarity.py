"""Similarity of reconstructions to the private images of their class in networks' features (TL-DMI, D.2).

References are the images that F was trained on. The evaluation model's features are always measured, those
of public networks where `evaluation.networks` names their weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.features import FEATURE_DISTANCES, set_metrics
from orchestrator.metrics.names import METRICS
from orchestrator.metrics.perceptual import (
    PERCEPTUAL_DISTANCES,
    features_of,
    inception_network,
    lpips_network,
)
from orchestrator.models.inception_resnet import facenet
from orchestrator.stages.io import Inputs
from orchestrator.training.pairs import Rows

SIDES = {"inception": 299, "facenet": 160}
SCALINGS = {"inception": "symmetric", "facenet": "facenet"}
JUDGE = "judge"


class FeatureSimilarity:
    """Compares reconstructions with private images of their class; private features are computed once.

    `judged` are the evaluation model's features (M, d) of the private images.
    """

    def __init__(self, private: ImageSet, judged: Tensor, inputs: Inputs) -> None:
        self._private, self._device = private, inputs.world.device
        self._networks = {
            role: network.to(memory_format=torch.channels_last)
            for role, network in public_networks(inputs).items()
        }
        self._references = {JUDGE: judged}

    def of_images(self, reconstructions: Tensor, judged: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return metric -> one value for each image, (N,); images (N, C, S, S) in [0, 1] with the evaluation
        model's features (N, d) and labels (N,).

        Raise `ValueError` if a label has no private image.
        """
        values: dict[str, Tensor] = {}
        features = {JUDGE: judged}
        for name, distance in FEATURE_DISTANCES.items():
            network = METRICS[name].needs or JUDGE
            if network == JUDGE or network in self._networks:
                if network not in features:
                    features[network] = self._features(network, reconstructions)
                references = (self._reference(network), self._private.labels)
                values[name] = distance(features[network], labels, *references)
        for name, measure in PERCEPTUAL_DISTANCES.items():
            if (lpips := self._networks.get(str(METRICS[name].needs))) is not None:
                originals = (self._private.images, self._private.labels)
                values[name] = measure(lpips, reconstructions, labels, *originals)
        return values

    def of_all(self, reconstructions: Tensor, labels: Tensor) -> dict[str, float]:
        """Return metric -> one value for all images together; empty without Inception's weights."""
        if "inception" not in self._networks:
            return {}
        features = self._features("inception", reconstructions)
        return set_metrics(features, labels, self._reference("inception"), self._private.labels)

    def _reference(self, network: str) -> Tensor:
        """Return the private images' features, (M, d)."""
        if network not in self._references:
            self._references[network] = self._features(network, self._private.images)
        return self._references[network]

    def _features(self, network: str, images: Rows) -> Tensor:
        """Return a public network's features of images (N, C, S, S), (N, d) on the CPU."""
        return _features(self._networks[network], network, images, self._device)


def public_features(inputs: Inputs, network: str, images: Rows) -> Tensor:
    """Return the features of images (N, C, S, S), (N, d) on the CPU, of a network whose weights the stage
    reads: `inception` or `facenet`."""
    public = public_networks(inputs)[network].to(memory_format=torch.channels_last)
    return _features(public, network, images, inputs.world.device)


def _features(public: nn.Module, network: str, images: Rows, device: torch.device) -> Tensor:
    return features_of(public, images, SIDES[network], device, normalise=SCALINGS[network])  # type: ignore[arg-type]


def public_networks(inputs: Inputs) -> Mapping[str, nn.Module]:
    """Return role -> public network on the stage's device, for each role whose weights the stage reads."""
    builders = {
        "inception": inception_network,
        "facenet": facenet,
        "vgg": lambda public: lpips_network("vgg", public),
        "alex": lambda public: lpips_network("alex", public),
    }
    weights = {role: inputs.weights(role) for role in builders}
    return {
        role: builders[role](public).to(inputs.world.device)
        for role, public in weights.items()
        if public is not None
    }

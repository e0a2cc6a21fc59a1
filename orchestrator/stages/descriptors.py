"""Descriptors: a recogniser that others trained describes the photographs of every class, once for a set."""

from orchestrator.config import Data
from orchestrator.datasets import selection
from orchestrator.stages.io import Inputs, Outputs, npy
from orchestrator.stages.networks import described, descriptor_files, stored_recogniser

PARTS = ("train", "evaluation")  # pictures that a person is known by, and pictures that test the recogniser


def run(inputs: Inputs, data: Data) -> Outputs:
    """Describe the training and test images of every class, and keep their labels in the data set."""
    network = stored_recogniser(inputs)
    private, images_seen = inputs.datasets(data.dataset), 0
    files: dict[str, bytes] = {}
    for part in PARTS:
        chosen = selection.judge_images(private, data, part)
        contents = (described(network, chosen.images, inputs.world.device), chosen.labels)
        files |= {name: npy(content) for name, content in zip(descriptor_files(part), contents, strict=True)}
        images_seen += len(chosen)
    return Outputs(files, {}, images_seen)

"""Sources of public weights: files, objects in S3, and the libraries that download them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from orchestrator import config
from orchestrator.config.base import Refused
from orchestrator.datasets import checkpoint_files
from orchestrator.datasets.state_dicts import Check
from orchestrator.models import CLASSIFIERS
from orchestrator.models.build import build_classifier
from orchestrator.models.public import renamed
from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.runtime.words import sentences


def read(source: str) -> object:
    """Return the checkpoint at SOURCE, or a library's state dict; raise `Refused` if there is none."""
    library, _, name = source.partition(":")
    if library == "torchvision" and name:
        return _downloaded(source, lambda: torchvision.models.get_model(name, weights="DEFAULT"))
    if library == "timm" and name:
        return _downloaded(source, lambda: timm.create_model(name, pretrained=True))
    if source.startswith("s3://"):
        folder, _, file = source.rpartition("/")
        blobs = open_blobs(folder)
        check(blobs, option="SOURCE", writes=False)
        data = blobs.get(file)
        if data is None:
            raise Refused("SOURCE", source, "does not exist", "check bucket and key")
        return checkpoint_files.read(data, source)
    return checkpoint_files.read(Path(source).read_bytes(), source)


def _downloaded(source: str, build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    try:
        return build().state_dict()
    except Exception as error:  # the libraries' downloaders raise many types
        reason = sentences(str(error))
        rule = f"could not be downloaded ({type(error).__name__}: {reason})"
        way_out = "correct the name, or download the file elsewhere and stage that"
        raise Refused("SOURCE", source, rule, way_out) from None


def fit_of(model: str, name: str) -> Check:
    """Return a check that tensors, to be staged under a name, fit a classifier."""
    side = CLASSIFIERS[model].image_size
    with torch.device("meta"):
        network = build_classifier(config.Model(name=model), classes=2, channels=3, image_size=side)

    def check_fit(tensors: Mapping[str, Tensor]) -> None:
        renamed(network, tensors, name=name)

    return check_fit

"""Sources of public weights: files, objects in S3, and the libraries that download them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from jobs.generator_sources import choose_generator, generator_file
from orchestrator import config
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets import checkpoint_files, layers_model
from orchestrator.datasets.state_dicts import Check, check_sizes, choose
from orchestrator.models import CLASSIFIERS
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.generator_outlines import PATHS
from orchestrator.models.public import num_outputs, renamed
from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.runtime.words import sentences

Reader = Callable[[bytes, str], object]
"""File and its name in messages -> what it holds."""


def chosen(source: str, entry: str, model: str, name: str) -> dict[str, Tensor]:
    """Return the tensors of the network that is meant at SOURCE, to be staged under a name.

    `entry` and `model` as the command has them. Raise `Refused` if there is none, or it does not fit the
    model.
    """
    if model in PATHS:
        return choose_generator(read(source, generator_file), source, entry, model)
    return choose(read(source), source, entry, fit_of(model, name) if model else None)


def read(source: str, reader: Reader = checkpoint_files.read) -> object:
    """Return the checkpoint at SOURCE, or a library's state dict; raise `Refused` if there is none."""
    library, _, name = source.partition(":")
    if library == "torchvision" and name:
        return _downloaded(source, lambda: torchvision.models.get_model(name, weights="DEFAULT"))
    if library == "timm" and name:
        return _downloaded(source, lambda: timm.create_model(name, pretrained=True))
    data, beside = file_at(source)
    return _read(data, source, beside, reader)


def file_at(source: str) -> tuple[bytes, Callable[[str], bytes | None]]:
    """Return the bytes of a file or object, and what returns another one of its folder; raise `Refused` if
    there is none."""
    folder, _, file = source.rpartition("/")
    if source.startswith("s3://"):
        blobs = open_blobs(folder)
        check(blobs, option="SOURCE", writes=False)
        data = blobs.get(file)
        if data is None:
            raise Refused("SOURCE", source, "does not exist", "check bucket and key")
        return data, blobs.get
    path = Path(source)
    return path.read_bytes(), lambda name: _content(path.with_name(name))


def _read(data: bytes, source: str, beside: Callable[[str], bytes | None], reader: Reader) -> object:
    """Return what a file holds; `beside` returns another one of its folder."""
    if source.endswith(layers_model.ENDING):
        return layers_model.read(data, source, beside)
    loaded = reader(data, source)
    check_sizes(loaded, len(data), source)
    return loaded


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _downloaded(source: str, build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    try:
        return build().state_dict()
    except Exception as error:  # the libraries' downloaders raise many types
        reason = sentences(str(error))
        rule = f"could not be downloaded ({type(error).__name__}: {reason})"
        way_out = "correct the name, or download the file elsewhere and stage that"
        raise Refused("SOURCE", source, rule, way_out) from None


def check_outputs(names: Sequence[str], tensors: Mapping[str, Tensor], model: str) -> None:
    """Raise `Refused` if there are not as many names of classes as outputs of a classifier of this kind."""
    found = num_outputs(_network(model), tensors) if model in CLASSIFIERS else None
    if found != len(names):
        outputs = "no head" if found is None else f"{found} outputs"
        rule = f"holds {len(names)} names, and the weights have {outputs}"
        raise Refused("--classes", NO_VALUE, rule, "give one name a line, in the order of the outputs")


def _network(model: str) -> Classifier:
    side = CLASSIFIERS[model].image_size
    with torch.device("meta"):
        return build_classifier(config.Model(name=model), classes=2, channels=3, image_size=side)


def fit_of(model: str, name: str) -> Check:
    """Return a check that tensors, to be staged under a name, fit a classifier."""
    network = _network(model)

    def check_fit(tensors: Mapping[str, Tensor]) -> None:
        renamed(network, tensors, name=name)

    return check_fit

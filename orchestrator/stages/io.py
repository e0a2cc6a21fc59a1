"""What a running stage may touch, what it leaves, and how it reads images, networks and arrays."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from orchestrator.attacks import build_attack
from orchestrator.config import (
    Auxiliary,
    Data,
    Evaluation,
    InverterAttack,
    JointAttack,
    Model,
    Target,
)
from orchestrator.datasets import Dataset, selection
from orchestrator.models import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.training.loop import Fitted
from orchestrator.training.pairs import hold_out
from orchestrator.training.seeds import derive_seed, seeded
from orchestrator.training.world import World


@dataclass(frozen=True)
class Inputs:
    """What a running stage may touch."""

    world: World
    datasets: Callable[[str], Dataset]  # by name, verified
    read: Callable[[str, str], bytes]  # (role of an input stage, file name) -> verified bytes
    names: Mapping[str, str] = field(default_factory=dict)  # role (auxiliary, pretrain) -> data set name
    weights: Callable[[str], Mapping[str, Tensor] | None] = lambda role: None  # public ones, verified


@dataclass(frozen=True)
class Outputs:
    """What a stage leaves."""

    files: dict[str, bytes]
    metrics: dict[str, float]
    images_seen: int = 0


def new_classifier(model: Model, classes: int, data: Data, seed: int, *, resizes: bool = False) -> Any:
    """Build a classifier whose first weights depend on the seed alone; a judge resizes images to its side."""
    channels, image_size = data.channels, data.image_size
    return seeded(
        lambda: build_classifier(
            model, classes=classes, channels=channels, image_size=image_size, resizes=resizes
        ),
        seed,
    )


def new_inverter(attack: InverterAttack | JointAttack, data: Data, target: Target) -> Any:
    """Build an inverter whose first weights depend on the attack's seed alone."""
    shapes = {"classes": target.classes, "channels": data.channels, "image_size": data.image_size}
    return seeded(lambda: build_attack(attack, **shapes), attack.seed)


def stored_classifier(
    inputs: Inputs, role: str, model: Model, classes: int, data: Data, *, resizes: bool = False
) -> Classifier:
    """Return the trained classifier that an input stage left, on the device, in evaluation mode."""
    network: Classifier = new_classifier(model, classes, data, 0, resizes=resizes)
    network.load_state_dict(load_tensors(inputs.read(role, "model.safetensors")))
    return network.to(inputs.world.device).eval()


def transfer(public: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy everything but the head, whose shape depends on k; any other difference is an error."""
    own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("head.")}
    body = {name: tensor for name, tensor in public.items() if not name.startswith("head.")}
    network.load_state_dict(body | own, strict=True)


def auxiliary_images(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Tensor:
    """Return the adversary's images (N, C, S, S) uint8."""
    private, other = private_and_other(inputs, data)
    return selection.auxiliary_images(private, other, data, target.classes, auxiliary).images


def private_and_other(inputs: Inputs, data: Data) -> tuple[Dataset, Dataset | None]:
    """Return the private data set and the adversary's, if it has one of its own."""
    other = inputs.names.get("auxiliary")
    return inputs.datasets(data.dataset), inputs.datasets(other) if other else None


def victim_images(
    inputs: Inputs, data: Data, target: Target, evaluation: Evaluation
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a seeded sample of the images F was fitted on and of its test images, with labels 0..k-1."""
    test = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "evaluation")
    sets = {}
    parts = {"train": fitted_images(inputs, data, target), "test": (test.images, test.labels)}
    for part, (images, labels) in parts.items():
        generator = torch.Generator().manual_seed(derive_seed("evaluation", evaluation.seed))
        chosen = torch.randperm(len(labels), generator=generator)[: evaluation.images]
        sets[part] = (images[chosen], labels[chosen])
    return sets


def fitted_images(inputs: Inputs, data: Data, target: Target) -> tuple[Tensor, Tensor]:
    """Return the images that F was fitted on, without those that chose its epoch, and their labels."""
    images = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "train")
    if target.selection == "test":
        return images.images, images.labels
    fitted, _ = hold_out(len(images), target.recipe.validation_fraction, target.seed)
    return images.images[fitted], images.labels[fitted]


def trained(stage: str, network: nn.Module, fitted: Fitted) -> Outputs:
    """Return a fit's weights, curves and best epoch."""
    curves = {f"{stage}/{name}": values for name, values in fitted.curves.items()}
    metrics = {f"{stage}/{name}": value for name, value in fitted.best.items()}
    metrics[f"{stage}/best_epoch"] = float(fitted.best_epoch)
    files = {"model.safetensors": tensors(network.state_dict()), "curves.json": json.dumps(curves).encode()}
    return Outputs(files, metrics, fitted.images_seen)


def tensors(state: Mapping[str, Tensor]) -> bytes:
    """Return a network's state as safetensors."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def npy(array: Tensor | np.ndarray) -> bytes:
    """Return an array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array.numpy() if isinstance(array, Tensor) else array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(inputs: Inputs, role: str, name: str) -> Tensor:
    """Read an array that an input stage left."""
    return torch.from_numpy(np.load(io.BytesIO(inputs.read(role, name)), allow_pickle=False))

"""Inputs and outputs of a stage: what it may touch, what it leaves, arrays and weights as bytes."""

import io
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from orchestrator.config.program import Program
from orchestrator.datasets import Dataset
from orchestrator.models.services import ServiceNetwork
from orchestrator.training.loop import Fitted
from orchestrator.training.world import World


@dataclass(frozen=True)
class Inputs:
    """What a running stage may touch."""

    world: World
    datasets: Callable[[str], Dataset]  # by name, verified
    read: Callable[[str, str], bytes]  # (role of an input stage, file name) -> verified bytes
    files: Callable[[str], Container[str]] = lambda role: ()  # names of those that an input stage left
    names: Mapping[str, str] = field(default_factory=dict)  # role (auxiliary, pretrain) -> data set name
    weights: Callable[[str], Mapping[str, Tensor] | None] = lambda role: None  # public ones, verified
    program: Callable[[str], tuple[bytes, Program] | None] = lambda role: None  # its file, verified
    service: Callable[[str], ServiceNetwork] | None = None  # by name, as it is staged now


@dataclass(frozen=True)
class Outputs:
    """What a stage leaves."""

    files: dict[str, bytes]
    metrics: dict[str, float]
    images_seen: int = 0


def trained(stage: str, network: nn.Module, fitted: Fitted) -> Outputs:
    """Return a fit's weights, curves and best epoch, with metrics `stage/...`."""
    curves = {f"{stage}/{name}": values for name, values in fitted.curves.items()}
    metrics = {f"{stage}/{name}": value for name, value in fitted.best.items()}
    metrics[f"{stage}/best_epoch"] = float(fitted.best_epoch)
    files = {"model.safetensors": tensors(network.state_dict()), "curves.json": json.dumps(curves).encode()}
    return Outputs(files, metrics, fitted.images_seen)


def tensors(state: Mapping[str, Tensor]) -> bytes:
    """Return a network's state as safetensors."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def npy(array: Tensor | np.ndarray) -> bytes:
    """Return an array of any shape as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array.numpy() if isinstance(array, Tensor) else array, allow_pickle=False)
    return buffer.getvalue()


def per_image(labels: Tensor, values: Mapping[str, Tensor] | Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a structured array (N,) with the field `label` and one for each metric, of values (N,)."""
    table = np.empty(len(labels), [("label", np.int32), *((name, np.float32) for name in values)])
    table["label"] = labels
    for name, value in values.items():
        table[name] = value
    return table


def read_npy(inputs: Inputs, role: str, name: str) -> Tensor:
    """Return an array that an input stage left, with the shape it was stored in."""
    return torch.from_numpy(np.load(io.BytesIO(inputs.read(role, name)), allow_pickle=False))

"""Sources of generators that others trained: NVIDIA's pickles, rosinality's checkpoints, state dicts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from orchestrator.config.base import Refused
from orchestrator.datasets import checkpoint_files, nvidia_pickles
from orchestrator.datasets.state_dicts import choose
from orchestrator.models.public_generators import as_ours, check_generator

AVERAGES = ("G_ema", "g_ema")
"""Entries that are taken unless another is named: the average of a generator's weights, NVIDIA's and
rosinality's."""

MEAN_STYLE = "latent_avg"  # of rosinality, beside the generator


def generator_file(data: bytes, where: str) -> object:
    """Return what a file holds; raise `Refused` if it is no checkpoint, is damaged, or asks for code."""
    if nvidia_pickles.is_plain_pickle(data):
        return nvidia_pickles.read(data, where)
    return checkpoint_files.read(data, where)


def choose_generator(loaded: object, where: str, entry: str, kind: str) -> dict[str, Tensor]:
    """Return the tensors of the generator that is meant, under our names.

    `entry` names it in the file, "" for the average, or the only one; `kind` is what it must be. Raise
    `Refused` if there is none, or if it is not that.
    """
    inside = checkpoint_files.children(loaded)
    entry = entry or next((name for name in AVERAGES if name in inside), "")
    arguments = _arguments(inside.get(entry))
    mean = inside.get(MEAN_STYLE)
    beside = {MEAN_STYLE: mean} if isinstance(mean, Tensor) else {}
    tensors = as_ours({**choose(loaded, where, entry), **beside}, where, arguments)
    outline = check_generator({name: tuple(one.shape) for name, one in tensors.items()}, where, "SOURCE")
    if outline.kind != kind:
        raise Refused("--model", kind, f"is not what {where} holds", f"use --model {outline.kind}")
    return tensors


def _arguments(network: object) -> Mapping[str, Any] | None:
    """Return the arguments that NVIDIA's network was built with; None for others."""
    own = vars(network).get(nvidia_pickles.ARGUMENTS) if hasattr(network, "__dict__") else None
    return own if isinstance(own, Mapping) else None

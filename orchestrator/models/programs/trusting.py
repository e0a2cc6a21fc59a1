"""Operators of torch that trust the sizes that they are given, behind a check of them.

Their kernels read as many numbers of a batch norm's statistics or of a weight norm's lengths as the images or
the weight have channels, and look at nothing else: with fewer they would read what lies behind. Exported
graphs call them by these functions; in TorchScript, whose calls are torch's own, they are refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def batch_norm(**given: Any) -> Any:
    """Return what `_native_batch_norm_legit_no_training` does; raise `ValueError` unless each vector has a
    number for each channel of its input (N, C, ...)."""
    channels = given["input"].shape[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector: Tensor | None = given.get(name)
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ValueError(f"{name} {tuple(vector.shape)} of a batch norm of {channels} channels")
    return torch.ops.aten._native_batch_norm_legit_no_training.default(**given)


def weight_norm(**given: Any) -> Any:
    """Return what `_weight_norm` does; raise `ValueError` unless there is a length for each row of its weight
    along `dim`."""
    weight, lengths, dim = given["v"], given["g"], given.get("dim", 0)
    if lengths.numel() != weight.shape[dim] or lengths.dim() != weight.dim():
        raise ValueError(f"{lengths.numel()} lengths of {weight.shape[dim]} rows of a weight norm")
    return torch.ops.aten._weight_norm.default(**given)


TRUSTING: Mapping[str, Callable[..., Any]] = {
    "_native_batch_norm_legit_no_training": batch_norm,
    "_weight_norm": weight_norm,
}
"""Name in torch's namespace `aten` -> the function that checks and calls it."""

"""Settings of torch in a process that runs stages: threads, kernels that repeat, float32 in full."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Setting = TypeVar("Setting")

_BACKENDS: Any = torch.backends  # its types leave out some operations
OPERATIONS = (
    *(_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn),
    *(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn),
)
"""Each has a precision of float32 of its own."""


def use_profile(threads: int) -> None:
    """Fix what would change bits in this process: threads, kernels, the precision of float32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with a fixed workspace
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # `use_deterministic_algorithms` imports torch's compiler
    # Accelerators take convolutions' inputs of 10 bits (TF32) by default, and a caller may have allowed less.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for operation in OPERATIONS:
        operation.fp32_precision = "ieee"
    # On with deterministic algorithms: it writes NaN into memory that is overwritten before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def profile_kept() -> Iterator[None]:
    """Put torch's settings back afterwards: all that `use_profile` changes but the environment.

    Precisions are kept as torch's old settings and as its new ones: each alone leaves the other behind.
    """
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    convolutions = _if_readable(lambda: torch.backends.cudnn.allow_tf32)
    products = _if_readable(torch.get_float32_matmul_precision)
    precisions = [operation.fp32_precision for operation in OPERATIONS]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.backends.cudnn.allow_tf32 = convolutions is not False
        torch.set_float32_matmul_precision(products or "highest")
        for operation, precision in zip(OPERATIONS, precisions, strict=True):
            operation.fp32_precision = precision


def _if_readable(setting: Callable[[], Setting]) -> Setting | None:
    """Return an old setting, or None if a new one was set to what the old cannot say."""
    try:
        return setting()
    except RuntimeError:
        return None

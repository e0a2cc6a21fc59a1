"""Kernels: what a local run fixes in its process, and what it gives back."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.training.kernels import profile_kept, use_profile


def torch_settings() -> tuple[object, ...]:
    """Return what a local run fixes in its process; None for what torch does not state as an old setting."""

    def read(setting: Callable[[], object]) -> object:
        try:
            return setting()
        except RuntimeError:
            return None

    backends: Any = torch.backends
    libraries = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        read(lambda: backends.cudnn.allow_tf32),
        read(lambda: backends.cuda.matmul.allow_tf32),
        read(torch.get_float32_matmul_precision),
        *(library.fp32_precision for library in libraries),
    )


@pytest.mark.parametrize("old", ["highest", "medium", ""])
def test_settings_of_torch_are_the_callers_again_after_a_local_run(old: str) -> None:
    with profile_kept():  # of this test
        torch.set_num_threads(2)
        torch.set_deterministic_debug_mode(0)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        torch.backends.cudnn.allow_tf32 = True
        if old:
            torch.set_float32_matmul_precision(old)
        else:
            torch.backends.cuda.matmul.fp32_precision = "tf32"  # as torch's newer pages say
        before = torch_settings()
        with profile_kept():
            use_profile(1)
            precise = (1, 1, False, False, False, "highest", *["ieee"] * 4)
            assert torch_settings() == precise
        assert torch_settings() == before
        assert before != precise

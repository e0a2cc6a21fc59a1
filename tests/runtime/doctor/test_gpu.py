"""The NVIDIA driver against the CUDA that torch brings."""

import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from ray import cloudpickle

from orchestrator.runtime.doctor import gpu


def found(**changes: Any) -> dict[str, Any]:
    return {"cuda": "13.2", "count": 1, "names": ["L4"], "driver": "", "driver_cuda": 0} | changes


@pytest.mark.parametrize(
    "facts",
    [
        found(),  # no driver: processors only
        found(cuda=""),
        found(cuda="", driver="470.1", driver_cuda=11),  # a build for processors needs none
        found(driver="580.95.05", driver_cuda=13),
        found(driver="595.71.05"),
        found(driver="550.54.15", driver_cuda=13),  # with NVIDIA's compatibility package
        found(cuda="12.8", driver="580.95.05", driver_cuda=13),
        found(cuda="12.8", driver="525.60.13", driver_cuda=12),
    ],
)
def test_a_driver_that_is_new_enough_is_no_fault(facts: dict[str, Any]) -> None:
    assert gpu.driver_fault(facts) is None


@pytest.mark.parametrize(
    ("facts", "text", "fix"),
    [
        (
            found(driver="570.133.20", driver_cuda=12),
            "NVIDIA driver 570.133.20 (CUDA 12) is too old for torch's CUDA 13.2",
            "install driver 580 or later there",
        ),
        (
            found(driver="579.9"),
            "NVIDIA driver 579.9 is too old for torch's CUDA 13.2",
            "install driver 580 or later there",
        ),
        (
            found(cuda="14.0", driver_cuda=13),
            "the NVIDIA driver (CUDA 13) is too old for torch's CUDA 14.0",
            "install a newer driver there",
        ),
    ],
)
def test_a_driver_too_old_is_named_with_what_is_needed(facts: dict[str, Any], text: str, fix: str) -> None:
    assert gpu.driver_fault(facts) == (text, fix)


def test_this_machine_is_described() -> None:
    facts = gpu.facts()
    assert facts["cuda"] == (torch.version.cuda or "")
    assert facts["count"] == torch.cuda.device_count() == len(facts["names"]) or facts["count"] > 1


def test_a_node_without_the_project_can_run_it() -> None:
    cloudpickle.register_pickle_by_value(gpu)
    try:
        data = cloudpickle.dumps(gpu.facts)
    finally:
        cloudpickle.unregister_pickle_by_value(gpu)
    script = (
        "import pickle, sys; sys.modules['orchestrator'] = None; sys.modules['torch'] = type(sys)('torch');"
        "print(pickle.loads(sys.stdin.buffer.read()).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    assert done.stdout == b"facts\n"
    assert pickle.loads(data).__name__ == "facts"

"""What processors and accelerators say of themselves, and what this machine has beside what torch finds."""

from pathlib import Path

import pytest
import torch

from orchestrator.runtime import matrix_units
from orchestrator.runtime.matrix_units import accelerator_units, processor_units, units_here
from orchestrator.sweep.precision import Units


def cpuinfo(flags: str) -> str:
    """Return /proc/cpuinfo of two cores."""
    core = f"processor\t: 0\nflags\t\t: fpu sse2 {flags}\nvmx flags\t: amx_bf16\nbugs\t\t: none\n"
    return f"{core}\n{core}"


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (cpuinfo("avx2 avx512f avx512_bf16 amx_bf16 amx_tile"), Units(True, "amx_bf16 and avx512_bf16")),
        (cpuinfo("avx2 avx512f avx512_bf16"), Units(True, "avx512_bf16")),
        (cpuinfo("avx2 avx512f avx512_vnni"), Units(False, "neither amx_bf16 nor avx512_bf16")),
        (cpuinfo("avx2"), Units(False, "neither amx_bf16 nor avx512_bf16")),
        ("Features\t: fp asimd bf16\n", Units(False, "neither amx_bf16 nor avx512_bf16")),
        ("", Units(False, "neither amx_bf16 nor avx512_bf16")),
    ],
)
def test_a_processor_has_units_by_its_flags(text: str, units: Units) -> None:
    assert processor_units(text) == units


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("9.0\n9.0\n", Units(True, "compute capability 9.0")),
        ("8.0\n", Units(True, "compute capability 8.0")),
        ("12.0\n7.5\n", Units(False, "compute capability 7.5")),  # the oldest may be granted
        ("[N/A]\n", Units(False, "nvidia-smi lists no accelerator")),
        ("", Units(False, "nvidia-smi lists no accelerator")),
    ],
)
def test_accelerators_have_units_by_their_compute_capability(text: str, units: Units) -> None:
    assert accelerator_units(text) == units


def test_the_processor_here_is_what_torch_finds() -> None:
    checks = (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported)
    assert units_here("cpu").are_there == any(check() for check in checks)


@pytest.mark.parametrize(("code", "capability"), [(0, "9.0"), (1, "")])
def test_the_drivers_tool_is_asked_for_accelerators(
    code: int, capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = --query-gpu=compute_cap ] && echo 9.0\nexit {code}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert units_here("cuda") == accelerator_units(capability)


def test_a_system_without_what_it_is_asked_has_no_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(matrix_units, "CPUINFO", tmp_path / "cpuinfo")
    assert not units_here("cuda").are_there
    assert not units_here("cpu").are_there

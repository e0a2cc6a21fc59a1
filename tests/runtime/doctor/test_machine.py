"""Checks of this machine: versions, torch."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from orchestrator.runtime.doctor import machine
from orchestrator.runtime.doctor.findings import fail, warn
from tests.runtime.doctor.faults import ROOT, listed, only_fault


def test_this_machine_is_in_order() -> None:
    assert listed(machine.installed()) == [("ok", "python"), ("ok", "libraries")]
    (torch,) = machine.accelerators()
    assert (torch.status, torch.found.split()[0]) == ("ok", "sees")


def test_the_least_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = dict(re.match(r"(\w+)[^>]*>=([\d.]+)", line).groups() for line in project["dependencies"])  # type: ignore[union-attr, misc]
    assert machine.MINIMUM.items() <= wanted.items()
    assert project["requires-python"] == f">={'.'.join(map(str, machine.PYTHON))}"


def test_a_missing_or_old_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ({"mlflow": ""}, {"mlflow": "3.17.1"}):
        monkeypatch.setattr(machine, "versions", lambda found=found: {"ray": "2.60.0", **found})
        fault = only_fault(machine.installed())
        assert (fault.name, fault.fix) == ("libraries", machine.INSTALL)
        assert f"mlflow {found['mlflow'] or 'missing'}" in fault.found


def test_a_torch_that_does_not_load_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert only_fault(machine.accelerators()) == fail(
        "torch", "does not load: ImportError: libcudart.so.13: cannot open", machine.INSTALL
    )


def test_a_driver_too_old_for_torch_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cuda": "13.2", "count": 0, "names": [], "driver": "535.183.01", "driver_cuda": 12}
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\necho '{json.dumps(found)}'\n")
    (tmp_path / "python").chmod(0o700)
    assert only_fault(machine.accelerators()) == warn(
        "torch",
        "NVIDIA driver 535.183.01 (CUDA 12) is too old for torch's CUDA 13.2",
        "install driver 580 or later there",
    )


@pytest.mark.parametrize(
    ("number", "than", "is_older"),
    [
        ("2.9", "2.10", True),
        ("2.60.0", "2.60", False),
        ("3.17.2", "3.17.2", False),
        ("2.15.0+cu132", "2.14", False),
        ("3.17.2rc1", "3.17.2", False),
        ("3.16", "3.17.2", True),
    ],
)
def test_versions_are_compared_by_number(number: str, than: str, is_older: bool) -> None:
    assert machine.is_older(number, than) == is_older

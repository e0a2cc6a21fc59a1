"""Spans modules: what a command imports and costs before it does anything."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_floors import ROOT

HEAVY = {
    *("torch", "torchvision", "torchmetrics", "timm", "safetensors", "opacus"),
    *("pandas", "pyarrow", "scipy", "matplotlib", "sklearn", "sympy"),
    *("ray", "mlflow", "optuna", "boto3", "botocore"),
}
"""Packages that no help text, refusal or plan needs."""
CPU_SECONDS = 1.0
TRIES = 3  # on a busy machine the same work costs more CPU seconds

COMMANDS = [
    ("jobs.sweep --help", 0, "Sweep a study"),
    ("jobs.sweep demo --scale smoke --plan", 0, "forecast: unknown"),
    ("jobs.sweep demos", 2, "error: "),
    ("jobs.sweep demo --scale big", 2, "error: --scale"),
    ("jobs.sweep demo --set sweep.target.budget=[7]", 2, "error: target.budget=7.0 means"),
    ("jobs.sweep demo --set data.dataset=nothing", 2, "error: data.dataset=nothing is unknown"),
    ("jobs.sweep demo --set target.model.name=vgg", 2, "error: target.model.name=vgg is unknown"),
    ("jobs.report --help", 0, "Write a study's tables"),
    ("jobs.report demo", 2, "is no directory; name another with --store"),
    ("jobs.stage_data --help", 0, "Data to stage:"),
    ("jobs.stage_data nothing data", 2, "SOURCE=nothing is unknown"),
    ("jobs.stage_weights --help", 0, "Weights to stage:"),
    ("jobs.stage_weights nothing.pt data --name net", 2, "SOURCE=nothing.pt is no file"),
    ("jobs.store --help", 0, "quarantines damaged"),
    ("jobs.store ls --store nothing", 2, "nothing"),
    ("jobs.doctor --help", 0, "Check everything that a sweep needs"),
    ("jobs.ui --help", 0, "Serve MLflow's pages"),
    ("jobs.ui --runs nothing", 2, "does not exist"),
    ("jobs.notice --help", 0, "preemption notice"),
]


@pytest.mark.parametrize(("words", "code", "text"), COMMANDS, ids=[words for words, _, _ in COMMANDS])
def test_help_refusals_and_plans_take_a_second_and_no_heavy_package(
    words: str, code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "200")
    costs: list[float] = []
    while not costs or (min(costs) >= CPU_SECONDS and len(costs) < TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-X", "importtime", "-m", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    lines = done.stderr.splitlines()
    printed = "\n".join(line for line in lines if not line.startswith("import time:"))
    assert done.returncode == code, printed
    assert text in done.stdout + printed
    assert imported(done.stderr) & HEAVY == set()
    assert min(costs) < CPU_SECONDS, costs


def imported(importtime: str) -> set[str]:
    """Return the top-level packages in the output of -X importtime."""
    return set(re.findall(r"\| +([a-zA-Z0-9_]+)[^|]*$", importtime, flags=re.MULTILINE))

"""Spans modules: what a command imports and costs before it does anything."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.datasets import weights
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny
from tests.stages.test_given import GIVEN, GIVEN_JUDGE, Theirs
from tests.test_floors import ROOT

HEAVY = {
    *("torch", "torchvision", "torchmetrics", "timm", "safetensors", "opacus"),
    *("pandas", "pyarrow", "scipy", "matplotlib", "sklearn", "sympy"),
    *("ray", "mlflow", "optuna", "boto3", "botocore"),
}
"""Packages that no help text, refusal or plan needs."""
MOST_CALLS = 2_300_000
"""Calls of functions, Python's and C's, of a command, its imports included: no machine changes their number.
Today's commands need 0.2 to 1.9 million, 0.3 to 1.8 CPU seconds."""
CALLS_A_POINT = 4_300
"""The same of one more point of a plan; today 3,600."""
GROWTH = 12
"""Of CPU seconds from a plan of 1,000 points to one of 10,000: a cost that grows with the square shows."""

COMMANDS = [
    ("jobs.sweep --help", 0, "Sweep a study"),
    ("jobs.sweep demo --plan", 0, "forecast: unknown"),
    ("jobs.sweep demo --scale smoke --plan", 0, "forecast: unknown"),
    ("jobs.sweep demos", 2, "error: "),
    ("jobs.sweep demo --scale big", 2, "error: --scale"),
    ("jobs.sweep demo --set sweep.target.budget=[7]", 2, "error: target.budget=7.0 means"),
    ("jobs.sweep demo --set data.dataset=nothing", 2, "error: data.dataset=nothing is unknown"),
    ("jobs.sweep demo --set target.model.name=vgg", 2, "error: target.model.name=vgg is unknown"),
    ("jobs.sweep ami-prediction-size-faces --plan", 0, "its published size stands in"),
    ("jobs.runs --help", 0, "Sweeps in the terminal"),
    ("jobs.runs ls --store nothing", 2, "is no directory"),
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
    ("jobs.commands --help", 0, "each command has its own"),
    ("jobs.commands sweep --help", 0, "Sweep a study"),
    ("jobs.commands sweep demos", 2, "error: "),
]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the commands, which run in other folders."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize(("words", "code", "text"), COMMANDS, ids=[words for words, _, _ in COMMANDS])
def test_help_refusals_and_plans_take_few_calls_and_no_heavy_package(
    words: str, code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done, calls = counted(words.split(), tmp_path)
    printed = "\n".join(line for line in done.output.splitlines() if not line.startswith("import time:"))
    assert done.code == code, printed
    assert text in printed
    assert imported(done.output) & HEAVY == set()
    assert calls < MOST_CALLS


def test_a_plan_with_staged_weights_checks_them_without_a_heavy_package(tmp_path: Path) -> None:
    data = DirectoryBlobs(tmp_path / "data")
    for staged, classes in (("theirs", 3), ("judging", 10), ("few", 4)):
        weights.stage(Theirs(classes).state_dict(), "test", data, staged)
    for name, code, text in (("judging", 0, "1 given, 1 judge"), ("few", 2, "have 4 outputs, and data")):
        changes = {**GIVEN, "judge": {**GIVEN_JUDGE, "weights": name}}
        study = tiny.write(tmp_path / "s.yaml", {"seed": [0]}, changes)
        words = ["-m", "jobs.sweep", str(study), "--plan", "--data", str(data.path), "--store", "nothing"]
        done = run(["-X", "importtime", *words], tmp_path)
        assert done.code == code, done.output[-2000:]
        assert text in done.output
        assert imported(done.output) & HEAVY == set()


def test_the_console_command_imports_no_more_than_the_command_that_it_runs(tmp_path: Path) -> None:
    listed, called, direct = (
        imported(run(["-X", "importtime", "-m", *words.split()], tmp_path).output)
        for words in ("jobs.commands --help", "jobs.commands sweep --help", "jobs.sweep --help")
    )
    assert called <= direct
    assert listed < called
    assert "pydantic" in called - listed  # the modules of a command come with its call


def test_a_sweep_trains_without_torchs_compiler(tmp_path: Path) -> None:
    words = ["demo", "--scale", "smoke", "--local", "--ship-later", "--set", "sweep.seed=[0]"]
    done = run(["-X", "importtime", "-m", "jobs.sweep", *words], tmp_path)
    assert done.code == 0, done.output[-2000:]
    assert "torch" in imported(done.output)
    assert not re.search(r"\| +(torch\._dynamo|torch\._inductor|sympy)$", done.output, flags=re.MULTILINE)


def many(seeds: int) -> dict[str, list[object]]:
    """Return the axes of 200 points for each seed."""
    return {
        "seed": list(range(seeds)),
        "release.truncation": [1, 2],
        "auxiliary.kind": ["same-heldout", "distinct"],
        "attack.offset": [float(offset) for offset in range(10, 20)],
        "target.recipe.learning_rate": [0.001, 0.002, 0.003, 0.004, 0.005],
    }


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Prints a command's peak in kB, from a small process: a child begins with its parent's peak."""


def test_a_plan_of_10000_points_takes_a_gigabyte_and_time_in_proportion(tmp_path: Path) -> None:
    seconds = {}
    for seeds in (5, 50):
        study = tiny.write(tmp_path / "many.yaml", many(seeds))
        done = run(["-c", PEAK, "-m", "jobs.sweep", str(study), "--plan"], tmp_path)
        assert f"{200 * seeds} points" in done.output
        assert int(done.output.split()[-1]) < 1_000_000
        seconds[seeds] = done.seconds
    assert seconds[50] < GROWTH * seconds[5]


def test_a_point_of_a_plan_takes_few_calls(tmp_path: Path) -> None:
    calls = []
    for seeds in (2, 4):
        study = tiny.write(tmp_path / "many.yaml", many(seeds))
        done, counts = counted(["jobs.sweep", str(study), "--plan"], tmp_path)
        assert f"{200 * seeds} points" in done.output
        calls.append(counts)
    assert calls[1] - calls[0] < CALLS_A_POINT * 400


class Done(NamedTuple):
    """What a process printed on both streams and cost."""

    code: int
    output: str
    seconds: float  # of CPU


def run(words: list[str], folder: Path) -> Done:
    """Run Python in a folder to its end."""
    log = folder / "output.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, *words], stdout=stream, stderr=stream, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    seconds = usage.ru_utime + usage.ru_stime
    return Done(process.returncode, log.read_text(encoding="utf-8"), seconds)


COUNT = """
import cProfile, pathlib, runpy, sys
file, *sys.argv = sys.argv[1:]
profile = cProfile.Profile()
try:
    profile.runcall(runpy.run_module, sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    pathlib.Path(file).write_text(str(sum(entry.callcount for entry in profile.getstats())))
"""
"""Runs a module and writes its number of calls to a file."""


def counted(words: list[str], folder: Path) -> tuple[Done, int]:
    """Run a module with its imports listed; return how many calls its main thread made, too."""
    file = folder / "calls.txt"
    done = run(["-X", "importtime", "-c", COUNT, str(file), *words], folder)
    return done, int(file.read_text())


def imported(importtime: str) -> set[str]:
    """Return the top-level packages in the output of -X importtime."""
    return set(re.findall(r"\| +([a-zA-Z0-9_]+)[^|]*$", importtime, flags=re.MULTILINE))

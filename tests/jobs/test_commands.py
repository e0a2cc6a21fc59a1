"""The installed console command, called from a folder with modules of the user's that have our names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from jobs.commands import COMMANDS, loaded
from tests import tiny
from tests.test_floors import ROOT

SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "orchestrator", "jobs")
THEIRS = "raise SystemExit('this is none of ours')"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, without a network, and install it; return the folder."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    pip([*("wheel", *options, "--no-build-isolation", "--wheel-dir", str(wheels), str(source))])
    (wheel,) = wheels.glob("*.whl")
    target = tmp_path_factory.mktemp("installed")
    pip(["install", *options, "--no-compile", "--target", str(target), str(wheel)])
    return target


def pip(words: list[str]) -> None:
    """Run pip to its end."""
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in which `jobs` and `orchestrator` are the user's."""
    (tmp_path / "jobs").mkdir()
    for name in ("jobs/__init__.py", "jobs/sweep.py", "orchestrator.py"):
        (tmp_path / name).write_text(THEIRS)
    return tmp_path


def run(words: list[str], installed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with the installed package instead of this checkout's."""
    unset = {"INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "PYTHONPATH"}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PYTHONPATH": str(installed), "COLUMNS": "160"}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=380)


def inversion(words: list[str], installed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the console command."""
    return run([str(installed / "bin" / "inversion"), *words], installed, folder)


def test_a_module_of_the_users_is_what_python_runs_there(installed: Path, folder: Path) -> None:
    done = run([sys.executable, "-m", "jobs.sweep", "--help"], installed, folder)
    assert (done.returncode, done.stderr) == (1, "this is none of ours\n")


def test_the_shipped_studies_plan_from_any_folder(installed: Path, folder: Path) -> None:
    done = inversion(["sweep", "demo", "--scale", "smoke", "--plan"], installed, folder)
    assert done.returncode == 0, done.stderr
    assert "study demo: 12 points" in done.stdout


def test_a_sweep_and_its_report_run_from_any_folder(installed: Path, folder: Path) -> None:
    tiny.write(folder / "tiny.yaml", {"attack.seed": [0]})
    done = inversion(["sweep", "tiny.yaml", "--local", "--ship-later"], installed, folder)
    assert done.returncode == 0, done.stderr
    results = (folder / "runs" / "tiny" / "results.csv").read_bytes()
    (folder / "runs" / "tiny" / "results.csv").unlink()
    done = inversion(["report", "tiny.yaml", "--ship-later"], installed, folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "tiny" / "results.csv").read_bytes() == results
    done = inversion(["report", "tiny.yaml", "--scale", "none"], installed, folder)
    assert (done.returncode, done.stderr[:20]) == (2, "error: --scale none ")
    done = inversion(
        ["report", "tiny.yaml", "--set", "sweep.attack.seed=[7]", "--ship-later"], installed, folder
    )
    assert "this computes them: inversion sweep tiny.yaml" in done.stderr


@pytest.mark.ray
def test_workers_of_ray_import_the_installed_package(installed: Path, folder: Path) -> None:
    tiny.write(folder / "tiny.yaml", {"attack.seed": [0]})
    done = inversion(["sweep", "tiny.yaml", "--ship-later"], installed, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 1 finished, 0 failed, 0 pruned" in done.stdout


def test_the_doctor_looks_at_the_machine_from_any_folder(installed: Path, folder: Path) -> None:
    done = inversion(["doctor"], installed, folder)
    found = [tuple(line.split()[:2]) for line in done.stdout.splitlines()]
    assert {("ok", "torch"), ("warn", "torch")} & set(found), done.stdout + done.stderr  # in another process


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "stage-weights"),
        (["swep"], 2, "No such command 'swep'. Did you mean 'sweep'?"),
        (["sweep", "demos"], 2, "error: study=demos does not exist; did you mean demo."),
        (["stage-data", "nothing", "data"], 2, "SOURCE=nothing is unknown"),
        (["store", "ls", "--store", "nothing"], 2, "is no directory; name another with --store"),
        (["ui", "--runs", "nothing"], 2, "does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_have_the_exit_codes_of_the_commands(
    words: list[str], code: int, text: str, installed: Path, folder: Path
) -> None:
    done = inversion(words, installed, folder)
    assert done.returncode == code
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_what_it_is(name: str) -> None:
    command = loaded(name)
    assert command.help
    assert (ROOT / "jobs" / f"{name.replace('-', '_')}.py").is_file()
    assert isinstance(command, typer.core.TyperGroup) == (name in ("runs", "store"))


def test_no_command_is_left_out() -> None:
    with_app = {path.stem for path in (ROOT / "jobs").glob("*.py") if "\napp = typer." in path.read_text()}
    assert with_app == {name.replace("-", "_") for name in COMMANDS}

"""Spans modules: the depth of the call stack: our files between the command and the loss of a training."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.nn import functional
from typer.testing import CliRunner

from jobs.sweep import app
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
LOOP = "orchestrator/training/loop.py"
LOSSES = {"target": "cross_entropy", "inversion": "mse_loss"}  # stage -> the loss that it minimises
MOST_FILES = 5


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[str]]]:
    """Run a study of one point as the command does; return each loss call's name and our files above it."""
    folder = tmp_path_factory.mktemp("stack")
    calls: list[tuple[str, list[str]]] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in LOSSES.values():
            patch.setattr(functional, name, recorded(name, getattr(functional, name), calls))
        study = tiny.write(folder / "tiny.yaml", {"attack.seed": [0]})
        words = [str(study), "--local", "--ship-later", "--out", str(folder / "runs")]
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return calls


def recorded(name: str, loss: Callable[..., Any], calls: list[tuple[str, list[str]]]) -> Callable[..., Any]:
    """Return the loss; every call of it adds the distinct files of ours that are on the stack."""

    def call(*arguments: Any, **options: Any) -> Any:
        if options.get("reduction") != "sum":  # sums are of held-out pairs, not what training minimises
            calls.append((name, own_files()))
        return loss(*arguments, **options)

    return call


def own_files() -> list[str]:
    """Return our source files on the stack from `jobs/sweep.py` to the frame that computes a loss."""
    files = [Path(frame.filename) for frame in traceback.extract_stack()]
    ours = [str(file.relative_to(ROOT)) for file in files if file.is_relative_to(ROOT)]
    return [file for file in dict.fromkeys(ours) if file.startswith(("orchestrator/", "jobs/"))]


@pytest.mark.parametrize("stage", LOSSES)
def test_a_training_loss_is_five_files_from_the_command(
    stage: str, stacks: list[tuple[str, list[str]]]
) -> None:
    trained = [files for name, files in stacks if name == LOSSES[stage] and LOOP in files]
    assert trained
    for files in trained:
        assert files[0] == "jobs/sweep.py"
        assert len(files) <= MOST_FILES, " -> ".join(files)

"""Spans modules: every kind of attack and every defended target, trained or searched by two workers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny
from tests.ranks import run_two
from tests.test_scenarios import DEFENDED, TASKS, defended, trial

ATTACKS = ("with losses", "learnable offset", "joint", "optimization")
TARGETS = ("mid and smoothing", "budget and bido", "fixed budget and dp")
REUSED = {"target.freeze": "weights+statistics", "target.snapshots": [1], "target.snapshot": 1}
PRIORS = ("gmi", "kedmi", "plg-mi")
NAMES = [*ATTACKS, *TARGETS, *PRIORS, "reused activations, snapshot"]


def spec(name: str) -> TrialSpec:
    """Return a trial that two workers share."""
    if name in ATTACKS:
        return trial(name, "reconstruction")
    if name in PRIORS:
        return trial(name, "class-inference")
    if name in DEFENDED:
        return defended(name, "aligned", TASKS[0])
    return tiny.spec(REUSED)


def as_rank(rank: int, size: int, folder: str) -> None:
    """Build every stage of the trials as one of several processes; rank 0 publishes."""
    use_profile(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    store, world = Artifacts(DirectoryBlobs(Path(folder))), World(rank=rank, size=size)
    for name in NAMES:
        for stage in tiny.stages(spec(name)).values():
            if not world.agree(store.find(stage.key) is not None):
                runner.run(stage, world, store, Location())
            torch.distributed.barrier()  # published before the next stage reads it
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of two workers."""
    folder = tmp_path_factory.mktemp("workers")
    run_two(as_rank, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store for what one process builds."""
    return tmp_path_factory.mktemp("alone")


def metrics(folder: Path, name: str) -> dict[str, Any]:
    """Return every metric of a trial, computed here if need be."""
    return tiny.run(spec(name), folder)


@pytest.mark.parametrize("name", NAMES)
def test_two_workers_do_what_one_does(name: str, workers: Path, alone: Path) -> None:
    ours = metrics(workers, name)  # all stored: nothing is computed here
    assert not list(workers.rglob("checkpoints/*"))
    one = metrics(alone, name)
    assert set(ours) == set(one)
    error = "class/mse_mean" if name in PRIORS else "inversion/mse_test"
    assert ours[error] == pytest.approx(one[error], abs=0.05)
    assert ours["attack/queries"] == one["attack/queries"] if "attack/queries" in one else name == "joint"

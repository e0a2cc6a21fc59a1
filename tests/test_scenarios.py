"""Every attack in both tasks through all its stages: what it leaves, what it asks, that it repeats."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.artifacts import Artifact, Artifacts
from orchestrator.datasets import Location, load
from orchestrator.directory import DirectoryBlobs
from orchestrator.metrics import MEASURED
from orchestrator.spec import TrialSpec
from orchestrator.stage_io import Inputs, fitted_images
from orchestrator.training import World
from tests import tiny

JOINT = {"name": "joint", "model": tiny.DIGIT, "weight": 10.0}
MIA = {"name": "mia", "steps": 5, "patience": 5, "learning_rate": 0.1}
OPTIMIZATION = {"name": "optimization", "steps": 5, "variation_weight": 1e-3, "jitter": 1}
SURROGATE = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
LOSSES = {"adversarial": 0.01, "features": 0.1, "total_variation": 0.01, "surrogate": SURROGATE}
INVERTER = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
TASKS = ("reconstruction", "class-inference")
ATTACKS: dict[str, dict[str, Any]] = {
    "aligned": INVERTER,
    "unaligned": {**INVERTER, "align": False},
    "with losses": {**INVERTER, "losses": LOSSES},
    "learnable offset": {**INVERTER, "offset_learnable": True},
    "joint": JOINT,
    "joint renormalised": {**JOINT, "reduction": "sum"},
    "mia": MIA,
    "optimization": OPTIMIZATION,
}
CASES = [(name, task) for name in ATTACKS for task in TASKS if (name, task) != ("mia", "reconstruction")]


def trial(name: str, task: str) -> TrialSpec:
    """Return a tiny trial of an attack in a task."""
    changes: dict[str, Any] = {"attack": ATTACKS[name], "evaluation.task": task, "release.truncation": 2}
    if name == "joint renormalised":
        changes["release.renormalised"] = True
    return tiny.spec(changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("scenarios")


def found(folder: Path, spec: TrialSpec, stage: str) -> Artifact:
    """Return what a stage of a finished trial left."""
    artifact = Artifacts(DirectoryBlobs(folder)).find(tiny.stages(spec)[stage].key)
    assert artifact is not None
    return artifact


def array(folder: Path, artifact: Artifact, name: str) -> np.ndarray:
    """Return an array of an artifact."""
    data = Artifacts(DirectoryBlobs(folder)).read(artifact, name)
    return np.load(io.BytesIO(data), allow_pickle=False)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_attack_goes_through_all_its_stages(name: str, task: str, folder: Path) -> None:
    spec = trial(name, task)
    metrics = tiny.run(spec, folder)
    assert set(metrics) - {name for name in metrics if name.startswith("pretrain/")} <= set(MEASURED)
    assert all(np.isfinite(value) for value in metrics.values())
    artifact = found(folder, spec, "evaluation")
    parts = ("class",) if task == "class-inference" else ("train", "test")
    names = ("grid_{}.png", "per_image_{}.npy", "reconstructions_{}.npy", "victims_{}.npy")
    assert sorted(artifact.files) == sorted(name.format(part) for name in names for part in parts)
    for part in parts:
        rows = array(folder, artifact, f"per_image_{part}.npy")
        assert len(rows) == (3 if part == "class" else 16)
        for field in (rows.dtype.names or ())[1:]:
            (metric,) = (one for one in artifact.metrics if one in _full_names(field, part))
            assert artifact.metrics[metric] == pytest.approx(rows[field].astype(float).mean(), abs=1e-6)


def _full_names(field: str, part: str) -> tuple[str, ...]:
    return (f"inversion/{field}_{part}", f"attack/{field}_{part}", f"class/{field}")


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_attack_repeats(name: str, task: str, folder: Path, tmp_path: Path) -> None:
    spec = trial(name, task)
    assert tiny.run(spec, tmp_path) == tiny.run(spec, folder)


SILENT: dict[str, dict[str, Any]] = {
    "last epoch": {"target.selection": "last", "attack.selection": "last"},
    "as released": {"target.selection": "test", "attack.selection": "victim-train"},
    "as released, learnable": {"attack.selection": "victim-train", "attack.offset_learnable": True},
    "per position": {"data.normalisation": "per-position"},
}


@pytest.mark.parametrize("name", SILENT)
def test_where_the_paper_is_silent_or_differs_from_its_code_a_setting_decides(
    name: str, folder: Path
) -> None:
    plain, other = tiny.run(tiny.spec(), folder), tiny.run(tiny.spec(SILENT[name]), folder)
    assert set(plain) == set(other)
    assert plain["inversion/mse_test"] != other["inversion/mse_test"] or name == "last epoch"  # one epoch


def test_choosing_an_epoch_on_the_victims_images_asks_the_victim_about_them(folder: Path) -> None:
    asked = tiny.run(tiny.spec(), folder)["attack/queries"]
    spec = tiny.spec(SILENT["as released"])
    inputs = Inputs(World(), lambda name: load(name, Location()), lambda role, name: b"")
    _, labels = fitted_images(inputs, spec.data, spec.target)
    assert tiny.run(spec, folder)["attack/queries"] == asked + len(labels)

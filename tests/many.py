"""A sweep of 500 trials whose stages are copies of one tiny trial's, for reports of that size."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config.normalise import normalise
from orchestrator.config.study import Study
from orchestrator.datasets import Location, describe
from orchestrator.stages import runner
from orchestrator.stages.graph import Planner, Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.profiles import profile_of, profiles_of
from orchestrator.sweep.trial import Task
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny

SWEEP = {
    "release.truncation": [1, 2],
    "target.budget": ["full", "block1"],
    "attack.offset": [5.0 * place for place in range(1, 6)],
    "attack.recipe.learning_rate": [0.001 * place for place in range(1, 6)],
    "seed": [0, 1, 2, 3, 4],
}
"""Axes of 500 points, five replicates each."""


def write_study(path: Path, **sections: Any) -> Path:
    """Write the study."""
    report = {"rows": ["m", "budget"], "where": {"seed": 0}}
    return tiny.write(path, SWEEP, report=report, **sections)


def tasks(study: Study) -> list[Task]:
    """Return its trials."""
    planner = Planner(
        {"digits": describe("digits", Location()).digest},
        profile_of(study.resources),
        profiles_of(study.resources),
    )
    return [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]


def build(folder: Path, task: Task) -> Artifacts:
    """Build every stage of a trial."""
    store = Artifacts(DirectoryBlobs(folder))
    use_profile(tiny.PROFILE.threads)
    for stage in task.stages.values():
        runner.run(stage, World(), store, Location())
    return store


def fill(folder: Path, planned: list[Task]) -> int:
    """Build the first trial, and publish each stage of the others as a copy with errors of its own; return
    how many stages there are."""
    first, *others = planned
    store = build(folder, first)
    made = {stage.name: _read(store, stage) for stage in first.stages.values()}
    drawn = np.random.default_rng(0)
    missing = {stage.key: (stage, task) for task in others for stage in task.stages.values()}
    for key in set(missing) - set(store.keys()):
        stage, task = missing[key]
        artifact, files = made[stage.name]
        factor = _factor(task) * float(np.exp(drawn.normal() / 20))
        store.publish(*_varied(replace(artifact, key=key, spec=dict(stage.specs)), files, factor))
    return len(store.keys())


def _read(store: Artifacts, stage: Stage) -> tuple[Artifact, dict[str, bytes]]:
    artifact = store.find(stage.key)
    assert artifact is not None
    return artifact, {name: store.read(artifact, name) for name in artifact.files}


def _factor(task: Task) -> float:
    """Return how much larger a trial's errors are than the first one's."""
    axes = task.point.axes
    return 1.0 - 0.3 * (axes["m"] == 2) + 0.1 * (axes["budget"] == "block1")


def _varied(artifact: Artifact, files: dict[str, bytes], factor: float) -> tuple[Artifact, dict[str, bytes]]:
    """Return an evaluation with larger errors; other stages as they are."""
    if artifact.stage != "evaluation":
        return artifact, files
    metrics = {name: value * factor if "mse" in name else value for name, value in artifact.metrics.items()}
    changed = {
        name: _larger(data, factor) if name.startswith("per_image") else data for name, data in files.items()
    }
    return replace(artifact, metrics=metrics), changed


def _larger(data: bytes, factor: float) -> bytes:
    rows = np.load(io.BytesIO(data))
    rows["mse"] *= factor
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()

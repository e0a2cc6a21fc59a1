"""Forecast of a sweep: which stages are stored, and what the others will take in memory and CPU seconds."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.datasets import PARTS, Footprint
from orchestrator.datasets.shards import HELD_BYTES
from orchestrator.stages.graph import Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.listing import published
from orchestrator.sweep.trial import Task

STAGE_READ, OTHERS_READ = 25, 200
"""Manifests that a forecast reads of each stage of the study, and of the store's other artifacts."""


@dataclass(frozen=True)
class StageForecast:
    """What is expected of the stages of one name."""

    stage: str
    distinct: int
    stored: int
    missing: int  # of the distinct ones, to be run
    held_bytes: int  # of images, in each worker, at most
    mapped_bytes: int  # of image files, at most
    cpu_seconds: float | None  # of the missing ones; None if the store has no stage of the name


@dataclass(frozen=True)
class Forecast:
    """What is expected of a sweep."""

    stages: Sequence[StageForecast]
    held_bytes: int
    mapped_bytes: int
    cpu_seconds: float | None  # of the stages that are known; None for an empty store


def forecast(tasks: Sequence[Task], store: Artifacts, sets: Mapping[str, Footprint]) -> Forecast:
    """Return what the stages of the tasks need; nothing is run.

    `sets`: data set -> what a worker holds of it. Costs are the medians of stages of the same name in the
    store, whatever their settings.
    """
    stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
    stored = set(store.keys())
    typical = _typical_costs(
        artifact for _, artifact in published(store, _sampled(stored, stages)) if artifact
    )
    memory = {key: _memory(stage, sets) for key, stage in stages.items()}
    rows = []
    for name in dict.fromkeys(stage.name for stage in stages.values()):
        keys = [key for key, stage in stages.items() if stage.name == name]
        missing = sum(key not in stored for key in keys)
        held, mapped = (max(amounts) for amounts in zip(*(memory[key] for key in keys), strict=True))
        seconds = missing * typical[name] if name in typical else None
        rows.append(StageForecast(name, len(keys), len(keys) - missing, missing, held, mapped, seconds))
    held, mapped = (max(amounts) for amounts in zip(*memory.values(), (0, 0), strict=True))
    total = sum(row.cpu_seconds or 0.0 for row in rows)
    return Forecast(rows, held, mapped, total if typical else None)


def _memory(stage: Stage, sets: Mapping[str, Footprint]) -> tuple[int, int]:
    """Return the bytes of images that a worker holds for a stage, and of those that it maps.

    It holds the sets that are not mapped, one in two roles once, and the images selected of each part of a
    split, unless they are so many that they are read a batch at a time.
    """
    held = mapped = 0
    data = stage.specs.get("data")
    for about in (sets[name] for name in {one["name"] for one in stage.datasets.values()}):
        selected = about.num_images * data["channels"] * data["image_size"] ** 2 if data else about.num_bytes
        held += min(selected, len(PARTS) * HELD_BYTES) + (0 if about.is_mapped else about.num_bytes)
        mapped += about.num_bytes if about.is_mapped else 0
    return held, mapped


def _sampled(stored: Collection[str], stages: Mapping[str, Stage]) -> list[str]:
    """Return the keys whose manifests a forecast reads: some of each stage, and some others."""
    own: dict[str, list[str]] = {}
    for key in sorted(stored):
        own.setdefault(stages[key].name if key in stages else "", []).append(key)
    most = {name: OTHERS_READ if name == "" else STAGE_READ for name in own}
    return [key for name, keys in own.items() for key in keys[:: -(-len(keys) // most[name])]]


def _typical_costs(artifacts: Iterable[Artifact]) -> dict[str, float]:
    """Return stage -> median CPU seconds of its artifacts."""
    costs: dict[str, list[float]] = {}
    for artifact in artifacts:
        costs.setdefault(artifact.stage, []).append(artifact.cost.get("cpu_seconds", 0.0))
    return {stage: statistics.median(values) for stage, values in costs.items()}

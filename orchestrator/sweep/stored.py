"""Stored trials: the record of an ended trial, read back from the store. Imports no torch.

A damaged file is quarantined by its reading, so that its stage counts as missing and is built again.
"""

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from orchestrator.metrics.skill import derived
from orchestrator.stages.graph import STAGES, Stage
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt, gone
from orchestrator.store.journal import now_ms
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.adversary import held_parts, queries_beyond_release
from orchestrator.sweep.inferred import inferred_classes
from orchestrator.sweep.points import flatten
from orchestrator.sweep.records import Curve, DatasetInput, Picture, TrialRecord
from orchestrator.sweep.trial import Outcome, Task

logger = logging.getLogger(__name__)


class Incomplete(Exception):
    """Stages of a finished trial are not in the store any more: they were damaged, or removed."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__(stages)
        self.stages = list(stages)

    def __str__(self) -> str:
        names = ", ".join(f"{stage.label} {stage.key[:12]}" for stage in self.stages)
        return f"stored files of {names} are damaged or gone"


class StoredTrials:
    """Reads trials back from the store; shared stages are read once.

    With `takes_older` a trial is whole without the stages that stores of earlier versions lack.
    """

    def __init__(
        self, store: Artifacts, describe: Callable[[str], DatasetInput], *, takes_older: bool = False
    ) -> None:
        self._store, self._describe, self._takes_older = store, describe, takes_older
        self._artifacts: dict[str, Artifact] = {}
        self._curves: dict[str, list[Curve]] = {}

    def has(self, key: str) -> bool:
        """Return whether a stage is published."""
        return self._find(key) is not None

    def lacking(self, task: Task, stored: Collection[str]) -> list[Stage]:
        """Return the stages of a trial whose keys are not stored and that it is not whole without."""
        missing = [stage for stage in task.stages.values() if stage.key not in stored]
        return [stage for stage in missing if not (self._takes_older and STAGES[stage.name].is_added)]

    def among(self, keys: Sequence[str]) -> set[str]:
        """Return those of the keys that are published."""
        return {key for key, is_stored in zip(keys, parallel_map(self.has, keys), strict=True) if is_stored}

    def forget(self, keys: Iterable[str]) -> None:
        """Read the stages from the store again when they are needed next."""
        for key in keys:
            self._artifacts.pop(key, None)
            self._curves.pop(key, None)

    def record(self, task: Task, outcome: Outcome) -> TrialRecord:
        """Return what is known of an ended trial; every damaged file of it is found and quarantined.

        Raise `Incomplete` for a finished trial that lacks a stage; others are recorded without it.
        """
        assert outcome.status != "left"
        is_whole = outcome.status == "finished"
        found = [(stage, self._find(stage.key)) for stage in task.stages.values()]
        stored = [(stage, artifact) for stage, artifact in found if artifact is not None]
        curves: list[Curve] = []
        images: dict[str, Picture] = {}
        absent = self.lacking(task, {artifact.key for _, artifact in stored})
        damaged = []
        for stage, artifact in stored:
            try:
                curves += [replace(one, name=stage.metric(one.name)) for one in self._read_curves(artifact)]
                images |= self._read_images(artifact) if is_whole else {}
            except Corrupt as error:
                logger.warning("event=stored_damaged key=%s action=rebuild", error.key)
                self.forget([error.key])
                damaged.append(stage)
        if is_whole and (absent or damaged):
            raise Incomplete([*absent, *damaged])
        if damaged:
            return self.record(task, outcome)
        return self._assemble(task, outcome, stored, curves, images)

    def _assemble(
        self,
        task: Task,
        outcome: Outcome,
        stored: Sequence[tuple[Stage, Artifact]],
        curves: Sequence[Curve],
        images: dict[str, Picture],
    ) -> TrialRecord:
        assert outcome.status != "left"
        artifacts = [artifact for _, artifact in stored]
        metrics = {stage.metric(name): value for stage, one in stored for name, value in one.metrics.items()}
        spec = task.point.spec
        metrics |= queries_beyond_release(spec, metrics)
        metrics |= inferred_classes(spec, metrics)
        return TrialRecord(
            key=task.point.key,
            index=task.point.index,
            name=task.point.name,
            params=flatten(spec.model_dump(mode="json")),
            axes=dict(task.point.axes),
            status=outcome.status,
            stage_keys={name: stage.key for name, stage in task.stages.items()},
            metrics={sys.intern(name): one for name, one in sorted((metrics | derived(metrics)).items())},
            costs=_sum_costs(artifacts),
            curves=curves,
            images=images,
            datasets=self._datasets(task),
            held=held_parts(spec),
            failed_stage=outcome.failed_stage,
            error=outcome.error,
            started_ms=min((_started_ms(artifact) for artifact in artifacts), default=now_ms()),
            ended_ms=max((artifact.created_ms for artifact in artifacts), default=now_ms()),
        )

    def _find(self, key: str) -> Artifact | None:
        if key not in self._artifacts:
            artifact = self._store.find(key)
            if artifact is None:
                return None
            metrics = {sys.intern(name): value for name, value in artifact.metrics.items()}
            # Of a large sweep's stages every byte counts: nothing of these is read here.
            self._artifacts[key] = replace(artifact, spec={}, inputs={}, profile={}, metrics=metrics)
        return self._artifacts[key]

    def _read_curves(self, artifact: Artifact) -> list[Curve]:
        if "curves.json" not in artifact.files:
            return []
        if artifact.key not in self._curves:
            values = json.loads(self._store.read(artifact, "curves.json"))
            curves = [Curve(name, list(enumerate(points, start=1))) for name, points in values.items()]
            self._curves[artifact.key] = curves
        return self._curves[artifact.key]

    def _read_images(self, artifact: Artifact) -> dict[str, Picture]:
        """Return the pictures, each read once now, so that a damaged one is found."""
        names = [name for name in artifact.files if name.endswith(".png")]
        for name in names:
            self._store.read(artifact, name)
        return {
            name.removesuffix(".png"): Picture(
                artifact.files[name].sha256, partial(_read_picture, self._store, artifact.key, name)
            )
            for name in names
        }

    def _datasets(self, task: Task) -> list[DatasetInput]:
        roles = {
            role: part["name"] for stage in task.stages.values() for role, part in stage.datasets.items()
        }
        return [replace(self._describe(name), context=role) for role, name in roles.items()]


def _read_picture(store: Artifacts, key: str, name: str) -> bytes:
    """Return a picture as it was published; raise `Corrupt` if it is damaged, or gone."""
    artifact = store.find(key)
    if artifact is None:
        raise gone(key)
    return store.read(artifact, name)


def _sum_costs(artifacts: Sequence[Artifact]) -> dict[str, float]:
    """Sum the costs of a trial's stages; shared stages count in full for each trial that needs them."""
    names = {name for artifact in artifacts for name in artifact.cost}
    return {f"cost/{n}": round(sum(a.cost.get(n, 0.0) for a in artifacts), 3) for n in sorted(names)}


def _started_ms(artifact: Artifact) -> int:
    return artifact.created_ms - round(1000 * artifact.cost.get("wall_seconds", 0.0))

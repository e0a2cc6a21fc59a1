"""Calibration: one short step of each kind of stage that a forecast knows nothing of, run to be measured.

Trials of the study are made short (one and four epochs, few steps and classes, noise in place of data sets,
no public weights) and run in this process, in a store that is thrown away. What they take, for the work that
they do, is a sample like a stored stage's. This imports torch.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config import TrialSpec
from orchestrator.config.base import Refused, one_line
from orchestrator.config.normalise import normalise
from orchestrator.config.resources import Resources
from orchestrator.datasets import Description, Location
from orchestrator.datasets.builtin import BUILTINS
from orchestrator.datasets.manifest import Options, SplitRule
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.stages.graph import Choose, Planner, Stage, StageFailed, in_float32
from orchestrator.stages.workload import Reader, Sizes
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.listing import published
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.profiles import profile_of, profiles_of
from orchestrator.sweep.rates import stage_work
from orchestrator.sweep.trial import Task

CLASSES, IMAGES_OF_CLASS = 8, 32
"""Private classes of a short trial, of twice as many in its data sets, and images of each."""

MOST_ATTACKED = 64
"""Private images that are attacked."""

EPOCHS = (1, 4)
"""Of two short trials, so that a fixed part can be told from the rest."""

SHORT = {"steps": 4, "pool": 64, "starts": 1, "restarts": 1, "views": 2, "population": 32, "generations": 2}
"""Setting of a search -> its largest value in a short trial."""

MOST_TRIALS = 12
"""Trials that are made short: more kinds of stages stay unknown."""


@dataclass(frozen=True)
class Calibration:
    """What was measured."""

    stages: Sequence[tuple[Artifact, Sizes]]
    """With the numbers of images of the noise that they saw."""

    faults: Sequence[str]
    """Why some trials could not be made short, or failed; their kinds of stages stay unknown."""

    def why(self, stage: str) -> str:
        """Return why stages of a name are unknown still."""
        if any(artifact.stage == stage for artifact, _ in self.stages):
            return "some are too unlike what was measured"
        return "no short trial has run one"


def calibrate(
    tasks: Sequence[Task],
    unknown: Iterable[str],
    resources: Resources,
    sets: Mapping[str, Description],
    choose: Choose = in_float32,
) -> Calibration:
    """Run short trials with the kinds of stages of these names and return what they took; `choose` is the
    planner's.

    Raise `Refused` for stages of several workers, or of an accelerator that is not here.
    """
    from orchestrator.datasets import describe
    from orchestrator.sweep.local import LocalExecutor  # here: it imports torch

    names = set(unknown)
    _require_device(resources, names)
    trials = _covering(tasks, names)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        data = DirectoryBlobs(Path(folder) / "data")
        digests = {name: _noise(about, data) for name, about in sets.items()}
        planner = Planner(digests, profile_of(resources), profiles_of(resources), choose)
        stores = [Artifacts(DirectoryBlobs(Path(folder) / name)) for name in ("first", "measured")]
        for number, epochs in ((0, EPOCHS[0]), *((1, epochs) for epochs in EPOCHS)):  # the first pays for all
            executor = LocalExecutor(stores[number], Location(data), 1e6)
            for spec in trials:
                try:
                    stages = planner.plan(normalise(shortened(spec, epochs)))
                    _run(stages, executor)
                except Exception as error:  # of any kind: what is short in this way may never have run
                    words = one_line(" ".join(str(error).split()))
                    is_said = isinstance(error, Refused | StageFailed)
                    faults.append(words if is_said else f"{type(error).__name__}: {words}")
        noise = {name: describe(name, Location(data)) for name in sets}
        sizes = ImageCounts(Location(data), noise)
        for name in sets:
            sizes.labels(name)  # kept: the folder goes
        measured = [(artifact, sizes) for _, artifact in published(stores[1]) if artifact]
    return Calibration(measured, list(dict.fromkeys(faults)))


def _require_device(resources: Resources, names: set[str]) -> None:
    for name in sorted(names):
        needs = resources.of(name)
        if needs.workers > 1:
            rule = f"trains {name} on {needs.workers} workers, and one step is measured in one process"
            raise Refused("resources.workers", needs.workers, rule, "leave --calibrate out")
        if needs.gpus_per_worker:
            import torch

            if not torch.cuda.is_available():
                rule = f"runs {name} on an accelerator, and this machine has none to measure it on"
                raise Refused("resources.gpus_per_worker", needs.gpus_per_worker, rule, "calibrate on a node")


def _covering(tasks: Sequence[Task], names: set[str]) -> list[TrialSpec]:
    """Return trials that have every kind of these stages: by name, networks and size."""
    reader, covered, chosen = Reader(), set[tuple[object, ...]](), []
    for task in tasks:
        kinds = set()
        for stage in task.stages.values():
            if stage.name in names:
                work = stage_work(stage.name, stage.specs, stage.weights, {}, reader)
                kinds.add((stage.name, work.family, round(work.each)))
        if not kinds <= covered:
            covered |= kinds
            chosen.append(task.point.spec)
        if len(chosen) == MOST_TRIALS:
            break
    return chosen


def _run(stages: Mapping[str, Stage], executor: Any) -> None:
    for stage in stages.values():
        if executor.store.find(stage.key) is None:
            executor.build(stage)


def _noise(about: Description, blobs: DirectoryBlobs) -> str:
    """Stage noise in the place of a set that is not built in; return the digest."""
    if about.name in BUILTINS:
        return about.digest
    from orchestrator.datasets import describe

    num_classes = 2 * CLASSES if about.is_labelled else 1
    count = 2 * CLASSES * IMAGES_OF_CLASS
    drawn = np.random.default_rng(0)
    images = drawn.integers(0, 256, (count, *about.image_shape), dtype=np.uint8)
    labels = np.arange(count) % num_classes
    names = [f"{about.name}-{place}" for place in range(num_classes)]
    splits = {name: SplitRule() for name in about.splits}
    options = Options(splits=splits, unlabelled=not about.is_labelled)
    publish(array_source("noise", images, labels, names, "0" * 64), options, blobs, about.name)
    return describe(about.name, Location(blobs)).digest


def shortened(spec: TrialSpec, epochs: int) -> TrialSpec:
    """Return a trial of the same networks that takes seconds, on sets of noise and without public weights.

    Raise `Refused` for one that has no short form.
    """
    if spec.prior and spec.prior.weights:
        raise Refused("prior.weights", spec.prior.weights, "is not measured", "run one trial that has it")
    if field := spec.target.foreign:
        name = getattr(spec.target, field)
        raise Refused(f"target.{field}", name, "is not measured", "run one trial that has it")
    raw: dict[str, Any] = spec.model_dump(mode="json")
    _short_trainings(raw, epochs)
    data, release, auxiliary, attack = (raw[name] for name in ("data", "release", "auxiliary", "attack"))
    classes = raw["target"]["classes"] = min(CLASSES, spec.target.classes)
    data |= {"class_order": "seeded", "class_seed": 0}
    data["class_pool"] = spec.data.class_pool and min(CLASSES, spec.data.class_pool)
    release["truncation"] = spec.release.truncation and min(classes, spec.release.truncation)
    auxiliary["size"] = spec.auxiliary.size and min(classes * IMAGES_OF_CLASS // 4, spec.auxiliary.size)
    raw["judges"] = {"classifiers": {}, "recogniser": None}
    _short_target(raw["target"])
    _short_evaluation(raw["evaluation"])
    for name, most in SHORT.items():
        if isinstance(attack.get(name), int):
            attack[name] = min(attack[name], most * (epochs if name in ("steps", "generations") else 1))
    return TrialSpec.model_validate(raw)


def _short_target(target: dict[str, Any]) -> None:
    has_snapshot = target.get("snapshot") is not None
    target |= {"snapshots": [1], "snapshot": 1} if has_snapshot else {"snapshots": []}
    if target.get("weights") or (target.get("pretrain") or {}).get("weights"):
        target |= {"weights": None, "pretrain": None, "minimum_accuracy": 0.0}
    if target["budget"] != "full" and target["pretrain"] is None:
        target["freezes_random"] = True


def _short_evaluation(evaluation: dict[str, Any]) -> None:
    evaluation |= {"classes": None, "networks": {}}
    if evaluation["task"] == "class-inference":
        evaluation["candidates"] = 1
    else:
        evaluation["images"] = min(evaluation["images"], MOST_ATTACKED)
    if evaluation["fisher"]:
        evaluation["fisher"] |= {"images": 8, "iterations": [1], "distances": ["l2"]}


def _short_trainings(value: Any, epochs: int) -> None:
    """Shorten every recipe below a value, in place, and leave out the weights that networks start from."""
    if not isinstance(value, dict):
        return
    if "epochs" in value:
        value |= {"epochs": epochs}
        if "milestones" in value:
            value["milestones"] = []
    if "recipe" in value and "model" in value:
        value |= {name: plain for name, plain in (("weights", None), ("trained", True)) if name in value}
        if "minimum_accuracy" in value:
            value["minimum_accuracy"] = 0.0
    for one in value.values():
        _short_trainings(one, epochs)

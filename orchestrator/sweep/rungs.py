"""Rungs: which training of a trial a scheduler compares, by what, and how long it is. No torch, no Ray.

A training reports after every epoch. What is compared is a loss, lower is better: of an inverter its held-out
squared error, of a target 1 - its held-out accuracy, of a prior the distance between its critic's means over
held-out public images and over generated ones, which compares priors of one loss only.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.config.search import Scheduler
from orchestrator.stages.stage import Stage
from orchestrator.sweep.trial import Task

COMPARED = {"inversion": "attack", "target": "target", "prior": "prior"}
"""Stage that trains -> its sub-spec that says for how many epochs."""

Report = Callable[[Mapping[str, float]], bool]
"""Takes the progress of a training; False ends it."""


class Rungs(Protocol):
    """Compares trainings that run in this process."""

    def begin(self, stage: Stage) -> Report:
        """Return what takes the progress of a training that begins."""


def compared_stage(task: Task, scheduler: Scheduler | None) -> Stage | None:
    """Return the stage of a trial whose epochs a scheduler compares; None if the trial has none such."""
    if scheduler is None:
        return None
    if scheduler.stage == "inversion" and not task.point.spec.attack.reports_epochs:
        return None
    return next((stage for stage in task.stages.values() if stage.name == scheduler.stage), None)


def loss_of(stage: str, progress: Mapping[str, float]) -> float | None:
    """Return what is compared of a stage's progress; None where it has none, as between epochs."""
    names = {"target": ("validation_accuracy",), "prior": ("validation_real", "validation_fake")}
    values = [progress.get(name) for name in names.get(stage, ("validation_loss",))]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if stage == "prior":
        return abs(known[0] - known[1])
    return 1.0 - known[0] if stage == "target" else known[0]


def stopped_words(stage: Stage, epoch: float) -> str:
    """Return what a training that was stopped early had: `stopped after epoch 3 of 10`."""
    own: Mapping[str, Any] = stage.specs[COMPARED[stage.name]]
    epochs = (own.get("recipe") or own).get("epochs", "?")
    return f"stopped after epoch {int(epoch)} of {epochs}"

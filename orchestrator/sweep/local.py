"""Local executor: every stage in this process, one trial after the other; clusters must equal its results."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event

import torch

from orchestrator.config.search import Scheduler
from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.leases import Leases, LocalLeases
from orchestrator.store.requests import progress_words
from orchestrator.sweep.ledger import Ledger
from orchestrator.sweep.requests import Size
from orchestrator.sweep.rungs import Report, Rungs, compared_stage
from orchestrator.sweep.trial import Outcome, Task, Trial
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World


@dataclass(frozen=True)
class LocalExecutor:
    """Implements `Executor` in the calling process, as a world of one worker."""

    store: Artifacts
    location: Location
    checkpoint_seconds: float
    leases: Leases = field(default_factory=LocalLeases)
    scheduler: Scheduler | None = None
    rungs: Rungs | None = None  # what compares the trainings that the scheduler names
    size: Size = field(default_factory=Size)  # is told what is being built
    failures: dict[str, StageFailed] = field(default_factory=dict)  # errors and ends that would only repeat
    must_leave: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)

    def run(self, ledger: Ledger) -> None:
        """Run every task of the ledger in order."""
        while tasks := ledger.next_tasks():
            for task in takewhile(lambda _: not self.must_leave.is_set(), tasks):
                ledger.start(task)
                ledger.end(task, self._run_trial(task))
        self.ended.set()

    def halt(self, seconds: float) -> None:
        """Make the running training save its state and end; wait for that up to `seconds`."""
        self.must_leave.set()
        self.ended.wait(seconds)

    def _run_trial(self, task: Task) -> Outcome:
        trial = Trial(task.stages.values(), self.store, self.leases, f"local-{os.getpid()}")
        compared = compared_stage(task, self.scheduler)
        for stage in trial.missing():
            try:
                self.build(stage, is_compared=stage is compared)
                trial.note_built(stage)
            except StageFailed as failure:
                trial.note_failed(failure)
        return trial.outcome

    def build(self, stage: Stage, *, is_compared: bool = False) -> None:
        """Run and publish the stage, whose epochs others are compared with; keep an error, or that it was
        stopped early, for the next trial that needs the stage.

        Raise `StageFailed` with how it ended.
        """
        if stage.key in self.failures:
            raise self.failures[stage.key]
        if self.must_leave.is_set():
            raise StageFailed(stage.label, "the sweep was interrupted", "left")
        use_profile(int(stage.profile["threads"]))
        try:
            report = self.rungs.begin(stage) if self.rungs and is_compared else _continue
            report = self._telling(stage, report)
            runner.run(stage, self._world(stage.profile, report), self.store, self.location)
        except StageFailed as failure:
            if failure.kind in ("error", "cancelled"):
                self.failures[stage.key] = failure
            raise
        finally:
            self.size.building = ()

    def _telling(self, stage: Stage, report: Report) -> Report:
        """Return a report that also tells how far the stage is."""

        def tell(progress: Mapping[str, float]) -> bool:
            self.size.building = (progress_words(stage.name, progress),)
            return report(progress)

        self.size.building = (stage.name,)
        return tell

    def _world(self, profile: Mapping[str, str | int], report: Report) -> World:
        return World(
            report=report,
            device=torch.device(str(profile["device"])),
            precision=str(profile["precision"]),
            is_preempted=self.must_leave.is_set,
            checkpoint_seconds=self.checkpoint_seconds,
        )


def _continue(progress: Mapping[str, float]) -> bool:
    return True

"""Everything in this process, one trial after the other: `--local`, and what clusters must equal."""

from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event

import torch

from orchestrator.datasets import Location
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.stages.runner import build, use_profile
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.trial import Edges, Report, Source, run_trial
from orchestrator.training.world import World


@dataclass(frozen=True)
class LocalLauncher:
    """Builds stages in the calling process, as a world of one worker."""

    store: Artifacts
    location: Location
    checkpoint_seconds: float
    must_leave: Event = field(default_factory=Event)
    failures: dict[str, StageFailed] = field(default_factory=dict)  # errors that would only repeat

    def build(self, stage: Stage, report: Report) -> bool:
        """Run and publish the stage; an error is remembered for the next trial that asks."""
        if stage.key in self.failures:
            raise self.failures[stage.key]
        if self.must_leave.is_set():
            raise StageFailed(stage.name, "the sweep was interrupted", "left")
        use_profile(int(stage.profile["threads"]))
        world = World(
            device=torch.device(str(stage.profile["device"])),
            precision=str(stage.profile["precision"]),
            report=report,
            is_preempted=self.must_leave.is_set,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        try:
            build(stage, world, self.store, self.location)
        except StageFailed as failure:
            if failure.kind == "error":
                self.failures[stage.key] = failure
            raise
        return True


@dataclass(frozen=True)
class LocalExecutor:
    """Runs a source's tasks in order."""

    edges: Edges
    must_leave: Event = field(default_factory=Event)  # the launcher's
    ended: Event = field(default_factory=Event)

    def run(self, source: Source) -> None:
        """Run every task the source hands out."""
        while tasks := source.ask():
            for task in takewhile(lambda _: not self.must_leave.is_set(), tasks):
                source.started(task)
                outcome = run_trial(task.stages.values(), self.edges, lambda progress: True)
                source.tell(task, outcome)
        self.ended.set()

    def halt(self, seconds: float) -> None:
        """Have the running training save its state and end; return then, or after so long."""
        self.must_leave.set()
        self.ended.wait(seconds)

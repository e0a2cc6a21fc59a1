"""Everything in this process, one trial after the other: `--local`, and what clusters must equal."""

from dataclasses import dataclass, field

import torch

from orchestrator.artifacts import Artifacts
from orchestrator.build import build, use_profile
from orchestrator.datasets import Location
from orchestrator.pipeline import Edges, Report, Source, StageFailed, run_trial
from orchestrator.plan import Profile, Stage
from orchestrator.world import World


@dataclass(frozen=True)
class LocalLauncher:
    """Builds stages in the calling process, as a world of one worker."""

    store: Artifacts
    location: Location
    profile: Profile
    checkpoint_seconds: float
    failures: dict[str, StageFailed] = field(default_factory=dict)  # errors that would only repeat

    def build(self, stage: Stage, report: Report) -> bool:
        """Run and publish the stage; an error is remembered for the next trial that asks."""
        if stage.key in self.failures:
            raise self.failures[stage.key]
        use_profile(self.profile.threads)
        world = World(
            device=torch.device(self.profile.device),
            precision=self.profile.precision,
            report=report,
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

    def run(self, source: Source) -> None:
        """Run every task the source hands out."""
        while tasks := source.ask():
            for task in tasks:
                source.started(task)
                outcome = run_trial(task.stages.values(), self.edges, lambda progress: True)
                source.tell(task, outcome)

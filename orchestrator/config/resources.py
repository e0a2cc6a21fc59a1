"""Resources: how wide a study runs and on what, for all stages and for single ones. Never swept."""

from typing import Literal

from pydantic import Field, PositiveInt

from orchestrator.config.base import Spec


class StageResources(Spec):
    """What one kind of stage needs instead of what the others need."""

    workers: PositiveInt | None = None
    """Data-parallel workers."""

    threads: PositiveInt | None = None
    """Intra-operation threads of each worker."""

    gpus_per_worker: float | None = Field(default=None, ge=0.0)
    """Accelerators of each worker; with 0.25 four stages share one."""

    precision: Literal["float32", "bfloat16"] | None = None
    """Of training steps."""


class Resources(Spec):
    """Where and how wide; never swept. Workers, threads and precision form the numeric profile."""

    workers: PositiveInt = 1
    """Data-parallel workers that train one network together."""

    threads: PositiveInt = 1
    """Intra-operation threads of each worker."""

    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    """Accelerators of each worker, fractions included; 0 trains on the CPU."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of training steps; scores are always released in float32."""

    groups: PositiveInt | None = None
    """Worker groups at most; None takes as many as fit the nodes."""

    checkpoint_seconds: float = Field(default=60.0, gt=0.0)
    """An unfinished training leaves a checkpoint this often, in the middle of a long epoch as well."""

    stages: dict[str, StageResources] = Field({})
    """What single stages need instead, for example `evaluation: {gpus_per_worker: 0.25}`."""

    def of(self, stage: str | None) -> "Resources":
        """Return what a stage needs: the settings of all, changed by its own."""
        own = self.stages.get(stage) if stage else None
        return self.but(**own.model_dump(exclude_none=True)) if own else self

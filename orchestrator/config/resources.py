"""Resources: how wide a study runs and on what, for all stages and for single ones. Never swept."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config.base import Refused, Spec


def _is_granted(gpus: float) -> float:
    """Return a number of accelerators that Ray can grant; raise `ValueError` for another."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("above 1 it must be a whole number")
    if 0 < gpus < LEAST_SHARE:
        raise ValueError(f"the smallest share of an accelerator is {LEAST_SHARE}")
    return gpus


LEAST_SHARE = 0.0001
"""Ray's smallest share of an accelerator."""

Workers = Annotated[int, Field(gt=0, le=4096)]
Threads = Annotated[int, Field(gt=0, le=256)]
Accelerators = Annotated[float, Field(ge=0.0, le=64.0), AfterValidator(_is_granted)]
Precision = Literal["auto", "float32", "bfloat16"]


class StageResources(Spec):
    """What one kind of stage needs instead of what the others need."""

    workers: Workers | None = None
    """Data-parallel workers."""

    threads: Threads | None = None
    """Intra-operation threads of each worker."""

    gpus_per_worker: Accelerators | None = None
    """Accelerators of each worker; with 0.25 four stages share one."""

    precision: Precision | None = None
    """Of training steps."""


class Resources(Spec):
    """Where and how wide; never swept. Workers, threads and precision form the numeric profile."""

    workers: Workers = 1
    """Data-parallel workers that train one network together."""

    threads: Threads = 1
    """Intra-operation threads of each worker."""

    gpus_per_worker: Accelerators = 0.0
    """Accelerators of each worker, a fraction for one worker alone; 0 trains on the CPU."""

    precision: Precision = "auto"
    """Of training steps; scores are always released in float32. auto: the faster one for device and
    width, by a measured rule."""

    groups: Workers | None = None
    """Worker groups at most; None takes as many as fit the nodes."""

    checkpoint_seconds: float = Field(default=60.0, gt=0.0, le=1e6)
    """An unfinished training leaves a checkpoint this often, in the middle of a long epoch as well."""

    stages: dict[str, StageResources] = Field({})
    """What single stages need instead, for example `evaluation: {gpus_per_worker: 0.25}`."""

    @model_validator(mode="after")
    def _has_an_accelerator_for_each_rank(self) -> Self:
        _check_ranks(self.workers, self.gpus_per_worker, "")
        for stage, own in self.stages.items():
            workers = own.workers or self.workers
            gpus = self.gpus_per_worker if own.gpus_per_worker is None else own.gpus_per_worker
            _check_ranks(workers, gpus, f"stages.{stage}.", names_workers=own.gpus_per_worker is None)
        return self

    def of(self, stage: str | None) -> "Resources":
        """Return what a stage needs: the settings of all, changed by its own."""
        own = self.stages.get(stage) if stage else None
        return self.but(stages={}, **own.model_dump(exclude_none=True)) if own else self


def _check_ranks(workers: int, gpus: float, section: str, *, names_workers: bool = False) -> None:
    """Raise `Refused` if several workers would share an accelerator: nccl takes one rank on each."""
    if workers == 1 or not 0 < gpus < 1:
        return
    way_out = "give each worker a whole accelerator or use one worker"
    if names_workers:
        rule = f"needs a whole accelerator for each worker, and gpus_per_worker is {gpus:g}"
        raise Refused(f"{section}workers", workers, rule, way_out)
    rule = f"is a share of an accelerator, which {workers} workers of one training cannot have"
    raise Refused(f"{section}gpus_per_worker", gpus, rule, way_out)

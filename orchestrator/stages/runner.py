"""Run one planned stage in this process and publish what it leaves: what every launcher's worker calls."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orchestrator import __version__
from orchestrator.datasets import Dataset, Location, load, weights
from orchestrator.stages import functions as stages
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.blobs import Blobs
from orchestrator.training.world import Cancelled, Diverged, Preempted, World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlobCheckpoint:
    """A training's state under one name beside the artifacts."""

    blobs: Blobs
    name: str

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""
        return self.blobs.get(self.name)

    def save(self, data: bytes) -> None:
        """Replace what was saved, atomically."""
        self.blobs.put(self.name, data)


def use_profile(threads: int) -> None:
    """Fix what would change bits in this process: threads and non-deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with a fixed workspace
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def build(stage: Stage, world: World, store: Artifacts, location: Location) -> None:
    """Run a stage on this rank; rank 0 publishes it. Raise `StageFailed` with what went wrong."""
    checkpoint = BlobCheckpoint(store.blobs, f"checkpoints/{stage.key}.safetensors")
    inputs = stages.Inputs(
        world=replace(world, checkpoint=checkpoint),
        datasets=_loader(stage, location),
        read=_reader(stage, store),
        names={role: part["name"] for role, part in stage.datasets.items()},
        weights=_weights(stage, location),
    )
    try:
        outputs, cost = stages.run(stage, inputs)
    except StageFailed:
        raise
    except Corrupt as error:
        raise StageFailed(stage.name, str(error), "corrupt") from error
    except Cancelled as error:
        raise StageFailed(stage.name, str(error), "cancelled") from error
    except Preempted as error:
        raise StageFailed(stage.name, str(error), "left") from error
    except Diverged as error:
        raise StageFailed(stage.name, str(error)) from error
    except Exception as error:
        logger.exception("event=stage_failed stage=%s key=%s", stage.name, stage.key)
        raise StageFailed(stage.name, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if world.rank == 0:
        store.publish(_describe(stage, outputs, cost), outputs.files)
        store.blobs.remove(checkpoint.name)


def _describe(stage: Stage, outputs: stages.Outputs, cost: dict[str, float]) -> Artifact:
    return Artifact(
        key=stage.key,
        stage=stage.name,
        version=stage.version,
        spec={**stage.specs, "datasets": dict(stage.datasets), "weights": dict(stage.weights)},
        inputs=dict(stage.needs),
        metrics=outputs.metrics,
        cost=cost,
        profile={**stage.profile, "torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()},
        code_version=__version__,
        created_ms=time.time_ns() // 1_000_000,
    )


def _loader(stage: Stage, location: Location) -> Callable[[str], Dataset]:
    """Return a loader that insists on the digests that the stage's key was made with."""
    wanted = {part["name"]: part["digest"] for part in stage.datasets.values()}

    def load_checked(name: str) -> Dataset:
        dataset = load(name, location)
        if dataset.description.digest != wanted[name]:
            raise ValueError(
                f"data set {name} changed since the sweep was planned "
                f"(want {wanted[name][:12]}, got {dataset.description.digest[:12]}); start the sweep again."
            )
        return dataset

    return load_checked


def _weights(stage: Stage, location: Location) -> Callable[[str], Mapping[str, Tensor] | None]:
    """Return a loader by role that insists on the digests that the stage's key was made with."""

    def load_checked(role: str) -> Mapping[str, Tensor] | None:
        if role not in stage.weights:
            return None
        wanted = stage.weights[role]
        found = weights.describe(wanted["name"], location)
        if found.digest != wanted["digest"]:
            raise ValueError(
                f"weights {found.name} changed since the sweep was planned "
                f"(want {wanted['digest'][:12]}, got {found.digest[:12]}); start the sweep again."
            )
        return weights.load(found.name, location)

    return load_checked


def _reader(stage: Stage, store: Artifacts) -> Callable[[str, str], bytes]:
    def read(role: str, name: str) -> bytes:
        artifact = store.find(stage.needs[role])
        if artifact is None:
            raise StageFailed(stage.name, f"input {role} {stage.needs[role][:12]} is not stored", "corrupt")
        return store.read(artifact, name)

    return read

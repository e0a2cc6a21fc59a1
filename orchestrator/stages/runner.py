"""Stage runner: computes one planned stage in this process and publishes it, under every launcher."""

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_type_hints

import torch
from pydantic import TypeAdapter

from orchestrator import __version__
from orchestrator.config.base import digest
from orchestrator.datasets import Dataset, Location, load, programs, services, weights
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.programs import StagedProgram
from orchestrator.datasets.weights_manifest import Weights
from orchestrator.models.services import Asker, ServiceNetwork, Stopped
from orchestrator.stages.cost import Meter
from orchestrator.stages.graph import STAGES, Stage, StageFailed
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.store.answers import Answers
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.blob_leases import BlobLeases
from orchestrator.store.blobs import Blobs
from orchestrator.store.journal import now_ms
from orchestrator.training.seeds import derive_seed, drawing_from
from orchestrator.training.world import Cancelled, Diverged, Preempted, World

logger = logging.getLogger(__name__)

Described = TypeVar("Described", Weights, StagedProgram)
Read = TypeVar("Read")

ENDS: Mapping[type[Exception], str] = {
    Corrupt: "corrupt",
    Cancelled: "cancelled",
    Preempted: "left",
    Stopped: "left",
    Diverged: "error",
}
"""How a stage may end beside being done -> kind of its `StageFailed`; its text is the exception's."""


@dataclass(frozen=True)
class BlobCheckpoint:
    """The state of an unfinished stage, beside the artifacts."""

    blobs: Blobs
    key: str  # of the stage

    @property
    def name(self) -> str:
        """Where it is stored."""
        return f"checkpoints/{self.key}.safetensors"

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""
        return self.blobs.get(self.name)

    def save(self, data: bytes) -> None:
        """Replace what was saved, atomically."""
        self.blobs.put(self.name, data)


def run(stage: Stage, world: World, store: Artifacts, location: Location) -> None:
    """Run a stage on this rank; rank 0 publishes it. All ranks of a worker group enter a stage.

    Raise `StageFailed` with the error's text: kind `corrupt` if an input is missing or damaged, `cancelled`
    or `left` if the training was stopped, else `error`.
    """
    checkpoint = BlobCheckpoint(store.blobs, stage.key)
    input_of = _finder(stage, store)
    inputs = Inputs(
        world=replace(world, checkpoint=checkpoint),
        datasets=_loader(stage, location),
        read=lambda role, name: store.read(input_of(role), name),
        files=lambda role: input_of(role).files,
        names={role: part["name"] for role, part in stage.datasets.items()},
        weights=_staged(
            stage, location, "weights", weights.describe, lambda one: weights.load(one.name, location)
        ),
        program=_staged(
            stage,
            location,
            "program",
            programs.describe,
            lambda one: (programs.read(one.name, location), one.program),
        ),
        service=_service(stage, location, store.blobs, world.is_preempted),
    )
    try:
        outputs, cost = _computed(stage, inputs)
    except StageFailed:
        raise
    except tuple(ENDS) as error:
        kind = next(kind for ending, kind in ENDS.items() if isinstance(error, ending))
        raise StageFailed(stage.label, str(error), kind) from error
    except Exception as error:
        logger.exception("event=stage_failed stage=%s key=%s", stage.label, stage.key)
        raise StageFailed(stage.label, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if world.rank == 0:
        store.publish(_describe(stage, outputs, cost, world.device), outputs.files)
        store.blobs.remove(checkpoint.name)


def _computed(stage: Stage, inputs: Inputs) -> tuple[Outputs, dict[str, float]]:
    """Return a stage's outputs and their cost in wall and CPU seconds and images."""
    function, specs = load_stage(stage)
    meter = Meter()
    # F may draw noise for each prediction.
    with drawing_from(derive_seed("stage", stage.key), inputs.world.device):
        outputs = function(inputs, **specs)
    return outputs, {**meter.seconds(), "images_seen": float(outputs.images_seen)}


def asked_images(stage: Stage, location: Location) -> Sequence[Images]:
    """Return the images that a stage asks F for, as far as they are known before it runs: its data sets'.

    Each list is asked for at once. Raise as loading a data set does.
    """
    function = getattr(importlib.import_module(STAGES[stage.name].path), "asked", None)
    if function is None:
        return []
    _, specs = load_stage(stage)
    names = {role: part["name"] for role, part in stage.datasets.items()}
    inputs = Inputs(World(), _loader(stage, location), lambda role, name: b"", names=names)
    read = {role: specs[role] for role in inspect.signature(function).parameters if role in specs}
    asked: Sequence[Images] = function(inputs, **read)
    return asked


def load_stage(stage: Stage) -> tuple[Callable[..., Outputs], dict[str, Any]]:
    """Return the function that computes a stage, and its sub-specs as that function's types."""
    function = importlib.import_module(STAGES[stage.name].path).run
    types = get_type_hints(function, include_extras=True)
    specs = {role: TypeAdapter(types[role]).validate_python(part) for role, part in stage.specs.items()}
    return function, specs


def _describe(stage: Stage, outputs: Outputs, cost: dict[str, float], device: torch.device) -> Artifact:
    """Return the manifest of what a stage left, without its files."""
    return Artifact(
        key=stage.key,
        stage=stage.name,
        version=stage.version,
        spec={**stage.specs, "datasets": dict(stage.datasets), "weights": dict(stage.weights)},
        inputs=dict(stage.needs),
        metrics=outputs.metrics,
        cost=cost,
        profile={**stage.profile, **_kernels(device)},
        code_version=__version__,
        created_ms=now_ms(),
    )


def _kernels(device: torch.device) -> dict[str, str]:
    """Return what else may change bits: torch's version and the processor's capability; of an accelerator
    its name, compute capability and cuDNN version."""
    found = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found["accelerator"] = torch.cuda.get_device_name(device)
        found |= {"capability": f"{major}.{minor}", "cudnn": str(torch.backends.cudnn.version())}
    return found


def _loader(stage: Stage, location: Location) -> Callable[[str], Dataset]:
    """Return a loader that insists on the digests that the stage was planned with."""
    read = (*stage.datasets.values(), *stage.compared.values())
    wanted = {part["name"]: part["digest"] for part in read}

    def load_checked(name: str) -> Dataset:
        dataset = load(name, location)
        _insist("data set", name, wanted[name], dataset.description.digest)
        return dataset

    return load_checked


def _staged(
    stage: Stage,
    location: Location,
    what: str,
    describe: Callable[[str, Location], Described],
    read: Callable[[Described], Read],
) -> Callable[[str], Read | None]:
    """Return a loader by role of staged weights or of a program that insists on the digests that the stage's
    key was made with; None for a role that has none."""

    def load_checked(role: str) -> Read | None:
        if role not in stage.weights:
            return None
        wanted = stage.weights[role]
        staged = describe(wanted["name"], location)
        _insist(what, staged.name, wanted["digest"], staged.digest)
        return read(staged)

    return load_checked


def _service(
    stage: Stage, location: Location, blobs: Blobs, must_stop: Callable[[], bool]
) -> Callable[[str], ServiceNetwork]:
    """Return a loader by name of a service, as it is to be asked now; answers are in the store."""

    def load_checked(name: str) -> ServiceNetwork:
        staged = services.describe(name, location)
        if "target" in stage.weights:
            _insist("service", name, stage.weights["target"]["digest"], staged.digest)
        answers = Answers(blobs, staged.service.address, digest(staged.service.asked))
        leases = BlobLeases(blobs, f"{answers.folder}/leases")
        named = f"{services.FIELD}={name}"
        return ServiceNetwork(
            Asker(named, staged.service, staged.asking, answers, leases, must_stop=must_stop)
        )

    return load_checked


def _insist(what: str, name: str, wanted: str, given: str) -> None:
    """Raise `ValueError` unless what is staged is what the stage was planned with."""
    if given != wanted:
        raise ValueError(
            f"{what} {name} changed since the sweep was planned "
            f"(want {wanted[:12]}, got {given[:12]}); start the sweep again."
        )


def _finder(stage: Stage, store: Artifacts) -> Callable[[str], Artifact]:
    """Return a finder by role of what input stages left."""

    def find(role: str) -> Artifact:
        artifact = store.find(stage.needs[role])
        if artifact is None:
            raise StageFailed(stage.label, f"input {role} {stage.needs[role][:12]} is not stored", "corrupt")
        return artifact

    return find

"""Part on replay: a training that is killed and resumed, and one that is repeated, have they the same bytes?

`python -m benchmarks.accelerator.replay KIND DEVICE FOLDER [tiny]` trains once and leaves a checkpoint after
every twentieth of a second; the part starts that, kills it and goes on from what is left.
"""

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.accelerator.context import Context, Record
from benchmarks.rows import NETWORKS, SEED, Place, adversaries, inverter_parts, new_classifier, pictures
from orchestrator import config
from orchestrator.attacks import prior
from orchestrator.training.kernels import use_profile
from orchestrator.training.loop import Objective, fit
from orchestrator.training.objectives import classification, reconstruction
from orchestrator.training.pairs import Pairs

SECONDS = 0.05  # between two checkpoints of the run that is killed
HOUR = 3600.0  # of the one that resumes: each is of up to 190 MB, and none is read again
KINDS = ("digit classifier", "digit inverter", "hinge prior")


@dataclass(frozen=True)
class Folder:
    """A checkpoint that is a file."""

    path: Path
    key: str = "replay"

    @property
    def file(self) -> Path:
        """Where it is."""
        return self.path / "checkpoint.safetensors"

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""
        return self.file.read_bytes() if self.file.exists() else None

    def save(self, data: bytes) -> None:
        """Replace what was saved, atomically."""
        beside = self.file.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(self.file)


def parts(kind: str, place: Place, is_tiny: bool) -> tuple[Any, Pairs, Objective, config.Recipe]:
    """Return model, pairs, objective and recipe of a training by its kind."""
    number = 256 if is_tiny else 4096
    recipe = config.Recipe(epochs=6 if is_tiny else 4, batch_size=16 if is_tiny else 64)
    if kind == "hinge prior":
        spec, networks = adversaries(NETWORKS["hinge-prior"], place)
        recipe = spec.recipe.but(epochs=2, batch_size=recipe.batch_size)
        return networks, Pairs(pictures(number, 3, 64), torch.zeros(number)), prior.objective(spec), recipe
    if kind == "digit inverter":
        network, pairs = inverter_parts(NETWORKS["digit-inverter"], place, number)
        return network, pairs, reconstruction(), recipe
    pairs = Pairs(pictures(number, 1, 32), torch.arange(number) % 10)
    return (
        new_classifier(NETWORKS["digit-classifier"], place),
        pairs,
        classification(),
        recipe.but(augmentation="flip"),
    )


def trained(
    kind: str, place: Place, *, is_tiny: bool, folder: Path | None = None, seconds: float = HOUR
) -> str:
    """Train and return the digest of all weights; with a folder, resume from its checkpoint and save one each
    `seconds`."""
    model, pairs, objective, recipe = parts(kind, place, is_tiny)
    world = place.world
    if folder is not None:
        world = replace(world, checkpoint=Folder(folder), checkpoint_seconds=seconds)
    fit(model, pairs, objective, recipe, SEED, world)
    return digest(model)


def digest(model: nn.Module) -> str:
    """Return SHA-256 of a model's state."""
    made = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def replay(context: Context) -> Iterator[Record]:
    """Yield for each kind of training whether a repeat and a killed run that resumes end with the same bytes,
    and which operations torch calls non-deterministic."""
    use_profile(1)
    place = context.place("bfloat16")
    for kind, _ in context.in_time(dict.fromkeys(KINDS), 5.0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first = trained(kind, place, is_tiny=context.is_tiny)
        again = trained(kind, place, is_tiny=context.is_tiny)
        with tempfile.TemporaryDirectory() as name:
            code, size = killed(kind, Path(name), context)
            resumed = trained(kind, place, is_tiny=context.is_tiny, folder=Path(name))
        said = [str(one.message).partition(" does not have a deterministic") for one in caught]
        named = {name for name, words, _ in said if words}
        yield {
            "training": kind,
            "repeated": "equal" if again == first else "differs",
            "killed by": code,
            "checkpoint bytes": size,
            "resumed": ("equal" if resumed == first else "differs") if size else "nothing to resume",
            "not deterministic": sorted(named) or "none",
        }


def killed(kind: str, folder: Path, context: Context) -> tuple[str, int]:
    """Start a training in its own process and kill it once it has left a checkpoint; return the signal that
    ended it and the size of what it left."""
    command = [sys.executable, "-m", "benchmarks.accelerator.replay", kind, str(context.device), str(folder)]
    process = subprocess.Popen([*command, *["tiny"] * context.is_tiny])
    try:
        while process.poll() is None and not Folder(folder).file.exists() and context.left > 2.0:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    code = signal.Signals(-process.returncode).name if process.returncode < 0 else "none: it had ended"
    return code, len(Folder(folder).load() or b"")


if __name__ == "__main__":
    use_profile(1)
    _, wanted, device, where, *tiny = sys.argv
    there = Place(torch.device(device), "bfloat16", 0.02 if tiny else 1.0)
    trained(wanted, there, is_tiny=bool(tiny), folder=Path(where), seconds=SECONDS)

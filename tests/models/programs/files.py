"""Files of programs for tests: small classifiers as TorchScript, and what somebody hostile makes of them."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.config.program import Program
from orchestrator.models.programs.script_types import declared_in

SIDE, CHANNELS, CLASSES = 8, 1, 3
FACTS = Program(
    kind="torchscript", image_size=SIDE, channels=CHANNELS, scaling="unit", outputs="logits", classes=CLASSES
)


class Small(nn.Module):
    """A classifier of a convolution, a batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(CHANNELS, 4, 3, stride=2)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(36, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of images (N, C, S, S)."""
        return self.fc(torch.relu(self.bn(self.conv(images))).flatten(1))


def scripted(network: nn.Module) -> bytes:
    """Return what `torch.jit.save` writes of a compiled network in evaluation mode."""
    return _saved(lambda: torch.jit.script(network.eval()))


def traced(network: nn.Module, images: Tensor) -> bytes:
    """Return what `torch.jit.save` writes of a network that was traced on images (N, C, S, S)."""
    return _saved(lambda: torch.jit.trace(network.eval(), images))


def frozen(network: nn.Module) -> bytes:
    """Return what `torch.jit.save` writes of a network whose weights are constants."""
    return _saved(lambda: torch.jit.freeze(torch.jit.script(network.eval())))


def _saved(make: Callable[[], Any]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is no longer developed
        torch.jit.save(make(), buffer)
    return buffer.getvalue()


def torch_load(data: bytes) -> Any:
    """Return what torch loads by itself, as somebody without the checks would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(io.BytesIO(data), map_location="cpu")


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return an archive whose records were changed, each by its name without the folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as other:
        for name in archive.namelist():
            other.writestr(name, change(name.partition("/")[2], archive.read(name)))
    return buffer.getvalue()


def with_text(data: bytes, old: str, new: str) -> bytes:
    """Return a program whose code has another text in one place."""
    found = []

    def change(name: str, content: bytes) -> bytes:
        if name.startswith("code/") and name.endswith(".py") and old.encode() in content:
            found.append(name)
            return content.replace(old.encode(), new.encode(), 1)
        return content

    changed = rewritten(data, change)
    assert found, f"no code holds {old}"
    return changed


def with_record(data: bytes, name: str, content: bytes) -> bytes:
    """Return an archive with one more record, or another content of one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as other:
        folder = archive.namelist()[0].partition("/")[0]
        for one in archive.namelist():
            if one != f"{folder}/{name}":
                other.writestr(one, archive.read(one))
        other.writestr(f"{folder}/{name}", content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def record(data: bytes, name: str) -> bytes:
    """Return a record of an archive by its name without the folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return next(archive.read(one) for one in archive.namelist() if one.partition("/")[2] == name)


def declared(data: bytes) -> dict[str, dict[str, str]]:
    """Return the classes of a program with the types of their attributes."""
    classes: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in (one.partition("/")[2] for one in archive.namelist()):
            if name.startswith("code/") and name.endswith(".py"):
                module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
                classes |= declared_in(record(data, name).decode("ascii"), module, "x")
    return classes


class Opens(nn.Module):
    """A network that makes a file where it runs: `torch.from_file` makes one that it is to share."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, S, S) moved by what is in the file."""
        return images + torch.from_file(self.path, True, 1).sum()


class OpensAtLoad(nn.Module):
    """A network whose state is set by code of its own, which makes a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, S, S) as they are."""
        return images

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = bool(torch.from_file(self.path, True, 1).sum() > 0.0)  # else it is optimised away

"""A module of a notebook as a staged program, under a name that its computation and its weights give."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchestrator.api.arrays import LETTERS
from orchestrator.api.options import open_data
from orchestrator.api.programs import found
from orchestrator.config.base import NO_VALUE, Refused, digest
from orchestrator.config.program import Outputs, Program
from orchestrator.datasets import programs
from orchestrator.models.programs import FLOOR, ProgramNetwork
from orchestrator.models.programs.exporting import exported
from orchestrator.runtime.open_store import check
from orchestrator.store.blobs import sha256

Scaling = Literal["unit", "imagenet", "signed"]

COMPARED = 4
"""Images of noise that a module and its export answer."""

TOLERANCE = 1e-3
"""Of what they answer, as a share of the largest score."""


@dataclass(frozen=True)
class Prepared:
    """An exported module with what is declared of it and was found; nothing is staged yet."""

    content: bytes
    program: Program

    def stage(self, data: str | Path | None, name: str = "module") -> str:
        """Stage it at a data location; return `name` with a digest of what it is."""
        blobs = open_data(data)
        check(blobs, option="data")
        key = digest({"sha256": sha256(self.content), "program": self.program.plain})
        whole = f"{name}-{key[:LETTERS]}"
        programs.stage(self.content, self.program, "a module in Python", blobs, whole)
        return whole


def stage_module(  # noqa: PLR0913 - what is declared of a module
    module: nn.Module,
    *,
    image_size: int,
    channels: int = 3,
    scaling: Scaling = "unit",
    outputs: Outputs = "logits",
    class_names: Iterable[Any] | None = None,
    data: str | Path | None = None,
    name: str = "module",
) -> str:
    """Stage a classifier at a data location for `target.program`; return `name` with a digest of what it is.

    The module takes float32 images (N, channels, image_size, image_size), for any N, scaled from [0, 1] as
    `scaling` says, and returns logits or probabilities (N, k); `class_names` are its k classes in order. It
    is exported by torch.export in evaluation mode, so gradients pass. The location is `data`, without it that
    of the environment variable INVERSION_DATA. The same module is staged once.

    Raise `Refused` for a module in training mode, that cannot be exported, or answers otherwise once it is.
    """
    facts = {"image_size": image_size, "channels": channels, "scaling": scaling, "outputs": outputs}
    return prepared(module, facts, class_names).stage(data, name)


def prepared(
    module: nn.Module, facts: Mapping[str, Any], class_names: Iterable[Any] | None = None
) -> Prepared:
    """Export a module; `facts` are fields of `Program`, with their values. Raise as `stage_module` does."""
    side, channels = facts["image_size"], facts["channels"]
    content = exported(module, torch.zeros(COMPARED, channels, side, side))
    names = None if class_names is None else tuple(map(str, class_names))
    program, network = found(content, "module", facts, names, _argument)
    _compare(module, network)
    return Prepared(content, program)


def check_gradients(module: nn.Module, shape: tuple[int, int, int], attack: str) -> None:
    """Raise `Refused` if no gradient passes from a module's scores to images of a shape (C, S, S), which an
    attack of this name reads."""
    images = _noise(shape, module).requires_grad_()
    scores: Tensor = module(images)
    square = scores.float().square().sum()
    found = torch.autograd.grad(square, images, allow_unused=True)[0] if square.requires_grad else None
    if found is None or not bool(found.abs().sum() > 0):
        rule = f"passes no gradient from its scores to its images, and attack={attack} reads gradients"
        way_out = "take no_grad, detach and rounding out of its forward, or choose inverter or brepmi"
        raise Refused("module", NO_VALUE, rule, way_out)


def _noise(shape: tuple[int, int, int], module: nn.Module) -> Tensor:
    """Return images (N, C, S, S) in [0, 1], where the module is."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((COMPARED, *shape), generator=generator)
    return images.to(next(module.parameters(), images).device)


@torch.no_grad()
def _compare(module: nn.Module, network: ProgramNetwork) -> None:
    """Raise `Refused` unless the exported module answers noise as the module itself does."""
    facts = network.facts
    images = _noise((facts.channels, facts.image_size, facts.image_size), module)
    scores = module(network.scaling(images)).cpu().float()
    if facts.outputs == "probabilities":
        scores = scores.clamp_min(FLOOR).log()
    off = float((network(images.cpu()) - scores).abs().max())
    if not off <= TOLERANCE * max(1.0, float(scores.abs().max())):
        rule = f"answers otherwise once it is exported (scores differ by {off:.3g})"
        way_out = "make its forward a function of the images alone: no state, no random numbers"
        raise Refused("module", NO_VALUE, rule, way_out)


def _argument(field: str) -> str:
    """Return the argument that a field of `Program` is here."""
    return "class_names" if field == "classes" else field

"""Programs: classifiers that others saved as files (TorchScript, torch.export, ONNX), as networks to attack.

No Python of a file runs and nothing beside the result is touched: a file is checked before a library that
would act on it sees it. What it computes runs, as any network does.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.program import Program, ProgramKind
from orchestrator.models.inputs import Resized, Scaled
from orchestrator.models.programs.archives import read_archive
from orchestrator.models.programs.exported import is_exported, load_exported
from orchestrator.models.programs.exported_graph import ExportedGraph
from orchestrator.models.programs.onnx_files import BEGIN, OnnxNetwork, load_onnx
from orchestrator.models.programs.torchscript import is_torchscript, load_torchscript

__all__ = ["FLOOR", "ProgramNetwork", "kind_of", "load_program"]

CPU = torch.device("cpu")
FLOOR = 1e-12
"""Least probability before its logarithm is taken: below it a class's probability gives no gradient."""


class ProgramNetwork(nn.Module):
    """Images (N, C, S, S) in [0, 1], of any side S -> logits (N, k), float32.

    Resizing (bilinear with antialias) and scaling stand before the program. Of probabilities p the logits are
    log(max(p, `FLOOR`)), whose softmax is p again. A program that takes a number of images at once gets them
    in such batches, the last one filled up with zeros.
    """

    def __init__(self, program: nn.Module, facts: Program) -> None:
        super().__init__()
        self.program, self.facts = program, facts
        self.batch: int | None = program.batch if isinstance(program, ExportedGraph | OnnxNetwork) else None
        self.resizing = Resized(facts.image_size)
        self.scaling = nn.Identity() if facts.scaling == "unit" else Scaled(facts.scaling)
        self.place = nn.Parameter(torch.empty(0))  # tells the device, of programs without parameters too

    @property
    def is_differentiable(self) -> bool:
        """Whether gradients reach the images."""
        return self.facts.is_differentiable

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: what a program does in training, only its file knows."""
        return super().train(False)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the network; a program keeps the layout in memory that it was saved with, which views in it
        may rely on."""
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs) if args or kwargs else self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k)."""
        is_resized = images.shape[-1] != self.facts.image_size
        scaled = self.scaling(self.resizing(images) if is_resized else images)
        # Its own, as a program may write into it, in the layout that views in a program may rely on.
        own = scaled.clone(memory_format=torch.contiguous_format)
        scores = self._answers(own).float()
        return scores.clamp_min(FLOOR).log() if self.facts.outputs == "probabilities" else scores

    def _answers(self, images: Tensor) -> Tensor:
        """Return the program's answers to images, in batches of the size that it takes; raise `TypeError` for
        answers that are no tensor."""
        size = self.batch
        if size is None or len(images) == size:
            return self._answer(images)
        padding = images.new_zeros((-len(images) % size, *images.shape[1:]))
        batches = torch.cat([images, padding]).split(size)
        return torch.cat([self._answer(batch) for batch in batches])[: len(images)]

    def _answer(self, images: Tensor) -> Tensor:
        versions = self._versions()
        answer = self.program(images)
        if self._versions() != versions:
            raise ValueError("the program writes into its weights: its answers would depend on earlier ones")
        if not isinstance(answer, Tensor):
            raise TypeError(f"the program returns a {type(answer).__name__}, not one tensor of scores")
        return answer

    def _versions(self) -> list[int]:
        """Return how often each tensor of the program was written into."""
        return [one._version for one in (*self.program.parameters(), *self.program.buffers())]


def kind_of(data: bytes, where: str) -> ProgramKind:
    """Return how a file was saved; raise `Refused` under the name `where` if it is no program."""
    if data.startswith(b"PK\x03\x04"):
        records = read_archive(data, where)
        if is_torchscript(records):
            return "torchscript"
        if is_exported(records):
            return "export"
        rule = "is a zip archive, but no program of torch.jit.save or torch.export.save"
        raise Refused(where, NO_VALUE, rule, "stage a state dict without --program")
    if data.startswith(BEGIN):
        return "onnx"
    if data.startswith(b"\x80"):
        rule = "is a pickle, whose loading runs what it asks for, and no program"
        raise Refused(where, NO_VALUE, rule, "save it with torch.export.save, or stage a state dict")
    rule = "is no program: neither of torch.jit.save nor of torch.export.save nor ONNX"
    raise Refused(where, NO_VALUE, rule, "stage a state dict without --program")


def load_program(
    data: bytes, facts: Program, where: str = "the program", device: torch.device = CPU
) -> ProgramNetwork:
    """Return the network of a program's file, on a device, in evaluation mode; its weights take no gradient.

    ONNX computes on the CPU whatever the device is. Raise `Refused` under the name `where` for a file that is
    damaged or asks for anything but computing.
    """
    program: nn.Module
    if facts.kind == "torchscript":
        program = load_torchscript(data, where, device)  # there, because its constants do not move
    else:
        program = load_exported(data, where) if facts.kind == "export" else load_onnx(data, where)
    return ProgramNetwork(program, facts).eval().requires_grad_(False).to(device)

"""Program: what is declared of a classifier that is given as a file, and what its staging found."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import Spec

ProgramKind = Literal["torchscript", "export", "onnx"]
Outputs = Literal["logits", "probabilities"]

ENDINGS: dict[ProgramKind, str] = {"torchscript": "pt", "export": "pt2", "onnx": "onnx"}
"""Kind -> ending of the stored file's name."""

Side = Annotated[int, Field(ge=1, le=4096)]


class Program(Spec):
    """A classifier of which there is a program, not a network of this project."""

    kind: ProgramKind
    """How the file was saved: by `torch.jit.save`, by `torch.export.save`, or as ONNX."""

    image_size: Side
    """Side of the images that the program takes, in pixels."""

    channels: Literal[1, 3]
    """Of these images."""

    scaling: Literal["unit", "imagenet", "signed"]
    """What the program expects images of [0, 1] to be scaled to, as in `target.model.scaling`."""

    outputs: Outputs
    """What it returns of each image."""

    classes: Annotated[int, Field(ge=2, le=10_000_000)]
    """k, the number of its outputs, as one pass at staging found."""

    names: tuple[str, ...] | None = None
    """Names of the classes in the order of the outputs."""

    @property
    def is_differentiable(self) -> bool:
        """Whether gradients reach the images."""
        return self.kind != "onnx"

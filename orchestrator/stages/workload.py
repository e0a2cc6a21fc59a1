"""Workload: what a stage does in numbers, and the types of the sub-specs that formulas read. No torch."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from pydantic import TypeAdapter

from orchestrator.config import (
    Attack,
    Auxiliary,
    Data,
    Evaluation,
    Fisher,
    Judge,
    Model,
    Pretrain,
    Prior,
    Recogniser,
    Release,
    Shield,
    Student,
    Surrogate,
    Target,
)
from orchestrator.models.operations import Unknown

ROLES: Mapping[str, Any] = {
    "attack": Attack,
    "auxiliary": Auxiliary,
    "data": Data,
    "evaluation": Evaluation,
    "fisher": Fisher,
    "judge": Judge,
    "model": Model,
    "pretrain": Pretrain,
    "prior": Prior,
    "recogniser": Recogniser,
    "release": Release,
    "shield": Shield,
    "student": Student,
    "surrogate": Surrogate,
    "target": Target,
}
"""Role of a sub-spec -> its type."""


class Sizes(Protocol):
    """Numbers of images of the data sets that a plan has."""

    def private(self, data: Data, classes: int, part: str) -> int:
        """Return those of one part of the target's classes."""

    def every(self, data: Data, part: str) -> int:
        """Return those of one part of all classes."""

    def public(self, data: Data) -> int:
        """Return those of the public classes of the private set."""

    def whole(self, name: str) -> int:
        """Return those of a data set."""

    def auxiliary(self, data: Data, target: Target, auxiliary: Auxiliary) -> int:
        """Return those that the adversary has."""


def no_work(sizes: Sizes) -> float:
    """Return 0."""
    return 0.0


@dataclass(frozen=True)
class Work:
    """What a stage does."""

    family: str
    """The networks that do it, by architecture."""

    each: float
    """Multiply-adds for each image seen."""

    images: Callable[[Sizes], float]
    """Images that the stage will see."""

    once: Callable[[Sizes], float] = no_work
    """Multiply-adds whatever the number of images that it counts: of images that it sees beside."""

    spread: float = 0.0
    """Deviation of the logarithm of the time that comes of what the formula leaves out."""

    parameters: float = 0.0
    """Of the networks in memory."""

    trained: float = 0.0
    """Those of them that an optimiser has a state of."""

    activations: float = 0.0
    """Numbers that a step keeps of all images of its batch."""

    on_accelerator: float | None = None
    """The same on an accelerator, where batches are others there."""

    unknown: Unknown = ""
    """What is not known of its networks: with `size` only stages of the same family are compared, with `time`
    none."""

    def total(self, images: float, sizes: Sizes) -> float:
        """Return the multiply-adds of so many images; a stage that counts none works as for one."""
        return self.once(sizes) + max(1.0, images) * self.each


class Reader:
    """Reads the sub-specs of planned and stored stages as their types, each once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[object, Any]] = {}

    def specs(self, roles: Mapping[str, Any]) -> SimpleNamespace:
        """Return the sub-specs by role; raise `ValidationError` for one of an older version."""
        return SimpleNamespace(
            **{role: self._one(role, plain) for role, plain in roles.items() if role in ROLES}
        )

    def _one(self, role: str, plain: Any) -> Any:
        if id(plain) not in self._read:  # the object is kept, so that no other gets its id
            self._read[id(plain)] = plain, _adapter(role).validate_python(plain)
        return self._read[id(plain)][1]


@functools.cache
def _adapter(role: str) -> TypeAdapter[Any]:
    return TypeAdapter(ROLES[role])

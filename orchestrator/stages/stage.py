"""A planned stage with its key, the numeric profile in it, and how a stage fails. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

from orchestrator.config.base import digest


@dataclass(frozen=True)
class Profile:
    """The numeric profile: what changes bits although the spec is the same."""

    device: str = "cpu"
    precision: str = "float32"  # or bfloat16; auto before a stage is planned
    workers: int = 1
    threads: int = 1


class StageFailed(Exception):
    """A stage ended in an error.

    `kind` is error, corrupt, cancelled, lost (its workers kept dying) or left (the sweep is interrupted).
    """

    def __init__(self, stage: str, message: str, kind: str = "error") -> None:
        super().__init__(stage, message, kind)
        self.stage, self.message, self.kind = stage, message, kind


@dataclass(frozen=True)
class Stage:
    """One planned computation; `needs` holds the keys of its input artifacts by role."""

    name: str
    version: int
    specs: Mapping[str, dict]  # role -> canonical sub-spec
    datasets: Mapping[str, Mapping[str, str]]  # role -> name and digest of the manifest
    needs: Mapping[str, str]  # role -> stage key
    weights: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # role -> name and digest
    profile: Mapping[str, str | int] = field(default_factory=dict)
    instance: str = ""  # of several uses by one trial; not in the key, so that trials share artifacts
    compared: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Role -> name and digest of data sets that are only compared with the others; not in the key, since
    those of the inputs made from them hold it."""

    @cached_property
    def key(self) -> str:
        """SHA-256 hex of the canonical JSON of everything above but the instance and the sets compared."""
        left_out = ("instance", "compared")
        return digest({one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out})

    @property
    def label(self) -> str:
        """Name within its trial: `surrogate`, or `surrogate.b0` of several."""
        return f"{self.name}.{self.instance}" if self.instance else self.name

    def metric(self, name: str) -> str:
        """Return the name within the trial of a metric `family/name` that the stage left."""
        family, _, rest = name.partition("/")
        return f"{family}.{self.instance}/{rest}" if self.instance else name

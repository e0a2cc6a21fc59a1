"""Records of a sweep for its listeners: plain data with fixed times, so repeating one changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from orchestrator.config.base import Scalar

Status = Literal["finished", "failed", "pruned"]
StageCounts = Mapping[str, Mapping[str, int]]
"""Stage name -> how many distinct stages were `run` by this start and `reused` from the store."""


@dataclass(frozen=True)
class Curve:
    """One metric over epochs."""

    name: str  # `stage/name`, e.g. `inversion/validation_loss`
    values: Sequence[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class DatasetInput:
    """A data set that a trial read."""

    name: str
    digest: str  # SHA-256 of its manifest
    source: str  # a URI or `built-in`
    context: str  # private, auxiliary or pretrain
    num_images: int
    num_classes: int


@dataclass(frozen=True)
class Picture:
    """A stored PNG: a large sweep's would not fit its driver's memory, so it is read when it is shown."""

    sha256: str  # of its bytes
    read: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class TrialRecord:
    """One finished, failed or pruned sweep point; everything in it comes from the store."""

    key: str  # digest of the resolved spec
    index: int  # position in the study
    name: str  # from its axes, e.g. `m001-k005-same-heldout-full-s0`; no other trial of the sweep has it
    params: Mapping[str, Scalar]  # flattened spec
    axes: Mapping[str, Scalar]  # swept fields only, short names; None is written `all`
    status: Status
    stage_keys: Mapping[str, str] = field(default_factory=dict)  # stage -> key
    metrics: Mapping[str, float] = field(default_factory=dict)  # `stage/name` -> value
    costs: Mapping[str, float] = field(default_factory=dict)  # `cost/...` -> value, not in result tables
    curves: Sequence[Curve] = ()
    images: Mapping[str, Picture] = field(default_factory=dict)
    datasets: Sequence[DatasetInput] = ()
    held: Sequence[str] = ()  # parts of the metrics whose private images the adversary held: train, test
    failed_stage: str | None = None
    error: str | None = None
    started_ms: int = 0  # Unix milliseconds, from the manifests
    ended_ms: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, with the SHA-256 of each picture."""
        pictures = {name: picture.sha256 for name, picture in self.images.items()}
        parts = {
            "curves": [asdict(one) for one in self.curves],
            "datasets": [asdict(one) for one in self.datasets],
        }
        return {one.name: getattr(self, one.name) for one in fields(self)} | parts | {"images": pictures}


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it starts."""

    key: str  # digest of the resolved study without its resources
    study: str
    about: str
    study_yaml: str  # resolved
    axes: Mapping[str, Sequence[Scalar]]
    num_points: int
    num_dropped: int
    objective: str  # metric that tables and views sort by
    maximize: bool
    started_ms: int
    replicates: Sequence[str] = ()  # axes that repeat a setting, over which tables average
    metrics: Sequence[str] = ()  # that its report names
    scale: str | None = None  # of the study, None as its file has it
    overrides: Sequence[str] = ()  # `field=value`, over file and scale


@dataclass(frozen=True)
class StoredModel:
    """A stage's networks as the store has them."""

    role: str  # target, prior or inverter
    key: str  # of the stage
    trial: str  # key of a trial that has it
    setting: str  # e.g. `m=1, k=5`
    files: Sequence[str]  # safetensors
    read: Callable[[str], bytes] = field(compare=False, repr=False)  # a plain function: records are copied


@dataclass(frozen=True)
class SweepReport:
    """A sweep as it ends."""

    files: Mapping[str, bytes]  # path under `report/` -> content: results.csv, results.parquet, *.png
    metrics: Mapping[str, float]  # e.g. trials_finished, trials_failed, stages_run, stages_reused
    note: str  # Markdown: what was swept, the best point, where to look
    num_failed: int
    ended_ms: int
    models: Sequence[StoredModel] = ()  # to be registered

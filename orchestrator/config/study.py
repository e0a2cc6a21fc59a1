"""A study: one YAML file that sweeps axes over a base spec. Data, no logic; users copy one and edit it.

`load` reads it (OmegaConf merges, pydantic validates), `points` turns its grids into sweep points.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.config.base import Scalar, Spec, digest
from orchestrator.config.report import Report

# `seed` is shorthand: the victim's and the adversary's seeds move together.
SHORTHANDS = {"seed": ("target.seed", "attack.seed")}
SHORT_NAMES = {
    "release.truncation": "m",
    "target.classes": "k",
    "auxiliary.kind": "auxiliary",
    "auxiliary.size": "size",
    "target.budget": "budget",
    "attack.align": "align",
    "target.defense": "defense",
    "target.snapshot": "snapshot",
}
EMPTY_WORDS = {"target.defense": "none", "target.pretrain": "none", "target.snapshot": "selected"}
"""How tables write the empty value of an axis; elsewhere it means that everything is taken, `all`."""


LABEL = "label"
"""What a mapping among an axis's values may have beside settings: how tables write it."""


class StudyError(ValueError):
    """The study cannot be run as written; the message is one line for each fault."""


class Range(Spec):
    """A continuous or integer axis for random and Optuna searches."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    log: bool = False
    """Draw on a logarithmic scale."""

    integer: bool = False
    """Draw whole numbers."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low} must be below high={self.high} and, with log, above 0")
        return self


AxisValues = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, Mapping | Range) else "list"),
]
Axes = dict[str, AxisValues]


class Asha(Spec):
    """Stop inverters early whose held-out loss lags (asynchronous successive halving)."""

    grace_epochs: PositiveInt = 10
    """Epochs that every inverter trains at least."""

    reduction_factor: int = Field(default=3, ge=2)
    """One of so many inverters goes on after each rung."""


class Search(Spec):
    """How points are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid runs every combination, random draws, optuna learns from what it saw."""

    samples: PositiveInt = 20
    """Points of a random or Optuna search."""

    batch: PositiveInt = 4
    """Optuna points asked at once; told in index order, so the search repeats whatever finishes first."""

    seed: int = 0
    """Of random and Optuna draws."""

    objectives: dict[str, Literal["minimize", "maximize"]] = Field({"inversion/mse_test": "minimize"})
    """Metric -> direction; the first one sorts tables and views."""

    scheduler: Asha | None = None
    """ASHA compares trials in the order they run: its choices are not reproducible. None stops nothing."""

    @field_validator("objectives")
    @classmethod
    def _has_one(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("name at least one metric, for example {inversion/mse_test: minimize}")
        return value


class StageResources(Spec):
    """What one kind of stage needs instead of what the others need."""

    workers: PositiveInt | None = None
    """Data-parallel workers."""

    threads: PositiveInt | None = None
    """Intra-operation threads of each worker."""

    gpus_per_worker: float | None = Field(default=None, ge=0.0)
    """Accelerators of each worker; with 0.25 four stages share one."""

    precision: Literal["float32", "bfloat16"] | None = None
    """Of training steps."""


class Resources(Spec):
    """Where and how wide; never swept. Workers, threads and precision form the numeric profile."""

    workers: PositiveInt = 1
    """Data-parallel workers that train one network together."""

    threads: PositiveInt = 1
    """Intra-operation threads of each worker."""

    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    """Accelerators of each worker, fractions included; 0 trains on the CPU."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of training steps; scores are always released in float32."""

    groups: PositiveInt | None = None
    """Worker groups at most; None takes as many as fit the nodes."""

    checkpoint_seconds: float = Field(default=60.0, gt=0.0)
    """An unfinished training leaves a checkpoint this often, in the middle of a long epoch as well."""

    stages: dict[str, StageResources] = Field({})
    """What single stages need instead, for example `evaluation: {gpus_per_worker: 0.25}`."""

    def of(self, stage: str | None) -> "Resources":
        """Return what a stage needs: the settings of all, changed by its own."""
        own = self.stages.get(stage) if stage else None
        return self.model_copy(update=own.model_dump(exclude_none=True)) if own else self


class Study(Spec):
    """The whole file."""

    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    """Name: MLflow's experiment and the report's folder."""

    about: str = ""
    """One sentence for people."""

    base: dict[str, Any]
    """A trial spec; fields that every grid sweeps may be left out."""

    sweep: list[Axes] = Field(min_length=1)
    """Grids whose points are joined; a single mapping is one grid."""

    search: Search = Search()
    """How points are chosen."""

    resources: Resources = Resources()
    """Where and how wide it runs."""

    report: Report = Report()
    """What the report shows."""

    @field_validator("sweep", mode="before")
    @classmethod
    def _one_grid_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _axes_fit_the_search(self) -> Self:
        for axis, values in ((a, v) for grid in self.sweep for a, v in grid.items()):
            if isinstance(values, list) and not values:
                raise ValueError(f"sweep.{axis}=[] has no value; give at least one or drop the axis.")
            if isinstance(values, Range) and self.search.algorithm == "grid":
                raise ValueError(
                    f"sweep.{axis} is a range, but a grid takes lists; "
                    "set search.algorithm to random or optuna."
                )
        columns: dict[str, str] = {}
        for axis in dict.fromkeys(axis for grid in self.sweep for axis in grid):
            column = short_name(axis)
            if columns.setdefault(column, axis) != axis:
                raise ValueError(
                    f"sweep.{axis} and sweep.{columns[column]} share the column {column}; sweep one of them."
                )
        if self.search.algorithm != "grid" and len(self.sweep) != 1:
            raise ValueError(
                f"search.algorithm={self.search.algorithm} takes one sweep mapping, not {len(self.sweep)}."
            )
        return self

    @property
    def key(self) -> str:
        """Digest of what the study computes: resources and words do not count."""
        return digest(self.model_dump(mode="json", exclude={"resources", "about", "report"}))

    @property
    def objective(self) -> tuple[str, bool]:
        """The first objective and whether larger is better for it."""
        metric, direction = next(iter(self.search.objectives.items()))
        return metric, direction == "maximize"

    def axes(self) -> dict[str, list[Scalar]]:
        """Return every swept axis with its values in order of appearance (a range gives its ends)."""
        found: dict[str, list[Scalar]] = {}
        for axis, values in ((a, v) for grid in self.sweep for a, v in grid.items()):
            listed = [values.low, values.high] if isinstance(values, Range) else values
            known = found.setdefault(short_name(axis), [])
            known.extend(word for word in (shown(value, axis) for value in listed) if word not in known)
        return found

    def yaml(self) -> str:
        """Return the resolved study, as it is logged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)


def short_name(axis: str) -> str:
    """Return the column name of an axis: m, k, auxiliary, budget, ... or its path without the section."""
    return SHORT_NAMES.get(axis, axis)


def shown(value: Any, axis: str = "") -> Scalar:
    """Return how tables write a value of an axis: nothing by its word, a mapping by the settings it sets."""
    nothing = EMPTY_WORDS.get(axis, "all")
    if value is None:
        return nothing
    if not isinstance(value, Mapping):
        return value
    if LABEL in value:
        return str(value[LABEL])
    plain = {name: part for name, part in value.items() if not isinstance(part, Mapping)}
    parts = plain or value  # which network an attack trains is no news in a table of attacks
    return " ".join(filter(None, (_shown_part(name, part) for name, part in parts.items()))) or nothing


def _shown_part(name: str, value: Any) -> str:
    """Return one setting of a mapping: names and kinds speak for themselves, switches when they are on."""
    if value is None or value is False:
        return ""
    if value is True:
        return name.replace("_", "-")
    if isinstance(value, Mapping):
        return f"{name}({shown(value)})"
    return value if isinstance(value, str) else f"{name}={value}"

"""A study: one YAML file that sweeps axes over a base spec. Data, no logic; users copy one and edit it.

`Study.read` merges the file with a scale and `--set` overrides (OmegaConf) and validates (pydantic);
`expand` turns a grid into points and counts the combinations that cannot exist (m > k) with the reason.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from orchestrator.plan import digest
from orchestrator.records import Scalar
from orchestrator.spec import Spec, TrialSpec

# `seed` is shorthand: the victim's and the adversary's seeds move together.
SHORTHANDS = {"seed": ("target.seed", "attack.seed")}
SHORT_NAMES = {
    "release.truncation": "m",
    "target.classes": "k",
    "auxiliary.kind": "auxiliary",
    "auxiliary.size": "size",
    "target.budget": "budget",
    "attack.align": "align",
}


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
    """Worker groups at most; None takes as many as the cluster has slots for."""

    checkpoint_seconds: float = Field(default=60.0, gt=0.0)
    """An unfinished training leaves a checkpoint at the first epoch's end after this time."""


class Report(Spec):
    """What the sweep's report shows beside the objectives."""

    metrics: tuple[str, ...] = ("inversion/mse_test", "inversion/ssim_test", "attack/accuracy_top1_test")
    """Columns of the summary over seeds."""

    rows: tuple[str, ...] = ()
    """Axes (short names) whose values are the rows of the study's picture; none draws no picture."""

    where: dict[str, str | int | float | bool] = Field({})
    """Values of the other axes in that picture; an axis left out takes its first value."""

    columns: PositiveInt = 10
    """Images in each row."""


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
            known.extend(value for value in map(shown, listed) if value not in known)
        return found

    def yaml(self) -> str:
        """Return the resolved study, as it is logged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)


@dataclass(frozen=True)
class Point:
    """One sweep point: its place, its swept values and its spec."""

    index: int
    axes: Mapping[str, Scalar]  # short name -> shown value
    spec: TrialSpec

    @property
    def key(self) -> str:
        """Digest of the spec."""
        return digest(self.spec.model_dump(mode="json"))

    @property
    def name(self) -> str:
        """Sortable run name, e.g. `0007-m003-k05-same-heldout-full-s0`."""
        return "-".join(
            [f"{self.index:04d}", *(_name_part(axis, value) for axis, value in self.axes.items())]
        )


@dataclass(frozen=True)
class Dropped:
    """A combination of a grid that cannot exist."""

    axes: Mapping[str, Scalar]
    reason: str


def read_study(path: Path, *, overrides: Sequence[str] = (), scale: str | None = None) -> Study:
    """Read a study file, apply its scale and then the `a.b=c` overrides; raise `StudyError`."""
    raw = _load(path)
    scales = raw.pop("scales", None) or {}
    if scale is not None:
        if not isinstance(scales, Mapping) or not isinstance(scales.get(scale, {}), Mapping):
            raise StudyError(f"scales in {path.name} must read scales: {{{scale}: {{path: value}}}}.")
        if scale not in scales:
            raise StudyError(f"--scale {scale} is not in {path.name}; it knows {_listing(scales)}.")
        for name, value in scales[scale].items():
            _assign(raw, name, value)
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise StudyError(f"--set {override} must read path=value, for example target.seed=3.")
        root = name.split(".", 1)[0]
        _assign(raw, name if root in Study.model_fields else f"base.{name}", _value(override, text))
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(explain(error, path.name)) from None


def _value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(
            f"--set {override} must give a YAML value, for example 3, [1, 2] or {{low: 1, high: 9}}."
        ) from None


def expand(study: Study) -> tuple[list[Point], list[Dropped]]:
    """Return the points of a grid in file order, without repeats, and the combinations that were dropped."""

    points: list[Point] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for grid in study.sweep:
        for values in itertools.product(*(v for v in grid.values() if isinstance(v, list))):
            made = make_point(study, len(points), dict(zip(grid, values, strict=True)))
            if isinstance(made, Dropped):
                dropped.append(made)
            elif made.key in seen:
                dropped.append(Dropped(made.axes, "repeats a point of the sweep"))
            else:
                seen.add(made.key)
                points.append(made)
    if not points:
        raise StudyError(f"sweep: none of its {len(dropped)} points can exist; {dropped[0].reason}")
    return points, dropped


def make_point(study: Study, index: int, values: Mapping[str, Any]) -> Point | Dropped:
    """Put axis values over the base; what cannot exist is dropped, a wrong value raises `StudyError`."""
    raw = copy.deepcopy(study.base)
    for axis, value in values.items():
        for path in SHORTHANDS.get(axis, (axis,)):
            _assign(raw, path, value)
    axes = {short_name(axis): shown(value) for axis, value in values.items()}
    try:
        spec = TrialSpec.model_validate(raw)
        axes = _all_axes(study, values, spec)
    except ValidationError as error:
        if all(fault["type"] == "value_error" and not fault["loc"] for fault in error.errors()):
            return Dropped(axes, _reason(error))
        raise StudyError(explain(error, "base")) from None
    if spec.release.truncation == spec.target.classes:  # releasing k of k scores is releasing all of them
        spec = spec.model_copy(update={"release": spec.release.model_copy(update={"truncation": None})})
    return Point(index, axes, spec)


def _all_axes(study: Study, values: Mapping[str, Any], spec: TrialSpec) -> dict[str, Scalar]:
    """Return the value of every swept axis; one that this grid does not sweep has the base's value."""
    plain = spec.model_dump(mode="json")
    axes: dict[str, Scalar] = {}
    for axis in (axis for grid in study.sweep for axis in grid):
        value = values[axis] if axis in values else _lookup(plain, SHORTHANDS.get(axis, (axis,))[0])
        axes[short_name(axis)] = shown(value)
    return axes


def _lookup(plain: Any, path: str) -> Any:
    for part in path.split("."):
        plain = plain[part] if isinstance(plain, Mapping) else None
    return plain


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Return nested mappings as dotted names; None is written `none`."""

    flat: dict[str, Scalar] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            flat |= flatten(part, f"{prefix}{name}.")
        else:
            flat[prefix + name] = "none" if part is None else part
    return flat


def short_name(axis: str) -> str:
    """Return the column name of an axis: m, k, auxiliary, budget, ... or its path without the section."""
    return SHORT_NAMES.get(axis, axis)


def shown(value: Any) -> Scalar:
    """Return how tables write an axis value: None is `all`, a mapping its values joined."""
    if value is None:
        return "all"
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values())
    return value


def explain(error: ValidationError, where: str) -> str:
    """Return one line for each faulty field: path, value, rule, way out."""

    faults: dict[tuple[Any, ...], dict[str, Any]] = {}
    for found in error.errors():
        loc = tuple(part for part in found["loc"] if not _is_branch(part))
        # A field that takes several types has a fault for each.
        message = f"{faults[loc]['msg']}; or {found['msg']}" if loc in faults else found["msg"]
        faults[loc] = {**found, "loc": loc, "msg": message}
    return "\n".join(_explain_one(fault, where) for fault in faults.values())


def _is_branch(part: int | str) -> bool:
    """Return whether a part of a fault's place is pydantic's name of a type instead of a field."""
    return part in ("list", "range", "str", "int", "float", "bool", "constrained-float")


def _explain_one(fault: dict[str, Any], where: str) -> str:
    path = ".".join(str(part) for part in fault["loc"]) or where
    if fault["type"] == "extra_forbidden":
        known = _siblings(fault["loc"], Study if where.endswith((".yaml", ".yml")) else TrialSpec)
        return f"{path} is not a field; known here: {_listing(known)}."
    if fault["type"] == "missing":
        return f"{path} is missing; add it to {where}."
    if fault["type"] == "value_error":
        message = str(fault["ctx"]["error"])
        return message if path == where else f"{path}: {message}"
    value = str(fault.get("input"))[:60]
    return f"{path}={value} is refused: {fault['msg']}."


def _siblings(loc: Sequence[Any], model: Any) -> list[str]:
    """Return the field names beside the one at `loc`."""
    if model is Study and len(loc) > 2 and loc[0] == "sweep":  # only a range has fields there
        return list(Range.model_fields)
    for part in loc[:-1]:
        annotation = model.model_fields[part].annotation if hasattr(model, "model_fields") else None
        options = getattr(annotation, "__args__", ()) if not isinstance(annotation, type) else (annotation,)
        model = next((option for option in options if hasattr(option, "model_fields")), None)
    return list(model.model_fields) if model is not None else []


def _reason(error: ValidationError) -> str:
    return "; ".join(str(fault["ctx"]["error"]) for fault in error.errors())


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise StudyError(f"study={path} does not exist; the shipped ones are in jobs/studies.") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"study={path} is not a readable YAML study: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(loaded, dict):
        raise StudyError(f"study={path} must be a mapping with study, base and sweep.")
    return {str(name): value for name, value in loaded.items()}


def _assign(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path; below `sweep` the rest of the path is one axis name, set in every grid."""
    head, _, rest = path.partition(".")
    if head == "sweep" and rest:
        grids = raw["sweep"] if isinstance(raw.get("sweep"), list) else [raw.setdefault("sweep", {})]
        for grid in grids if len(grids) == 1 else [grid for grid in grids if rest in grid]:
            grid[rest] = value
        return
    if not rest:
        raw[head] = (
            {**raw[head], **value} if isinstance(raw.get(head), dict) and isinstance(value, dict) else value
        )
        return
    if not isinstance(raw.get(head), dict):
        raw[head] = {}
    _assign_plain(raw[head], rest, value)


def _assign_plain(raw: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(raw.get(part), dict):
            raw[part] = {}
        raw = raw[part]
    merges = isinstance(raw.get(last), dict) and isinstance(value, dict)
    raw[last] = {**raw[last], **value} if merges else value


def _name_part(axis: str, value: Scalar) -> str:
    if axis == "align":
        return "aligned" if value else "unaligned"
    if isinstance(value, bool) or not isinstance(value, int):
        text = str(value) if axis in ("auxiliary", "budget") else f"{axis.rsplit('.', 1)[-1]}{value}"
        return text.replace(" ", "-").replace("/", "-")
    widths = {"m": 3, "k": 3, "seed": 1}
    return f"{'s' if axis == 'seed' else axis.rsplit('.', 1)[-1]}{value:0{widths.get(axis, 1)}d}"


def _listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"

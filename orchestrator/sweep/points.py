"""Sweep points: the combinations of a study's axes that can exist, and those that cannot (m > k)."""

import ast
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.config import TrialSpec
from orchestrator.config.base import NO_VALUE, Refused, Scalar, Spec, canonical, composed, digest_of
from orchestrator.config.conditions import combinations, listed
from orchestrator.config.load import assign, faults
from orchestrator.config.normalise import respelled
from orchestrator.config.study import (
    LABEL,
    SHORTHANDS,
    Study,
    StudyError,
    is_seed,
    short_name,
    without_seeds,
)

LONGEST_PART = 80  # letters of one axis in a run's name
LONGEST_NAME = 240  # letters of a run's name: MLflow's column takes 250
MARK_LETTERS = 8

_PLAIN = TypeAdapter(Any)
_SECTIONS = {
    name: TypeAdapter(hint)
    for name, hint in get_type_hints(TrialSpec, include_extras=True).items()
    if name in TrialSpec.model_fields
}

ABSENT = "-"
"""How tables write an axis that a point does not have: its attack lacks the setting, or it is not asked."""


@dataclass(frozen=True)
class Point:
    """One sweep point: its place, its swept values and its spec."""

    index: int
    axes: Mapping[str, Scalar]  # short name -> shown value
    spec: TrialSpec
    mark: str = ""  # letters of its key, for a point whose axes alone would give it another one's name

    @property
    def key(self) -> str:
        """Digest of the spec."""
        return self._digests[0]

    @property
    def setting(self) -> str:
        """Digest of the spec without its seeds: points that have it in common are averaged."""
        return self._digests[1]

    @property
    def _digests(self) -> tuple[str, str]:
        return self.spec.once("digests", partial(_digests, self.spec))

    @property
    def name(self) -> str:
        """Run name of the values of its axes, e.g. `m003-k005-same-heldout-full-s0`, at most `LONGEST_NAME`
        printable letters: it stays the same when the study is given more values.
        """
        shown = [_name_part(axis, value) for axis, value in self.axes.items() if value != ABSENT]
        end = f"-{self.mark}" if self.mark else ""
        return (("-".join(shown) or "base")[: LONGEST_NAME - len(end)]) + end


@dataclass(frozen=True)
class Dropped:
    """A combination of a grid that cannot exist."""

    axes: Mapping[str, Scalar]
    reason: str


class Settings:
    """Holds what tables write for each setting of a sweep: one text for one setting, and the reverse.

    Reports and MLflow know a trial's setting by its shown axes: without this, different settings would be
    averaged as seeds of one, or the seeds of one be torn apart.
    """

    def __init__(self) -> None:
        self._axes: dict[str, dict[str, Scalar]] = {}  # setting -> its axes without seeds
        self._settings: dict[tuple[str, ...], Point] = {}  # text of those axes -> the first point that has it
        self._points: dict[tuple[str, ...], Point] = {}  # text of all axes
        self._names: dict[str, str] = {}  # run name -> key of its point

    def named(self, point: Point) -> Point:
        """Return the point with the axes of its setting as they were first written, and a name of its own.

        Raise `StudyError` for a point whose axes cannot be told from those of another one.
        """
        own = {axis: value for axis, value in point.axes.items() if not is_seed(axis)}
        axes = self._axes.setdefault(point.setting, own)
        if axes != own:
            point = replace(point, axes={**point.axes, **axes})
        alike = self._settings.setdefault(_texts(axes), point)
        if alike.setting != point.setting:
            raise StudyError(_alike(alike, point, "give one of these values a label of its own"))
        alike = self._points.setdefault(_texts(point.axes), point)
        if alike.key != point.key:
            raise StudyError(_alike(alike, point, "sweep that seed as an axis of its own"))
        if self._names.setdefault(point.name, point.key) != point.key:
            point = replace(point, mark=point.key[:MARK_LETTERS])
        return point


def _digests(spec: TrialSpec) -> tuple[str, str]:
    """Return those of a trial and of its setting."""
    fields = TrialSpec.model_fields.items()
    every = {name: getattr(spec, name) for name, _ in fields}
    left_out = {name for name, field in fields if field.exclude_if and field.exclude_if(every[name])}
    parts: dict[str, Spec] = {
        name: part for name, part in every.items() if name not in left_out
    }  # as in JSON
    whole = {name: part.text for name, part in parts.items()}
    settings = {name: part.once("setting", partial(_setting, part)) for name, part in parts.items()}
    return digest_of(composed(whole)), digest_of(composed(settings))


def _setting(part: Spec) -> str:
    return canonical(without_seeds(part.plain))


def _texts(axes: Mapping[str, Scalar]) -> tuple[str, ...]:
    return tuple(map(str, axes.values()))


def _alike(one: Point, other: Point, way_out: str) -> Refused:
    """Return the refusal of two points that tables would not tell apart."""
    first, second = (flatten(point.spec.model_dump(mode="json")) for point in (one, other))
    fields = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    shown = [f"{name}={first.get(name)} and {second.get(name)}" for name in fields[:3]]
    words = ", ".join(f"{axis}={value}" for axis, value in other.axes.items())
    return Refused("sweep", NO_VALUE, f"writes {words} for {'; '.join(shown)}", way_out)


def expand(study: Study) -> tuple[list[Point], list[Dropped]]:
    """Return the points of a grid in file order, without repeats, and the combinations that were dropped.

    Raise `StudyError` if no combination can exist.
    """
    points: list[Point] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for grid in study.sweep:
        for values in combinations(grid, study.shown):
            made = make_point(study, len(points), values)
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
    raw = _raw(study, values)
    axes = {short_name(axis): study.shown(value, axis) for axis, value in values.items()}
    try:
        spec = TrialSpec.model_validate({name: _shared(name, part) for name, part in raw.items()})
        axes = _all_axes(study, values, spec)
    except ValidationError as error:
        if all(fault["type"] == "value_error" and not fault["loc"] for fault in error.errors()):
            return Dropped(axes, _reason(error))
        raise StudyError(*faults(error, "base")) from None
    return Point(index, axes, respelled(spec))


def _raw(study: Study, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial as written: the base, of which only the mappings above the axis values are copied."""
    raw = dict(study.base)
    for axis, value in values.items():
        for path in SHORTHANDS.get(axis, (axis,)):
            _copy_above(raw, path)
            assign(raw, path, _settings(value))
    return raw


def _copy_above(raw: dict[str, Any], path: str) -> None:
    """Replace the mappings that hold a path's parts with copies, which `assign` may change."""
    for part in path.split(".")[:-1]:
        if not isinstance(raw.get(part), dict):
            return
        raw[part] = dict(raw[part])
        raw = raw[part]


def _shared(name: str, written: Any) -> Any:
    """Return a section of a trial validated, one object for one text; as written if it is wrong."""
    try:
        return _section(name, repr(written))
    except (KeyError, ValueError, SyntaxError):  # the whole trial's validation says what is wrong
        return written


@functools.lru_cache(maxsize=1024)
def _section(name: str, written: str) -> Any:
    return _SECTIONS[name].validate_python(ast.literal_eval(written))


def _settings(value: Any) -> Any:
    """Return an axis value without its label."""
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name != LABEL}


def _all_axes(study: Study, values: Mapping[str, Any], spec: TrialSpec) -> dict[str, Scalar]:
    """Return the validated value of every swept axis; one that this grid does not sweep has the base's, and a
    conditional one that is not asked is absent, unless the trial has the setting all the same.

    A value that means the same as null, such as m = k, is null where the axis has that too: a grid over k and
    m has its full releases under one value, whichever of the two was written first.
    """
    axes: dict[str, Scalar] = {}
    respelt = respelled(spec)
    for axis in dict.fromkeys(axis for grid in study.sweep for axis in grid):
        path = SHORTHANDS.get(axis, (axis,))[0]
        if axis in study.conditional and axis not in values and not _has(spec, path):
            axes[short_name(axis)] = ABSENT
            continue
        validated = _lookup(spec, path)
        written = values.get(axis, validated)
        if validated is not None and _lookup(respelt, path) is None and _has_null(study, axis):
            validated = written = None
        axes[short_name(axis)] = study.shown(written, axis, _validated(written, validated))
    return axes


def _has_null(study: Study, axis: str) -> bool:
    """Return whether null is a value of the axis in some grid."""
    return any(None in (listed(grid.get(axis)) or ()) for grid in study.sweep)


def _validated(written: Any, validated: Any) -> Any:
    """Return the settings that an axis value names, and its label, as the trial has them."""
    if not isinstance(written, Mapping) or not isinstance(validated, Mapping):
        return validated
    return {
        name: part if name == LABEL else _validated(part, validated.get(name))
        for name, part in written.items()
    }


def _lookup(spec: TrialSpec, path: str) -> Any:
    """Return a setting as in JSON, or ABSENT where this point's attack has no such field."""
    value: Any = spec
    for part in path.split("."):
        if isinstance(value, BaseModel) and part not in type(value).model_fields:
            return ABSENT
        if isinstance(value, Mapping):
            value = value.get(part, ABSENT)
        else:
            value = getattr(value, part) if isinstance(value, BaseModel) else None
    return _PLAIN.dump_python(value, mode="json")


def _has(spec: TrialSpec, path: str) -> bool:
    """Return whether the part of a trial that holds a setting is there."""
    return path.rpartition(".")[0] == "" or isinstance(_part(spec, path.rpartition(".")[0]), BaseModel)


def _part(spec: TrialSpec, path: str) -> Any:
    part: Any = spec
    for name in path.split("."):
        part = getattr(part, name, None)
    return part


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Return nested mappings as dotted names, which all trials share in memory; None is written `none`."""
    flat: dict[str, Scalar] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            flat |= flatten(part, f"{prefix}{name}.")
        else:
            flat[sys.intern(prefix + name)] = "none" if part is None else part
    return flat


def _reason(error: ValidationError) -> str:
    return "; ".join(str(fault["ctx"]["error"]) for fault in error.errors())


def _name_part(axis: str, value: Scalar) -> str:
    if axis == "align":
        return "aligned" if value else "unaligned"
    if isinstance(value, bool) or not isinstance(value, int):
        text = (
            str(value)
            if axis in ("auxiliary", "budget", "attack", "defense")
            else f"{axis.rsplit('.', 1)[-1]}{value}"
        )
        return "".join(_letter(one) for one in text)[:LONGEST_PART]
    widths = {"m": 3, "k": 3, "seed": 1}
    return f"{'s' if axis == 'seed' else axis.rsplit('.', 1)[-1]}{value:0{widths.get(axis, 1)}d}"


def _letter(one: str) -> str:
    """Return a letter for a run's name, which is no path, one line, and code in Markdown."""
    return "-" if one in " /\\`" or not one.isprintable() else one

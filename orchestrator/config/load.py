"""Reader of study files: scales, overrides of the command line, and one line for each fault."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.config.attacks import ATTACK_SPECS, attack_name
from orchestrator.config.base import NO_VALUE, Refused, one_line
from orchestrator.config.installation import to_call
from orchestrator.config.plain import MAX_NAME_BYTES, check_path, check_plain
from orchestrator.config.search import Choices, Range
from orchestrator.config.study import SHORTHANDS, Study, StudyError
from orchestrator.config.trial import TrialSpec
from orchestrator.config.yaml_text import read_yaml

MERGED = ("base", "resources", "scales")


def read_study(path: Path, *, overrides: Sequence[str] = (), scale: str | None = None) -> Study:
    """Read a study file, apply its scale and then the `a.b=c` overrides; raise `StudyError`."""
    raw = _load(path)
    scales = raw.pop("scales", None) or {}
    if not isinstance(scales, Mapping):
        raise StudyError(f"scales in {path.name} must read scales: {{{scale or 'smoke'}: {{path: value}}}}.")
    for name, value in _scale(scales, scale, path.name).items() if scale is not None else ():
        _assign(raw, name, value)
    values = [_override(one) for one in overrides]
    for _, fields, value in values:
        for field in fields:
            _assign(raw, field, copy.deepcopy(value))
    for name, fields, value in values:
        for field in fields:
            _refuse_swept(raw, name, field, value)
    _check(raw)
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(*faults(error, path.name)) from None


def as_written(file: Path, scale: str | None = None) -> Study | None:
    """Return a study without overrides, at a scale or without; None where it cannot be read so."""
    try:
        return read_study(file, scale=scale)
    except StudyError:
        return None


def _scale(scales: Mapping[str, Any], scale: str, where: str) -> Mapping[str, Any]:
    """Return what a scale sets: path -> value."""
    if not isinstance(scales.get(scale, {}), Mapping):
        raise StudyError(f"scales in {where} must read scales: {{{scale}: {{path: value}}}}.")
    if scale not in scales:
        raise StudyError(f"--scale {scale} is not in {where}; it knows {_listing(scales)}.")
    settings: Mapping[str, Any] = scales[scale]
    return settings


def scales_of(path: Path) -> list[str]:
    """Return the names of a study's scales; raise `StudyError` if it is no study."""
    return list(map(str, _load(path).get("scales") or {}))


def summary_of(path: Path) -> tuple[str, list[str]]:
    """Return the first sentence of what a study file is about, and its scales; raise `StudyError` if it is no
    study."""
    study = _load(path)
    about = " ".join(str(study.get("about") or "").split())
    return one_line(about.partition(". ")[0].rstrip(".")), list(map(str, study.get("scales") or {}))


def _check(value: Any, prefix: str = "") -> None:
    """Raise `StudyError` for content that no study can have."""
    try:
        check_plain(value, "")
    except Refused as refused:
        field = f"{prefix}{refused.field}"
        raise StudyError(Refused(field, refused.value, refused.rule, refused.way_out)) from None


def _override(override: str) -> tuple[str, list[str], Any]:
    """Return the name that a `name=value` has, the paths in the file that it means, and its value."""
    name, separator, text = override.partition("=")
    if not separator:
        raise StudyError(f"--set {override} must read path=value, for example target.recipe.epochs=3.")
    root = name.split(".", 1)[0]
    is_path = root in Study.model_fields
    paths = [name] if is_path else [f"base.{path}" for path in SHORTHANDS.get(name, (name,))]
    value = _value(override, text)
    _check({name: value}, "--set ")
    return name, paths, value


def _value(override: str, text: str) -> Any:
    try:
        return read_yaml(text)
    except Refused as refused:
        name = override.partition("=")[0]
        field = name if refused.field == "value" else f"{name}.{refused.field}"
        raise StudyError(Refused(f"--set {field}", refused.value, refused.rule, refused.way_out)) from None
    except (yaml.YAMLError, ValueError):
        raise StudyError(
            f"--set {override} must give a YAML value, for example 3, [1, 2] or {{low: 1, high: 9}}."
        ) from None


def faults(error: ValidationError, where: str) -> list[Refused]:
    """Return a refusal for each faulty field: path, value, rule, way out."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for fault in error.errors():
        attack = next((part for part in fault["loc"] if part in ATTACK_SPECS), None)
        loc = tuple(part for part in fault["loc"] if not _is_branch(part))
        # A field that takes several types has a fault for each.
        message = f"{merged[loc]['msg']}; or {fault['msg']}" if loc in merged else fault["msg"]
        merged[loc] = {**fault, "loc": loc, "msg": message, "attack": attack}
    return [_refusal(fault, where) for fault in merged.values()]


def _is_branch(part: int | str) -> bool:
    """Return whether a part of a fault's place is pydantic's name of a type instead of a field."""
    return str(part).startswith("literal[") or part in (
        "list",
        "range",
        "choices",
        "str",
        "int",
        "float",
        "bool",
        "constrained-str",
        "constrained-float",
        *ATTACK_SPECS,
    )


def _refusal(fault: dict[str, Any], where: str) -> Refused:
    """Return one of pydantic's faults as a refusal; one that a validator of ours raised keeps its parts."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _siblings(fault["loc"], Study if where.endswith((".yaml", ".yml")) else TrialSpec, fault)
        whose = f" of attack.name={fault['attack']}" if fault["attack"] else ""
        return Refused(path, NO_VALUE, f"is not a field{whose}", f"known here: {_listing(known)}")
    if fault["type"] == "union_tag_invalid":
        names = ", ".join(ATTACK_SPECS)
        return Refused(f"{path}.name", fault["ctx"]["tag"], "is unknown", f"choose one of {names}")
    if fault["type"] == "missing":
        return Refused(path, NO_VALUE, "is missing", f"add it to {where}")
    if fault["type"] == "value_error" and isinstance(fault["ctx"]["error"], Refused):
        refused: Refused = fault["ctx"]["error"]
        return refused.under(path) if path else refused
    if fault["type"] == "union_tag_not_found":
        names = ", ".join(ATTACK_SPECS)
        return Refused(f"{path}.name", NO_VALUE, "must be the name of an attack", f"choose one of {names}")
    message = fault["msg"].replace("Value error, ", "")
    return Refused(path or where, str(fault.get("input"))[:60], f"is refused: {message}")


def _siblings(loc: Sequence[Any], model: Any, fault: Mapping[str, Any]) -> list[str]:
    """Return the field names beside the one at `loc`."""
    if model is Study and len(loc) > 2 and loc[0] == "sweep":  # only ranges and choices have fields there
        return list(dict.fromkeys([*Range.model_fields, *Choices.model_fields]))
    for part in loc[:-1]:
        fields = getattr(model, "model_fields", {})
        if fields and part not in fields:  # a name that the user chose, of parts that are alike
            continue
        annotation = fields[part].annotation if fields else None
        if part == "attack" and model is TrialSpec:
            model = ATTACK_SPECS[fault["attack"]]
            continue
        options = getattr(annotation, "__args__", ()) if not isinstance(annotation, type) else (annotation,)
        model = next((option for option in options if hasattr(option, "model_fields")), None)
    return list(model.model_fields) if model is not None else []


def _load(path: Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """Read a file, over the one that it extends: `base`, `resources` and `scales` are merged, the rest is its
    own. `above` are the files that extend this one."""
    own = _read(path)
    parent = own.pop("extends", None)
    if parent is None:
        return own
    there = path.parent / f"{parent}.yaml"
    if not isinstance(parent, str) or len(there.name) > MAX_NAME_BYTES or not there.is_file():
        raise StudyError(f"extends={parent} in {path.name} must name a file beside it, without .yaml.")
    if there.samefile(path) or any(there.samefile(one) for one in above):
        rule = f"in {path.name} extends a file that extends it"
        raise StudyError(Refused("extends", parent, rule, "leave one of them out"))
    inherited = _load(there, (*above, path))
    merged = {name: _merged(inherited.get(name) or {}, own.get(name) or {}) for name in MERGED}
    return inherited | own | {name: part for name, part in merged.items() if part}


def _merged(one: Any, other: Any) -> Any:
    """Return two values as one: mappings key by key, of anything else the other."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return one | {name: _merged(one.get(name), part) for name, part in other.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        check_path("study", path)
        loaded = read_yaml(path.read_text(encoding="utf-8-sig"))
        check_plain(loaded, "")
    except FileNotFoundError:
        way_out = f"{to_call('sweep', '--list')} prints the shipped ones"
        raise StudyError(f"study={path} does not exist; {way_out}.") from None
    except Refused as refused:
        raise StudyError(refused if refused.field == "study" else refused.under(path.name)) from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise StudyError(
            f"study={path} is not a readable YAML study: {' '.join(str(error).split())}"
        ) from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise StudyError(f"study={path} must be a mapping with study, base and sweep.")
    return {str(name): value for name, value in loaded.items()}


def _assign(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path; below `sweep` the rest of the path is one axis name, set in every grid that has it,
    where it stays asked under its condition."""
    head, _, rest = path.partition(".")
    if head == "sweep" and rest:
        grids = raw["sweep"] if isinstance(raw.get("sweep"), list) else [raw.setdefault("sweep", {})]
        for grid in grids if len(grids) == 1 else [grid for grid in grids if rest in grid]:
            grid[rest] = _where_asked(grid.get(rest), value)
        return
    if not rest:
        raw[head] = (
            {**raw[head], **value} if isinstance(raw.get(head), dict) and isinstance(value, dict) else value
        )
        return
    if not isinstance(raw.get(head), dict):
        raw[head] = {}
    assign(raw[head], rest, value)


def _where_asked(there: Any, value: Any) -> Any:
    """Return an axis's new values with the condition that the axis has, unless they come with their own."""
    if not isinstance(there, Mapping) or "when" not in there:
        return value
    if isinstance(value, list):
        return {"when": there["when"], "values": value}
    return {"when": there["when"], **value} if isinstance(value, Mapping) else value


def _refuse_swept(raw: Mapping[str, Any], name: str, path: str, value: Any) -> None:
    """Raise `StudyError` if an axis of the sweep gives a field of `base` other values than an override."""
    head, _, assigned = path.partition(".")
    if head != "base" or not isinstance(raw.get("base"), Mapping):
        return
    for (axis, field, values), leaf in itertools.product(_swept(raw), _leaves(assigned, value)):
        if _overlap(leaf, field) and _is_overruled(raw["base"], leaf, field, values):
            rule = f"does nothing where sweep.{axis} gives the field its values"
            raise StudyError(Refused(f"--set {name}", value, rule, f"--set sweep.{axis} instead"))


def _swept(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield each axis of each grid with each field that it sets, and its values."""
    sweep = raw.get("sweep")
    for grid in sweep if isinstance(sweep, list) else [sweep]:
        for axis, values in grid.items() if isinstance(grid, Mapping) else ():
            for field in SHORTHANDS.get(axis, (axis,)):
                yield axis, field, values


def _leaves(path: str, value: Any) -> list[str]:
    """Return the paths of the settings in a value."""
    if not isinstance(value, Mapping) or not value:
        return [path]
    return [
        leaf for name, part in value.items() for leaf in _leaves(f"{path}.{name}".removeprefix("."), part)
    ]


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _is_overruled(base: Mapping[str, Any], leaf: str, field: str, values: Any) -> bool:
    """Return whether some value of an axis changes a setting of the base, or all of them drop it."""
    if not leaf.startswith(f"{field}.") or not isinstance(values, list):
        return True
    kept = []
    for value in values:
        raw = copy.deepcopy(dict(base))
        assign(raw, field, copy.deepcopy(value))
        kept.append(_setting(raw, leaf))
    mine = _setting(base, leaf)
    return any(one not in (mine, NO_VALUE) for one in kept) or all(one == NO_VALUE for one in kept)


def _setting(raw: Any, path: str) -> Any:
    """Return a setting of nested mappings, or NO_VALUE."""
    for part in path.split("."):
        if not isinstance(raw, Mapping) or part not in raw:
            return NO_VALUE
        raw = raw[part]
    return raw


def assign(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in nested mappings; a mapping is merged into the one that is there unless it names
    another attack or model: settings of one are none of the other's. Raise `StudyError` if a part of the path
    is there and no mapping."""
    *parents, last = path.split(".")
    for place, part in enumerate(parents, 1):
        if raw.get(part) is not None and not isinstance(raw[part], dict):
            below = ".".join([*parents[place:], last])
            rule = f"is no mapping, but the study sets {below} in it"
            raise StudyError(Refused(".".join(parents[:place]), raw[part], rule, "write a mapping"))
        raw[part] = {} if raw.get(part) is None else raw[part]
        raw = raw[part]
    there = raw.get(last)
    if isinstance(there, dict) and isinstance(value, dict) and not _is_another(value, there, last):
        value = {**there, **value}
    raw[last] = value


def _is_another(value: Mapping[str, Any], there: Mapping[str, Any], field: str) -> bool:
    """Return whether a mapping names another attack or model; an attack without a name is the inverter."""
    if "name" not in value:
        return False
    named = attack_name(there) if field == "attack" else there.get("name", value["name"])
    return value["name"] != named


def _listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"

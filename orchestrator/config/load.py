"""Reader of study files: scales, overrides of the command line, and one line for each fault."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from orchestrator.config.attacks import ATTACK_SPECS, attack_name
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.search import Range
from orchestrator.config.study import SHORTHANDS, Study, StudyError
from orchestrator.config.trial import TrialSpec

MERGED = ("base", "resources", "scales")


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
        paths = [name] if root in Study.model_fields else [f"base.{p}" for p in SHORTHANDS.get(name, (name,))]
        for field in paths:
            _assign(raw, field, _value(override, text))
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(*faults(error, path.name)) from None


def _value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
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
    return part in (
        "list",
        "range",
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
    return Refused(path or where, str(fault.get("input"))[:60], f"is refused: {fault['msg']}")


def _siblings(loc: Sequence[Any], model: Any, fault: Mapping[str, Any]) -> list[str]:
    """Return the field names beside the one at `loc`."""
    if model is Study and len(loc) > 2 and loc[0] == "sweep":  # only a range has fields there
        return list(Range.model_fields)
    for part in loc[:-1]:
        annotation = model.model_fields[part].annotation if hasattr(model, "model_fields") else None
        if part == "attack" and model is TrialSpec:
            model = ATTACK_SPECS[fault["attack"]]
            continue
        options = getattr(annotation, "__args__", ()) if not isinstance(annotation, type) else (annotation,)
        model = next((option for option in options if hasattr(option, "model_fields")), None)
    return list(model.model_fields) if model is not None else []


def _load(path: Path) -> dict[str, Any]:
    """Read a file, over the one that it extends: `base`, `resources` and `scales` are merged, the rest is its
    own."""
    own = _read(path)
    parent = own.pop("extends", None)
    if parent is None:
        return own
    there = path.parent / f"{parent}.yaml"
    if not there.is_file():
        raise StudyError(f"extends={parent} in {path.name} must name a file beside it, without .yaml.")
    inherited = _load(there)
    merged = OmegaConf.merge(
        {name: inherited.get(name) or {} for name in MERGED}, {name: own.get(name) or {} for name in MERGED}
    )
    plain = OmegaConf.to_container(merged)
    assert isinstance(plain, dict)
    return inherited | own | {name: plain[name] for name in MERGED if plain[name]}


def _read(path: Path) -> dict[str, Any]:
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
    assign(raw[head], rest, value)


def assign(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in nested mappings; a mapping is merged into the one that is there unless it names
    another attack or model: settings of one are none of the other's."""
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(raw.get(part), dict):
            raw[part] = {}
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

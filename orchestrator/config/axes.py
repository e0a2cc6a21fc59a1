"""A sweep's axes: which repeat a setting; checks for two that set one field and for too many points."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.conditions import Shown, combinations, condition, listed, values_beside
from orchestrator.config.search import MAX_POINTS

LABEL = "label"
"""What a mapping among an axis's values may have beside settings: how tables write it."""

SEED = "seed"
"""Last part of every field, and so of every axis, that repeats a setting instead of changing it."""

MAX_LABEL = 100

Shorthands = Mapping[str, Sequence[str]]
"""Axis -> the fields that it sets together."""


def is_seed(axis: str) -> bool:
    """Return whether an axis, or a field, repeats a setting with other random numbers."""
    return axis.rsplit(".", 1)[-1] == SEED


def check_grids(grids: Sequence[Mapping[str, Any]], shorthands: Shorthands, shown: Shown) -> None:
    """Raise `Refused` of `sweep` if an axis has no name or undoes another, or for too many points."""
    for grid in grids:
        for axis in grid:
            if not all(axis.split(".")):
                raise Refused(
                    "sweep", axis or "''", "is no name of a field", "write it like release.truncation"
                )
        for axis, values in grid.items():
            _check_labels(axis, values)
        _check_fields(grid, shorthands, shown)
    points = sum(_num_points(grid, shown) for grid in grids)
    if points > MAX_POINTS:
        raise Refused(
            "sweep",
            NO_VALUE,
            f"has {points} points, more than {MAX_POINTS}",
            "draw some of them with search.algorithm=random, or split it into studies, which share the store",
        )


def _num_points(grid: Mapping[str, Any], shown: Shown) -> int:
    """Return the number of combinations of listed axes; with conditional axes up to one beyond the limit."""
    lists = {axis: values for axis, values in grid.items() if listed(values) is not None}
    if not any(condition(values) for values in lists.values()):
        return math.prod(len(listed(values) or []) for values in lists.values())
    return sum(1 for _ in islice(combinations(lists, shown), MAX_POINTS + 1))


def _check_labels(axis: str, values: Any) -> None:
    """Raise `Refused` for a label that no table can show."""
    for value in listed(values) or ():
        if not isinstance(value, Mapping) or LABEL not in value:
            continue
        label = value[LABEL]
        is_shown = isinstance(label, str | int | float) and not isinstance(label, bool)
        if not is_shown or not 1 <= len(str(label).strip()) <= MAX_LABEL:
            rule = f"has a label that is no text or number of 1 to {MAX_LABEL} characters"
            raise Refused(f"sweep.{axis}", NO_VALUE, rule, "shorten it or leave it out")


def _check_fields(grid: Mapping[str, Any], shorthands: Shorthands, shown: Shown) -> None:
    """Raise `Refused` if an axis sets a field that an earlier axis of the same grid sets where both are
    asked."""
    above: list[str] = []
    for axis, values in grid.items():
        earlier: dict[tuple[str, bool], str] = {}  # field, whether others may be set below it -> axis
        for by in above:
            own = values_beside(values, by, grid[by], shown)
            set_by = [setting for path in shorthands.get(by, (by,)) for setting in _settings(path, own)]
            earlier |= {leaf: by for field, value in set_by for leaf in _leaves(field, value)}
        replaced = [setting for path in shorthands.get(axis, (axis,)) for setting in _settings(path, values)]
        for field in dict.fromkeys(field for field, _ in replaced):
            for (other, is_open), by in earlier.items():
                is_undone = _is_within(other, field) or (_is_within(field, other) and not is_open)
                if is_undone:
                    rule = f"sets {max(field, other, key=len)}, which sweep.{by} sets too"
                    raise Refused(f"sweep.{axis}", NO_VALUE, rule, "sweep one of them")
        above.append(axis)


def _is_within(field: str, other: str) -> bool:
    return f"{field}.".startswith(f"{other}.")


def _settings(path: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields that values of an axis replace, with what they set there: parts of a mapping are
    merged into what is there, unless it names another attack or model."""
    for value in listed(values) or [None]:
        if isinstance(value, Mapping) and "name" not in value:
            yield from ((f"{path}.{name}", part) for name, part in value.items() if name != LABEL)
        else:
            yield path, value


def _leaves(field: str, value: Any) -> Iterator[tuple[str, bool]]:
    """Yield the fields that a value sets, and whether others below them are left open."""
    if not isinstance(value, Mapping) or not value:
        yield field, isinstance(value, Mapping)
    else:
        parts = ((name, part) for name, part in value.items() if name != LABEL)
        yield from (leaf for name, part in parts for leaf in _leaves(f"{field}.{name}", part))

"""Fixed searches: every point of a grid, or random draws, known before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.conditions import in_which_asked, is_asked, listed
from orchestrator.config.search import Choices, Range
from orchestrator.config.study import SHORTHANDS, Study, StudyError
from orchestrator.sweep.points import Dropped, Point, Settings, expand, make_point
from orchestrator.sweep.validation import Preflight

MAX_DRAWS_PER_SAMPLE = 100  # draws that cannot exist (m > k) are drawn again


class FixedPoints:
    """Implements `Points` for a grid or random search: all points in one batch."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self._waiting = list(points)
        self.ended = ""

    def ask(self) -> list[Point]:
        """Return every point the first time, nothing afterwards."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Learn nothing."""


def fixed_points(study: Study, preflight: Preflight) -> tuple[FixedPoints, list[Dropped]]:
    """Return the resolved, distinct points of a grid or random search, and the combinations dropped.

    Raise `StudyError` if no point can exist or a value is wrong.
    """
    points, dropped = expand(study) if study.search.algorithm == "grid" else random_points(study)
    distinct: dict[str, Point] = {}
    settings = Settings()
    for point in preflight.resolve_all(points):
        if point.key in distinct:  # two budgets in millions may mean one cut point
            dropped.append(Dropped(point.axes, "repeats a point of the sweep"))
        else:
            distinct[point.key] = settings.named(replace(point, index=len(distinct)))
    return FixedPoints(list(distinct.values())), dropped


def random_points(study: Study) -> tuple[list[Point], list[Dropped]]:
    """Draw `search.samples` distinct points; draw number i depends on (seed, i) only.

    Raise `StudyError` if no draw can exist.
    """
    points: list[Point] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for number in range(study.search.samples * MAX_DRAWS_PER_SAMPLE):
        generator = np.random.default_rng((study.search.seed, number))
        made = make_point(study, len(points), draw(study, generator))
        if isinstance(made, Dropped):
            dropped.append(made)
        elif made.key not in seen:
            seen.add(made.key)
            points.append(made)
            if len(points) == study.search.samples:
                break
    if not points:
        raise no_draw(dropped[0])
    return points, dropped


def no_draw(first: Dropped) -> StudyError:
    """Return the error of a search whose draws are all dropped, as the first one."""
    return StudyError(f"sweep: no draw can exist; {first.reason}")


def check_ranges(study: Study) -> None:
    """Raise `StudyError` if the field of a range does not take its ends, or numbers between them."""
    grid = study.sweep[0]
    for axis, choices in grid.items():
        if not isinstance(choices, Range):
            continue
        others = draw(study, np.random.default_rng(0), in_which_asked(grid, axis, study.shown) or {})
        between = draw_value(np.random.default_rng(1), choices)
        for value in (choices.low, choices.high, between):
            shown = round(value) if choices.integer else value
            try:
                make_point(study, 0, {**others, axis: shown})
            except StudyError as error:
                raise StudyError(*(_of_range(fault, axis) for fault in error.faults)) from None


def _of_range(fault: str | Refused, axis: str) -> str | Refused:
    """Return a refusal of a value inside a range as one of the range, which is what the study has."""
    if not isinstance(fault, Refused) or fault.field not in SHORTHANDS.get(axis, (axis,)):
        return fault
    rule = f"is a range with {fault.value}, which {fault.rule}"
    return Refused(f"sweep.{axis}", NO_VALUE, rule, fault.way_out or "correct low and high, or set integer")


def draw(
    study: Study, generator: np.random.Generator, given: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Draw one value for each axis that is asked, of a study with a single mapping of axes; those of `given`
    have its values."""
    values: dict[str, Any] = {}
    for axis, choices in study.sweep[0].items():
        if is_asked(choices, values, study.shown):
            drawn = draw_value(generator, choices)
            values[axis] = given.get(axis, drawn)
    return values


def draw_value(generator: np.random.Generator, choices: list[Any] | Range | Choices) -> Any:
    """Return one of a list's values, or a number of a range."""
    if not isinstance(choices, Range):
        own = listed(choices) or []
        return own[int(generator.integers(len(own)))]
    if choices.integer and not choices.log:
        return int(generator.integers(int(choices.low), int(choices.high) + 1))
    low, high = (np.log([choices.low, choices.high])) if choices.log else (choices.low, choices.high)
    value = float(generator.uniform(low, high))
    value = float(np.exp(value)) if choices.log else value
    return round(value) if choices.integer else value

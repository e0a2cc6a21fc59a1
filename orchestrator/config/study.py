"""Study: one YAML file that sweeps axes over a base spec. Data, no logic; users copy one and edit it.

`load` reads it (one reader of YAML, pydantic validates), `points` turns its grids into sweep points.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.config.axes import LABEL as LABEL
from orchestrator.config.axes import SEED, check_grids
from orchestrator.config.axes import is_seed as is_seed
from orchestrator.config.base import NO_VALUE, Refused, Scalar, Spec, canonical, digest, one_line
from orchestrator.config.conditions import check_asked, check_conditions, condition, listed
from orchestrator.config.report import Report
from orchestrator.config.resources import Resources
from orchestrator.config.search import Choices, Range, Search

# `seed` is shorthand: the target's and the adversary's seeds move together.
SHORTHANDS = {SEED: ("target.seed", "attack.seed")}
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
EMPTY_WORDS = {
    "target.defense": "none",
    "target.pretrain": "none",
    "target.snapshot": "selected",
    "prior": "none",
}
"""How tables write the empty value of an axis; elsewhere it means that everything is taken, `all`."""


class StudyError(ValueError):
    """The study cannot be run as written; the message has one line for each fault."""

    def __init__(self, *faults: str | Refused) -> None:
        self.faults = tuple({one_line(str(fault)): fault for fault in faults}.values())
        super().__init__("\n".join(one_line(str(fault)) for fault in self.faults))


def _kind(values: Any) -> str:
    if isinstance(values, Mapping):
        return "choices" if "values" in values else "range"
    if isinstance(values, Choices):
        return "choices"
    return "range" if isinstance(values, Range) else "list"


AxisValues = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(_kind),
]
Axes = dict[str, AxisValues]


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
                raise Refused(f"sweep.{axis}", "[]", "has no value", "give at least one or drop the axis")
            if isinstance(values, Range) and self.search.algorithm == "grid":
                raise Refused(
                    f"sweep.{axis}",
                    NO_VALUE,
                    "is a range, but a grid takes lists",
                    "set search.algorithm to random or optuna",
                )
        columns: dict[str, str] = {}
        for axis in dict.fromkeys(axis for grid in self.sweep for axis in grid):
            column = short_name(axis)
            if columns.setdefault(column, axis) != axis:
                rule = f"and sweep.{columns[column]} share the column {column}"
                raise Refused(f"sweep.{axis}", NO_VALUE, rule, "sweep one of them")
        if self.search.algorithm != "grid" and len(self.sweep) != 1:
            raise Refused(
                "search.algorithm",
                self.search.algorithm,
                f"takes one sweep mapping, not {len(self.sweep)}",
                "join them or set it to grid",
            )
        for grid in self.sweep:
            check_conditions(grid, self.shown)
        check_grids(self.sweep, SHORTHANDS, self.shown)
        for grid in self.sweep:
            check_asked(grid, self.shown)
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
        axes: dict[str, list[Scalar]] = {}
        for axis, values in ((a, v) for grid in self.sweep for a, v in grid.items()):
            own = [values.low, values.high] if isinstance(values, Range) else listed(values) or []
            known = axes.setdefault(short_name(axis), [])
            known.extend(word for word in (self.shown(value, axis) for value in own) if word not in known)
        return axes

    def shown(self, value: Any, axis: str, validated: Any = None) -> Scalar:
        """Return how tables write a value of an axis: in full where the short text would be another's too.

        `validated`: the same settings as a trial has them; None writes them as the file does.
        """
        is_alike = isinstance(value, Mapping) and (axis, shown(value, axis)) in self._alike
        written = value if validated is None else validated
        return _in_full(written) if is_alike and LABEL not in written else shown(written, axis)

    @cached_property
    def conditional(self) -> frozenset[str]:
        """Axes that some points are not asked."""
        return frozenset(axis for grid in self.sweep for axis, values in grid.items() if condition(values))

    @cached_property
    def _alike(self) -> frozenset[tuple[str, Scalar]]:
        """Axes with the texts that several different values of one list have."""
        texts: dict[tuple[int, str, Scalar], set[str]] = {}
        for number, axis, value in self._mappings():
            settings = {name: part for name, part in value.items() if name != LABEL}
            texts.setdefault((number, axis, shown(value, axis)), set()).add(
                json.dumps(settings, sort_keys=True, default=str)
            )
        return frozenset((axis, text) for (_, axis, text), values in texts.items() if len(values) > 1)

    def _mappings(self) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """Yield the values that are mappings with their axis and the number of their grid."""
        for number, grid in enumerate(self.sweep):
            for axis, values in grid.items():
                own = listed(values) or []
                yield from ((number, axis, value) for value in own if isinstance(value, Mapping))

    def yaml(self) -> str:
        """Return the resolved study, as it is logged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)


def short_name(axis: str) -> str:
    """Return the column name of an axis: m, k, auxiliary, budget, ... or its path without the section."""
    return SHORT_NAMES.get(axis, axis)


def without_seeds(value: Any) -> Any:
    """Return nested settings without their seeds: what trials that are averaged over seeds have in common."""
    if not isinstance(value, Mapping):
        return value
    return {name: without_seeds(part) for name, part in value.items() if not is_seed(name)}


def shown(value: Any, axis: str = "") -> Scalar:
    """Return how tables write a value of an axis: nothing by its word, a mapping by the settings it sets."""
    nothing = EMPTY_WORDS.get(axis, "all")
    if value is None:
        return nothing
    if isinstance(value, list | tuple):
        return canonical(value)
    if not isinstance(value, Mapping):
        return value
    if LABEL in value:
        return str(value[LABEL])
    plain = {name: part for name, part in value.items() if not isinstance(part, Mapping)}
    parts = plain or value  # which network an attack trains is no news in a table of attacks
    text = " ".join(filter(None, (_shown_part(name, part) for name, part in parts.items())))
    if text:
        return text
    return _in_full(parts) if False in parts.values() else nothing  # off is not the same as not said


def _in_full(value: Mapping[str, Any]) -> str:
    """Return every setting of a mapping: other settings have another text."""
    words = []
    for name, part in value.items():
        text = f"({_in_full(part)})" if isinstance(part, Mapping) else f"={'null' if part is None else part}"
        words.append(str(part) if name == "name" else name + text)
    return " ".join(words)


def _shown_part(name: str, value: Any) -> str:
    """Return one setting of a mapping: names and kinds speak for themselves, switches when they are on."""
    if value is None or value is False:
        return ""
    if value is True:
        return name.replace("_", "-")
    if isinstance(value, Mapping):
        return f"{name}({shown(value)})"
    return value if isinstance(value, str) else f"{name}={value}"

"""Validation of a study by its points: metrics that no trial leaves, values that no trial has, settings and
searches without effect."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused, Scalar, is_same
from orchestrator.config.conditions import is_asked, listed
from orchestrator.config.normalise import PlannedSpec, normalise
from orchestrator.config.report import Report
from orchestrator.config.search import Range, Scheduler
from orchestrator.config.study import Study, StudyError, short_name
from orchestrator.metrics.names import CLASS, MetricName
from orchestrator.stages.graph import STAGES
from orchestrator.sweep.measurable import what_is_lacking
from orchestrator.sweep.points import Dropped, Point, make_point
from orchestrator.sweep.unused import unused


def check_points(
    study: Study, points: Sequence[Point], num_classes: Mapping[str, int], written: Study | None = None
) -> None:
    """Raise `StudyError` with all faults that show in the points of a study, or in some of an adaptive one.

    `num_classes`: data set name -> its classes. `written` is the study before scale and overrides: axes and
    values that these leave out may still be named.
    """
    specs = _Planned(points)
    faults = [
        *_unmeasured(study, specs, num_classes),
        *_unseen(study, specs),
        *_unknown_values(study, points, written),
        *unused(point.spec for point in points),
    ]
    if faults:
        raise StudyError(*faults)


class _Planned(Sequence[PlannedSpec]):
    """The points' specs in canonical form, each made when it is first asked for."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._specs: dict[int, PlannedSpec] = {}

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, place: int) -> PlannedSpec:  # type: ignore[override]
        if place not in self._specs:
            self._specs[place] = normalise(self._points[place].spec)
        return self._specs[place]


def _unmeasured(
    study: Study, specs: Sequence[PlannedSpec], num_classes: Mapping[str, int]
) -> Iterator[Refused]:
    """Yield metrics that no trial leaves; an adaptive search needs its objectives of every trial."""
    is_adaptive = study.search.algorithm == "optuna"
    named = study.report.named().under("report").metrics
    if study.report.metrics == Report().metrics:  # the defaults: tables write why one is not there
        named = {field: name for field, name in named.items() if not field.startswith("report.metrics.")}
    for name in study.search.objectives:
        metric = MetricName.parse(name)
        groups = [[spec] for spec in specs] if is_adaptive else [specs]
        lacking = (what_is_lacking(metric, group, num_classes) for group in groups)
        if missing := next(filter(None, lacking), ""):
            yield _not_measured("search.objectives", name, missing)
    for field, name in named.items():
        if missing := what_is_lacking(MetricName.parse(name), specs, num_classes):
            yield _not_measured(field, name, missing)


def _not_measured(field: str, name: str, missing: str) -> Refused:
    return Refused(
        field, name, f"is not measured here: it needs {missing}", "choose another metric or add that"
    )


def _unseen(study: Study, specs: Sequence[PlannedSpec]) -> Iterator[Refused]:
    """Yield parts of pictures, costs and schedulers of what no trial has."""
    report, scheduler = study.report, study.search.scheduler
    tasks = {part: "class-inference" if part == CLASS else "reconstruction" for part in report.parts}
    for part, task in tasks.items() if report.rows else ():
        if not any(spec.evaluation.task == task for spec in specs):
            rule = f"has no images here: it needs evaluation.task={task}"
            yield Refused("report.parts", part, rule, "name the parts that there are")
    costs = report.costs
    if costs and not any(STAGES[costs.stage].uses(spec) for spec in specs):
        yield Refused(
            "report.costs.stage", costs.stage, "is a stage that no trial here has", "choose another"
        )
    if scheduler and not any(_is_compared(scheduler, spec) for spec in specs):
        trained = {"inversion": "an attack that trains by epochs", "target": "a target that is trained here"}
        rule = f"stops nothing here: it needs {trained.get(scheduler.stage, 'a prior that is trained here')}"
        yield Refused("search.scheduler", NO_VALUE, rule, "leave it out")


def _is_compared(scheduler: Scheduler, spec: PlannedSpec) -> bool:
    if scheduler.stage == "inversion":
        return spec.attack.reports_epochs
    return bool(STAGES[scheduler.stage].uses(spec))


def _unknown_values(study: Study, points: Sequence[Point], written: Study | None) -> Iterator[Refused]:
    """Yield axes that are not swept and values that no point has."""
    values = _axes(study, points)
    if written is not None:
        firsts = (make_point(written, 0, _firsts(grid, written)) for grid in written.sweep)
        there = _axes(written, [made for made in firsts if not isinstance(made, Dropped)])
        values = {axis: (*values.get(axis, ()), *there.get(axis, ())) for axis in {**values, **there}}
    ranges = {short_name(a) for grid in study.sweep for a, v in grid.items() if isinstance(v, Range)}
    named = study.report.named().under("report")
    for field, axis in named.axes.items():
        if axis not in values:
            shown = NO_VALUE if field.endswith(f".{axis}") else axis  # keys of `where` are in the path
            yield Refused(field, shown, "is not swept here", f"swept are {', '.join(values)}")
    for field, (axis, value) in named.values.items():
        known = values.get(axis, ())
        if known and axis not in ranges and not any(is_same(value, one) for one in known):
            texts = ", ".join(dict.fromkeys(map(str, known[:MAX_VALUES])))
            more = ", ..." if len(known) > MAX_VALUES else ""
            yield Refused(field, value, f"is no value of the axis {axis}", f"it has {texts}{more}")


MAX_VALUES = 20  # of an axis that a refusal lists


def _axes(study: Study, points: Sequence[Point]) -> dict[str, tuple[Scalar, ...]]:
    """Return the values of axes, those that only the base gives to some grids included."""
    values = {axis: dict.fromkeys(listed) for axis, listed in study.axes().items()}
    for point in points:
        for axis, value in point.axes.items():
            values.setdefault(axis, {})[value] = None
    return {axis: tuple(known) for axis, known in values.items()}


def _firsts(grid: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Return the first value of each axis that is asked beside the first ones of those above."""
    chosen: dict[str, Any] = {}
    for axis, values in grid.items():
        if is_asked(values, chosen, study.shown):
            chosen[axis] = _first(values)
    return chosen


def _first(values: object) -> object:
    return values.low if isinstance(values, Range) else (listed(values) or [values])[0]

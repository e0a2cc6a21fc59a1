"""Report section of a study: tables, printed numbers, orderings, curves, histograms and the image grid.

Each section lists the metrics and axes that it names, by field; `sweep/validation` checks them before a sweep
starts, so that a new section is declared here and drawn in `report/`, and nowhere else.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from orchestrator.config.axes import is_seed
from orchestrator.config.base import NO_VALUE, Refused, Scalar, Spec

FILE_NAME = r"^[a-z0-9][a-z0-9-]{0,60}$"

Values = dict[str, Scalar]
"""Axis (short name) -> one value of it."""


@dataclass(frozen=True)
class Named:
    """What a section names: path of the field below the section, such as `where.m` -> name."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    """Full names of metrics."""

    shares: Mapping[str, str] = field(default_factory=dict)
    """Those of the metrics that must be shares of images."""

    axes: Mapping[str, str] = field(default_factory=dict)
    """Short names of axes."""

    values: Mapping[str, tuple[str, Scalar]] = field(default_factory=dict)
    """Short names of axes with one of their values each."""

    def __or__(self, other: "Named") -> "Named":
        return Named(
            {**self.metrics, **other.metrics},
            {**self.shares, **other.shares},
            {**self.axes, **other.axes},
            {**self.values, **other.values},
        )

    def under(self, section: str) -> "Named":
        """Return the same names with the paths below a section."""

        def below(kind: Mapping[str, Any]) -> dict[str, Any]:
            return {f"{section}.{path}": name for path, name in kind.items()}

        return Named(below(self.metrics), below(self.shares), below(self.axes), below(self.values))


@runtime_checkable
class Section(Protocol):
    """A section of the report."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""


class Printed(Spec):
    """A number that a paper prints; the report shows ours beside it."""

    source: str
    """Where it is printed, for example `AMI, Table II`."""

    label: str
    """What the row is called in the table."""

    where: Values = Field({})
    """Axes (short names) and values of the trials that it describes; their mean over seeds is ours."""

    metric: str
    """Which of our metrics it is."""

    value: float
    """The printed value in that metric's unit: accuracies as shares."""

    note: str = ""
    """What a reader should know of it, for example that it cannot be a per-pixel error."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""
        return Named(
            {"metric": self.metric}, axes=_keys("where", self.where), values=_values("where", self.where)
        )


class Ordering(Spec):
    """An order of settings that a paper reports; the report says whether it holds, with an interval."""

    claim: str
    """In words, for example `larger m leaks more`."""

    source: str
    """Where it is reported, for example `AMI, Figure 7`."""

    metric: str
    """Which of our metrics is compared."""

    axis: str
    """Short name of the axis whose values are ordered."""

    order: tuple[Scalar, ...] = Field(min_length=2)
    """Its values from the least to the most leakage (of a utility metric: from the lower to the higher);
    neighbours are compared."""

    where: Values = Field({})
    """Values of other axes; what is left out and swept is paired setting by setting."""

    along: tuple[str, ...] = ()
    """Axes (short names) that may change along with it, such as the prior that an attack needs."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""
        axes = {"axis": self.axis} | _places("along", self.along) | _keys("where", self.where)
        order = {path: (self.axis, value) for path, value in _places("order", self.order).items()}
        return Named({"metric": self.metric}, axes=axes, values=order | _values("where", self.where))

    @model_validator(mode="after")
    def _compares_several_settings(self) -> Self:
        _check_fixed("where", self.where, {"axis": self.axis} | _places("along", self.along))
        repeated = [value for value in self.order if [*map(str, self.order)].count(str(value)) > 1]
        if repeated:
            raise Refused("order", repeated[0], "is there twice", "name each value once")
        return self


class Delta(Spec):
    """What a defense saves for what it costs: attack accuracy against natural accuracy, point for point."""

    reference: Values = Field(min_length=1)
    """Axes (short names) and values that make a trial undefended; trials that have other values there are
    defended ones, set beside the undefended one with the same other axes and seeds."""

    leakage: str = "attack/accuracy_top1_test"
    """Metric of the numerator: a share that is larger where more leaks."""

    utility: str = "target/accuracy"
    """Metric of the denominator: F's accuracy as a share."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""
        shares = {"leakage": self.leakage, "utility": self.utility}
        reference = self.reference
        return Named(shares, shares, _keys("reference", reference), _values("reference", reference))


class RobustnessCurve(Spec):
    """Leakage over utility along the training of targets, as in TL-DMI's Figure 1."""

    name: str = Field(pattern=FILE_NAME)
    """The files are curve-NAME.png and curve-NAME.csv."""

    x: str = "target/accuracy"
    """Metric from left to right, averaged over seeds."""

    y: str = "attack/accuracy_top1_test"
    """Metric from bottom to top, averaged over seeds."""

    line: str
    """Axis (short name) that has a line for each of its values."""

    points: str | None = None
    """Axis whose values are the points of a line, in their order; None takes every setting of the other axes,
    from the smallest x to the largest."""

    where: Values = Field({})
    """Values of the other axes; with `points`, an axis left out takes its first value."""

    reference: Scalar | None = None
    """Value of `line` whose leakage the other lines are compared with where x is equal, in equal-NAME.csv and
    equal-NAME.tex; it needs `points`. None compares none."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""
        points = {} if self.points is None else {"points": self.points}
        axes = {"line": self.line} | points | _keys("where", self.where)
        reference = {} if self.reference is None else {"reference": (self.line, self.reference)}
        values = reference | _values("where", self.where)
        return Named({"x": self.x, "y": self.y}, axes=axes, values=values)

    @model_validator(mode="after")
    def _lines_have_points(self) -> Self:
        drawn = {"line": self.line} | ({} if self.points is None else {"points": self.points})
        _check_fixed("where", self.where, drawn)
        if self.points == self.line:
            raise Refused("points", self.points, "is the axis of the lines too", "use null or another axis")
        if self.reference is not None and self.points is None:
            raise Refused("reference", self.reference, "needs points", "name the axis of the points")
        return self


class Histogram(Spec):
    """How a value is distributed over successful and failed attacks, as in TL-DMI's Figures 6 and 7."""

    name: str = Field(pattern=FILE_NAME)
    """The files are histogram-NAME.png and histogram-NAME.csv."""

    value: str = "class/target_confidence"
    """Metric that evaluations keep for each image."""

    success: str = "class/judge_top1"
    """Metric of the same images that is 1 where the attack succeeded and 0 where it failed."""

    panels: str
    """Axis (short name) that has a panel for each of its values."""

    where: Values = Field({})
    """Values of the other axes; an axis left out takes its first value. Images of all seeds are pooled."""

    def named(self) -> Named:
        """Return the metrics and axes that it names."""
        success = {"success": self.success}
        axes = {"panels": self.panels} | _keys("where", self.where)
        return Named({"value": self.value} | success, success, axes, _values("where", self.where))

    @model_validator(mode="after")
    def _panels_differ(self) -> Self:
        _check_fixed("where", self.where, {"panels": self.panels})
        return self


class Costs(Spec):
    """What one stage costs in each setting beside a reference, as in TL-DMI's Table 13."""

    stage: str = "target"
    """Stage whose wall and CPU seconds are compared."""

    reference: Values = Field(min_length=1)
    """Axes (short names) and values of the setting that the others are divided by, at the same other axes."""

    def named(self) -> Named:
        """Return the axes that it names."""
        reference = self.reference
        return Named(axes=_keys("reference", reference), values=_values("reference", reference))


# Every model class has a method of that name by its metaclass, which its objects do not have.
warnings.filterwarnings("ignore", 'Field name "register" in "Report"', UserWarning)


class Report(Spec):
    """What the sweep's report shows beside the objectives."""

    metrics: tuple[str, ...] = ("inversion/mse_test", "inversion/ssim_test", "attack/accuracy_top1_test")
    """Columns of the summary over seeds."""

    rows: tuple[str, ...] = ()
    """Axes (short names) whose values are the rows of the study's picture; none draws no picture."""

    beside: tuple[str, ...] = ()
    """Axes whose values stand side by side for each image, as ours and the baseline in AMI's figures."""

    parts: tuple[Literal["train", "test", "class"], ...] = Field(("test",), min_length=1)
    """Blocks of the picture from left to right: images F was trained on, its test images, or one image for
    each class."""

    where: Values = Field({})
    """Values of the other axes in that picture; an axis left out takes its first value."""

    columns: int = Field(default=10, gt=0, le=200)
    """Images in each row of a block."""

    replicates: tuple[str, ...] | None = None
    """Axes (short names) that repeat a setting: tables average over them, and intervals resample each of them
    by itself. None: every axis whose last part is `seed`."""

    population: bool = False
    """Whether the target's classes are all there are, as ten digits are. True holds them fixed; False
    resamples them too, as people drawn from many."""

    printed: tuple[Printed, ...] = ()
    """Numbers that a paper prints for settings of this study."""

    orderings: tuple[Ordering, ...] = ()
    """Orders that a paper reports for settings of this study."""

    delta: Delta | None = None
    """Trade of leakage against accuracy for each defended setting; None makes no such table."""

    curves: tuple[RobustnessCurve, ...] = ()
    """Pictures of leakage over utility."""

    histograms: tuple[Histogram, ...] = ()
    """Pictures of a value over successful and failed attacks."""

    costs: Costs | None = None
    """Table of one stage's seconds; they differ from store to store, so no other table has them. None makes
    none."""

    register: bool = False
    """Whether models of the setting that leaks most are registered in MLflow: F, prior and inverter of each
    of its trials, as far as they are stored as safetensors."""

    @model_validator(mode="after")
    def _names_are_used_once(self) -> Self:
        for section, parts in (("curves", self.curves), ("histograms", self.histograms)):
            names = [part.name for part in parts]
            repeated = [name for name in names if names.count(name) > 1]
            if repeated:
                way_out = "rename one: each has files of its own"
                raise Refused(section, NO_VALUE, f"has name={repeated[0]} twice", way_out)
        return self

    @model_validator(mode="after")
    def _parts_of_the_picture_differ(self) -> Self:
        placed: dict[str, str] = {}
        drawn = {
            **_places("rows", self.rows),
            **_places("beside", self.beside),
            **_places("parts", self.parts),
        }
        for path, name in {**drawn, **_keys("where", self.where)}.items():
            if name in placed:
                value = NO_VALUE if path.startswith("where") else name
                raise Refused(path, value, f"is report.{placed[name]} too", "name it once")
            placed[name] = path
        return self

    @model_validator(mode="after")
    def _replicates_are_not_compared(self) -> Self:
        for path, axis in self.named().axes.items():
            is_fixed = path.startswith(("where.", "replicates.")) or ".where." in path
            if self.replicates and axis in self.replicates and not is_fixed:
                shown = NO_VALUE if path.endswith(f".{axis}") else axis  # keys of `reference` are in the path
                rule = "is one of report.replicates, over which tables average"
                raise Refused(path, shown, rule, "leave it out of one of them")
        return self

    def repeats(self, axis: str) -> bool:
        """Return whether an axis (short name) repeats a setting."""
        return is_seed(axis) if self.replicates is None else axis in self.replicates

    def named(self) -> Named:
        """Return the metrics of the summary, the axes of image grid and replicates, and what the sections
        name."""
        axes = _places("rows", self.rows) | _places("beside", self.beside) | _keys("where", self.where)
        axes |= _places("replicates", self.replicates or ())
        own = Named(_places("metrics", self.metrics), axes=axes, values=_values("where", self.where))
        return reduce(or_, (section.named().under(path) for path, section in self.sections()), own)

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Yield path and content of each section that the study has, such as `curves.0`."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            parts = _places(name, value) if isinstance(value, tuple) else {name: value}
            yield from ((path, part) for path, part in parts.items() if isinstance(part, Section))


def _keys(name: str, values: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the keys of a mapping by their path."""
    return {f"{name}.{key}": key for key in values}


def _values(name: str, values: Mapping[str, Scalar]) -> dict[str, tuple[str, Scalar]]:
    """Return the items of a mapping by the path of their key."""
    return {f"{name}.{key}": (key, value) for key, value in values.items()}


def _check_fixed(name: str, values: Mapping[str, Scalar], drawn: Mapping[str, str]) -> None:
    """Raise `Refused` if a mapping gives one value to an axis of which several are drawn or compared."""
    for drawn_by, axis in drawn.items():
        if axis in values:
            raise Refused(
                f"{name}.{axis}", values[axis], f"leaves one value of {drawn_by}={axis}", "leave it out"
            )


def _places(name: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """Return the members of a list by their path."""
    return {f"{name}.{place}": value for place, value in enumerate(values)}

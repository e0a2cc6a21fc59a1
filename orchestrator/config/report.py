"""Report section of a study: tables, printed numbers, orders, curves and pictures."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from orchestrator.config.base import Spec

FILE_NAME = r"^[a-z0-9][a-z0-9-]{0,60}$"


AxisValue = str | int | float | bool


class Printed(Spec):
    """A number that a paper prints; the report shows ours beside it."""

    source: str
    """Where it is printed, for example `AMI, Table II`."""

    label: str
    """What the row is called in the table."""

    where: dict[str, AxisValue] = Field({})
    """Axes (short names) and values of the trials that it describes; their mean over seeds is ours."""

    metric: str
    """Which of our metrics it is."""

    value: float
    """The printed value in that metric's unit: accuracies as shares."""

    note: str = ""
    """What a reader should know of it, for example that it cannot be a per-pixel error."""


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

    order: tuple[AxisValue, ...] = Field(min_length=2)
    """Its values from the least to the most leakage (of a utility metric: from the lower to the higher);
    neighbours are compared."""

    where: dict[str, AxisValue] = Field({})
    """Values of other axes; what is left out and swept is paired setting by setting."""


class Delta(Spec):
    """What a defense saves for what it costs: attack accuracy against natural accuracy, point for point."""

    reference: dict[str, AxisValue] = Field(min_length=1)
    """Axes (short names) and values that make a trial undefended; trials that have other values there are
    defended ones, set beside the undefended one with the same other axes and seeds."""

    leakage: str = "attack/accuracy_top1_test"
    """Metric of the numerator: a share that is larger where more leaks."""

    utility: str = "target/accuracy"
    """Metric of the denominator: the victim's accuracy as a share."""


class RobustnessCurve(Spec):
    """Leakage over utility along the training of victims, as in TL-DMI's Figure 1."""

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

    where: dict[str, AxisValue] = Field({})
    """Values of the other axes; with `points`, an axis left out takes its first value."""


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

    where: dict[str, AxisValue] = Field({})
    """Values of the other axes; an axis left out takes its first value. Images of all seeds are pooled."""


class Costs(Spec):
    """What one stage costs in each setting beside a reference, as in TL-DMI's Table 13."""

    stage: str = "target"
    """Stage whose wall and CPU seconds are compared."""

    reference: dict[str, AxisValue] = Field(min_length=1)
    """Axes (short names) and values of the setting that the others are divided by, at the same other axes."""


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

    where: dict[str, AxisValue] = Field({})
    """Values of the other axes in that picture; an axis left out takes its first value."""

    columns: PositiveInt = 10
    """Images in each row of a block."""

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

    @model_validator(mode="after")
    def _names_are_used_once(self) -> Self:
        for field, parts in (("curves", self.curves), ("histograms", self.histograms)):
            names = [part.name for part in parts]
            repeated = [name for name in names if names.count(name) > 1]
            if repeated:
                raise ValueError(
                    f"report.{field} has name={repeated[0]} twice; each one has files of its own."
                )
        return self

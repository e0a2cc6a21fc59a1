"""Search: how points are chosen, by which objectives, early stopping of trials and of the search."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import NO_VALUE, Count, Refused, Scalar, Seed, Spec, added_field

MAX_POINTS = 20_000
"""Points of one study; larger ones are several studies over one store."""

LARGEST = 9e15
"""Up to here every whole number is a float."""


When = dict[str, list[Scalar | None] | Scalar | None]
"""Axis above -> the value, or one of the values, as tables write them."""


class Range(Spec):
    """A continuous or integer axis for random and Optuna searches."""

    low: float = Field(ge=-LARGEST, le=LARGEST)
    """Smallest value."""

    high: float = Field(ge=-LARGEST, le=LARGEST)
    """Largest value."""

    log: bool = False
    """Draw on a logarithmic scale."""

    integer: bool = False
    """Draw whole numbers."""

    when: When = added_field({})
    """The axis is active only where the axes named here, which stand above it, have these values (a list: one
    of them); all must hold. A trial in which it is not active keeps what the base has there."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            rule = f"must be below high={self.high} and, with log, above 0"
            raise Refused("low", self.low, rule, "correct one of them")
        return self

    @model_validator(mode="after")
    def _ends_are_drawn(self) -> Self:
        for field, value in (("low", self.low), ("high", self.high)):
            if self.integer and value != int(value):
                rule = "must be a whole number where integer is true"
                raise Refused(field, value, rule, "round it or set integer to false")
        return self

    def has(self, value: object) -> bool:
        """Return whether a value is one that may be drawn."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (not self.integer or value == int(value))


class Choices(Spec):
    """An axis with a list of values that is active only where other axes have certain values."""

    values: Annotated[list[Any], Field(min_length=1)]
    """Its values."""

    when: Annotated[When, Field(min_length=1)]
    """As of a range."""


class Scheduler(Spec):
    """Stop trainings early that lag behind others of their kind, epoch by epoch."""

    kind: Literal["asha", "median"] = added_field("asha")
    """asha: asynchronous successive halving (Li et al., MLSys 2020); median: a training stops whose best
    value so far is worse than the median of others at that epoch (Golovin et al., KDD 2017)."""

    stage: Literal["inversion", "target", "prior"] = added_field("inversion")
    """Which training is compared: inverters by their held-out squared error, targets by their held-out
    accuracy, priors by how far their critic tells held-out public images from generated ones."""

    grace_epochs: Count = 10
    """Epochs that every training is given at least."""

    reduction_factor: int = Field(default=3, ge=2, le=1000)
    """Of this many trainings one goes on after each rung of asha."""

    least_trials: Count = added_field(5)
    """Trainings that median compares with at least."""

    @model_validator(mode="after")
    def _has_what_its_kind_reads(self) -> Self:
        unused = {"asha": "least_trials", "median": "reduction_factor"}[self.kind]
        value = getattr(self, unused)
        if value != type(self).model_fields[unused].default:
            raise Refused(unused, value, f"changes nothing where kind={self.kind}", "leave it out")
        return self


class Stop(Spec):
    """End an Optuna search when its front no longer grows."""

    patience: Count = 20
    """Trials over which the hypervolume of the front must have grown; at least as many are asked."""

    tolerance: float = Field(default=0.01, ge=0.0, le=1.0)
    """Growth that counts as none, as a share of the hypervolume."""

    reference: dict[str, float] = Field({})
    """Objective -> its worst value that counts, a corner of the hypervolume; of a share of images it is 0
    where it is maximized and 1 where it is minimized, any other objective needs one."""


class Search(Spec):
    """How points are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid runs every combination, random draws points, optuna learns from earlier points."""

    samples: int = Field(default=20, gt=0, le=MAX_POINTS)
    """Points of a random or Optuna search."""

    sampler: Literal["tpe", "nsga-ii"] = added_field("tpe")
    """Optuna's: tpe, a tree-structured Parzen estimator, for one objective or several; nsga-ii, a genetic
    algorithm for several."""

    population: Annotated[int, Field(ge=2, le=1000)] = added_field(20)
    """Trials of a generation of nsga-ii; the first one is drawn at random."""

    batch: int = Field(default=4, gt=0, le=1000)
    """Optuna points requested at once; results are reported in index order, so that the search repeats."""

    seed: Seed = 0
    """Of random and Optuna draws."""

    objectives: dict[str, Literal["minimize", "maximize"]] = Field({"inversion/mse_test": "minimize"})
    """Metric -> direction; the first one sorts tables and views."""

    warm_start: bool = added_field(False)
    """Tell Optuna, before it asks, of trials of these very settings that other sweeps left in the store. The
    points then depend on the store; the journal keeps which trials they were, so that the sweep repeats."""

    stop: Stop | None = added_field(None)
    """End an Optuna search before `samples` when the hypervolume of its front no longer grows."""

    scheduler: Scheduler | None = None
    """Stops lagging trainings early. It compares trials in the order they run, so that its choices on Ray are
    not reproducible. None stops nothing."""

    @model_validator(mode="after")
    def _draws_what_it_says(self) -> Self:
        """A grid draws nothing, and only Optuna asks for batches and learns."""
        learning = ("sampler", "population", "batch", "warm_start", "stop")
        unused = {"grid": ("samples", *learning), "random": learning}.get(self.algorithm, ())
        for field in unused:
            value = getattr(self, field)
            if value != type(self).model_fields[field].default:
                shown = NO_VALUE if isinstance(value, Spec) else value
                rule = f"changes nothing where search.algorithm={self.algorithm}"
                raise Refused(field, shown, rule, "leave it out or set search.algorithm to optuna")
        return self

    @model_validator(mode="after")
    def _generations_fit(self) -> Self:
        if self.sampler != "nsga-ii" and self.population != type(self).model_fields["population"].default:
            rule = f"changes nothing where search.sampler={self.sampler}"
            raise Refused(
                "population", self.population, rule, "leave it out or set search.sampler to nsga-ii"
            )
        return self

    @model_validator(mode="after")
    def _stops_by_objectives(self) -> Self:
        for name in self.stop.reference if self.stop else ():
            if name not in self.objectives:
                rule = f"is no objective; they are {', '.join(self.objectives)}"
                raise Refused("stop.reference", name, rule, "name one of them or leave it out")
        return self

    @model_validator(mode="after")
    def _has_an_objective(self) -> Self:
        if not self.objectives:
            way_out = "name at least one, for example {inversion/mse_test: minimize}"
            raise Refused("objectives", "{}", "names no metric", way_out)
        return self

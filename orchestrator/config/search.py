"""Search: how points are chosen, by which objectives, and early stopping."""

from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Refused, Seed, Spec

MAX_POINTS = 20_000
"""Points of one study; larger ones are several studies over one store."""

LARGEST = 9e15
"""Up to here every whole number is a float."""


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


class Asha(Spec):
    """Stop inverters early whose held-out loss lags (asynchronous successive halving)."""

    grace_epochs: Count = 10
    """Epochs that every inverter trains at least."""

    reduction_factor: int = Field(default=3, ge=2, le=1000)
    """Of this many inverters one goes on after each rung."""


class Search(Spec):
    """How points are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid runs every combination, random draws points, optuna learns from earlier points."""

    samples: int = Field(default=20, gt=0, le=MAX_POINTS)
    """Points of a random or Optuna search."""

    batch: int = Field(default=4, gt=0, le=1000)
    """Optuna points requested at once; results are reported in index order, so that the search repeats."""

    seed: Seed = 0
    """Of random and Optuna draws."""

    objectives: dict[str, Literal["minimize", "maximize"]] = Field({"inversion/mse_test": "minimize"})
    """Metric -> direction; the first one sorts tables and views."""

    scheduler: Asha | None = None
    """ASHA compares trials in the order they run: its choices are not reproducible. None stops nothing."""

    @model_validator(mode="after")
    def _draws_what_it_says(self) -> Self:
        """A grid draws nothing, and only Optuna asks for batches."""
        unused = {"grid": ("samples", "batch"), "random": ("batch",)}.get(self.algorithm, ())
        for field in unused:
            value = getattr(self, field)
            if value != type(self).model_fields[field].default:
                rule = f"changes nothing where search.algorithm={self.algorithm}"
                raise Refused(field, value, rule, "leave it out or set search.algorithm to optuna")
        return self

    @model_validator(mode="after")
    def _has_an_objective(self) -> Self:
        if not self.objectives:
            way_out = "name at least one, for example {inversion/mse_test: minimize}"
            raise Refused("objectives", "{}", "names no metric", way_out)
        return self

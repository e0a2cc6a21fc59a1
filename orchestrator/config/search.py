"""Search: how points are chosen, by which objectives, and early stopping."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from orchestrator.config.base import Refused, Spec


class Range(Spec):
    """A continuous or integer axis for random and Optuna searches."""

    low: float
    """Smallest value."""

    high: float
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


class Asha(Spec):
    """Stop inverters early whose held-out loss lags (asynchronous successive halving)."""

    grace_epochs: PositiveInt = 10
    """Epochs that every inverter trains at least."""

    reduction_factor: int = Field(default=3, ge=2)
    """Of this many inverters one goes on after each rung."""


class Search(Spec):
    """How points are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid runs every combination, random draws points, optuna learns from earlier points."""

    samples: PositiveInt = 20
    """Points of a random or Optuna search."""

    batch: PositiveInt = 4
    """Optuna points requested at once; results are reported in index order, so that the search repeats."""

    seed: int = 0
    """Of random and Optuna draws."""

    objectives: dict[str, Literal["minimize", "maximize"]] = Field({"inversion/mse_test": "minimize"})
    """Metric -> direction; the first one sorts tables and views."""

    scheduler: Asha | None = None
    """ASHA compares trials in the order they run: its choices are not reproducible. None stops nothing."""

    @model_validator(mode="after")
    def _has_an_objective(self) -> Self:
        if not self.objectives:
            way_out = "name at least one, for example {inversion/mse_test: minimize}"
            raise Refused("objectives", "{}", "names no metric", way_out)
        return self

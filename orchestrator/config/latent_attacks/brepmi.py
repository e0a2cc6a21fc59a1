"""Settings of BREPMI: inversion from labels alone."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Positive, Refused, Seed, Share
from orchestrator.config.latent_attacks.base import LatentAttack


class BrepmiAttack(LatentAttack):
    """BREPMI (Kahla et al., CVPR 2022): moves away from a class's boundary by labels alone. Black-box."""

    access = "labels"
    stops_early = True

    name: Literal["brepmi"]
    """How studies call this attack."""

    points: Count = 32
    """Points of the sphere that are queried before a move."""

    margin: Share = 0.75
    """The radius grows when points of the class outnumber the others by more than this share of all: from 29
    of 32 on."""

    radius: Positive = 2.0
    """First radius of the sphere."""

    growth: Annotated[float, Field(gt=1.0, le=10.0)] = 1.3
    """Factor of the radius."""

    patience: Count = 1000
    """Moves that the target accepts since the radius last grew, after which a search ends; a radius of ten
    diameters of the cube of z ends it too."""

    signs: Literal["outside", "both"] = "outside"
    """outside: only points of other classes repel, as released; both: those of the class attract too."""

    clip: Positive = 1.5
    """Each number of z is clipped to -clip..clip, at the start and after a move."""

    batch: Count = 256
    """Random z that are queried together until one is of the class."""

    budget: Count = 500_000
    """Queries for an image at most, `batch` at least; released code has no bound."""

    seed: Seed = 0
    """Draws starts and directions."""

    @model_validator(mode="after")
    def _budgets_hold_a_batch(self) -> Self:
        if self.budget < self.batch:
            rule = f"must be at least batch={self.batch}"
            raise Refused("budget", self.budget, rule, "raise it or lower attack.batch")
        return self

    @property
    def passes(self) -> tuple[float, float]:
        """The points of as many moves as patience allows after one growth."""
        return 0.0, float(min(self.budget, self.points * self.patience))

"""Base of attacks that search the latent space of a generative prior: their common traits.

Rows never influence each other, but against MID with noise at inference, which is drawn for a whole batch.
Where released code couples them, a setting holds what it amounts to.
"""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.base import Refused

Steps = Annotated[int, Field(ge=0, le=10_000_000)]
Restarts = Annotated[int, Field(ge=1, le=1000)]
Candidates = Literal["own", "released"]
"""Whose search the images of a class come from, where `evaluation.candidates` asks for several."""


class LatentAttack(AttackSpec):
    """What all of them are: a search for an image of a class that needs a prior."""

    tasks = frozenset({"class-inference"})
    leaves = "images"
    needs_prior = True


def check_in_pool(field: str, number: int, pool: int) -> None:
    """Raise `Refused` if more variables are to be taken from a pool than it has."""
    if number > pool:
        way_out = f"enlarge the pool or lower attack.{field}"
        raise Refused(field, number, f"must be at most pool={pool}", way_out)

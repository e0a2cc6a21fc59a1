"""Forest: what a model of a search's trials says of its axes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Forest:
    """What a model of a search's trials says of its axes."""

    shares: Mapping[str, float]  # swept axis -> its share of the model's variance, alone
    num_trials: int  # that the model was grown of
    explained: float  # R2 of its trials out of bag; 0 or less: it explains nothing

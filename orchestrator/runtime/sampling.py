"""Samplers and spaces of Optuna for a study's axes."""

import warnings
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from orchestrator.config.conditions import listed
from orchestrator.config.search import Choices, Range, Search

Values = list[Any] | Range | Choices


def sampler_of(search: Search, *, groups: bool) -> optuna.samplers.BaseSampler:
    """Return the search's sampler; `groups`: some axes are not asked in every trial.

    TPE (Bergstra et al., NIPS 2011; for several objectives Ozaki et al., GECCO 2020) has one model for axes
    that are asked together. NSGA-II (Deb et al., 2002) crosses and mutates all axes of a trial, read or not.
    """
    if search.sampler == "nsga-ii":
        return optuna.samplers.NSGAIISampler(seed=search.seed, population_size=search.population)
    with warnings.catch_warnings():  # `group` may change in a later version, which would be another lock file
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=search.seed, multivariate=True, group=groups, constant_liar=True
        )


def distribution(values: Values) -> BaseDistribution:
    """Return Optuna's space of an axis."""
    if not isinstance(values, Range):
        return CategoricalDistribution(list(_by_text(values)))
    if values.integer:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def suggest(trial: optuna.Trial, axis: str, values: Values) -> Any:
    """Return a value of an axis for a trial."""
    if not isinstance(values, Range):
        by_text = _by_text(values)
        return by_text[trial.suggest_categorical(axis, list(by_text))]
    if values.integer:
        return trial.suggest_int(axis, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(axis, values.low, values.high, log=values.log)


def as_param(value: Any, values: Values) -> Any:
    """Return a value of an axis as Optuna has it."""
    return value if isinstance(values, Range) else str(value)


def _by_text(values: Values) -> dict[str, Any]:
    return {str(value): value for value in listed(values) or []}

"""Importance of a search's axes: fANOVA of a random forest, by Optuna, over the trials that ended.

F. Hutter, H. Hoos and K. Leyton-Brown, 2014. The shares are of the forest's own variance over the whole
space, so that they say less the fewer trials there are; they have no interval.
"""

import math
from collections.abc import Mapping, Sequence

from orchestrator.config.base import Scalar
from orchestrator.config.search import Range
from orchestrator.config.study import Study, short_name
from orchestrator.sweep.records import TrialRecord

LEAST_TRIALS = 8  # of which a forest is grown
SEED = 0  # the same trials give the same shares


def axis_importance(study: Study, records: Sequence[TrialRecord], metric: str) -> Mapping[str, float]:
    """Return axis (short name) -> its share of what a forest makes of the metric's variance, replicates left
    out; empty for a grid, for few trials, and where the metric does not vary."""
    if study.search.algorithm == "grid":
        return {}
    axes = {short_name(axis): values for axis, values in study.sweep[0].items()}
    axes = {axis: values for axis, values in axes.items() if not study.report.repeats(axis)}
    having = [
        one
        for one in sorted(records, key=lambda record: record.index)
        if one.status == "finished" and math.isfinite(one.metrics.get(metric, math.nan))
    ]
    having = [one for one in having if axes.keys() <= one.axes.keys()]
    values = [one.metrics[metric] for one in having]
    varying = [axis for axis in axes if len({str(one.axes[axis]) for one in having}) > 1]
    if len(having) < LEAST_TRIALS or len(set(values)) < 2 or not varying:
        return {}
    import optuna  # here: Optuna and its forest take a second to import, and a grid needs neither
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    spaces: dict[str, BaseDistribution] = {}
    for axis in varying:
        own = axes[axis]
        if not isinstance(own, Range):
            spaces[axis] = CategoricalDistribution(sorted({str(one.axes[axis]) for one in having}))
        elif own.integer:
            spaces[axis] = IntDistribution(int(own.low), int(own.high), log=own.log)
        else:
            spaces[axis] = FloatDistribution(own.low, own.high, log=own.log)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = optuna.create_study()
    for one, value in zip(having, values, strict=True):
        params = {axis: _param(one.axes[axis], spaces[axis]) for axis in varying}
        searched.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    shares = get_param_importances(searched, evaluator=FanovaImportanceEvaluator(seed=SEED), params=varying)
    return {axis: float(share) for axis, share in shares.items()}


def _param(value: Scalar, space: object) -> object:
    """Return a value as Optuna's space has it: words of a category, numbers of a range."""
    return value if hasattr(space, "low") else str(value)

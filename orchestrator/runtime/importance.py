"""Importance of a search's axes: fANOVA of a random forest, by Optuna, over the trials that ended.

F. Hutter, H. Hoos and K. Leyton-Brown, 2014. The shares are of the forest's own variance over the whole
space, an estimate without interval that says less the fewer trials there are: they do not add up to 1, as
interactions have the rest. What the forest explains of trials that its trees have not seen (out of bag) says
whether it is of use at all.
"""

import math
from collections.abc import Sequence

from orchestrator.config.base import Scalar
from orchestrator.config.search import Range
from orchestrator.config.study import Study, short_name
from orchestrator.sweep.forest import Forest
from orchestrator.sweep.records import TrialRecord

LEAST_TRIALS = 8  # of which a forest is grown
TREES = 64  # of a forest
SEED = 0  # the same trials give the same shares


def axis_importance(study: Study, records: Sequence[TrialRecord], metric: str) -> Forest | None:
    """Return what a forest makes of the metric's variance by axis (short name), replicates left out; None for
    a grid, for few trials, and where the metric does not vary."""
    if study.search.algorithm == "grid":
        return None
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
        return None
    import optuna  # here: Optuna and its forest take a second to import, and a grid needs neither
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.importance import FanovaImportanceEvaluator

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
        params = {axis: _param(one.axes[axis], axes[axis]) for axis in varying}
        searched.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=SEED)
    shares = evaluator.evaluate(searched, params=varying)  # of the variance, not of their own sum
    drawn = [[_drawn(one.axes[axis], axes[axis]) for axis in varying] for one in having]
    known = {axis: float(share) for axis, share in shares.items()}
    return Forest(known, len(having), _explained(drawn, values))


def _explained(drawn: Sequence[Sequence[Scalar]], values: Sequence[float]) -> float:
    """Return R2 of trials by the trees that were grown without them. `drawn`: (trials, axes)."""
    import numpy as np  # here: as Optuna, for searches alone
    from sklearn.ensemble import RandomForestRegressor

    columns: list[list[float]] = []
    for own in zip(*drawn, strict=True):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in own):
            columns.append([float(value) for value in own])
        else:
            words = [str(value) for value in own]
            columns += [[float(word == level) for word in words] for level in sorted(set(words))]
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=SEED)
    return float(forest.fit(np.array(columns).T, np.array(values)).oob_score_)


def _param(value: Scalar, own: object) -> Scalar:
    """Return a value as Optuna's space has it: words of a category, numbers of a range.

    Where a trial was not asked the axis, and has nothing or what the base has there, it is the middle of the
    range, which no tree splits such trials by.
    """
    return _drawn(value, own) if isinstance(own, Range) else str(value)


def _drawn(value: Scalar, own: object) -> Scalar:
    if not isinstance(own, Range) or own.has(value):
        return value
    middle = math.sqrt(own.low * own.high) if own.log else (own.low + own.high) / 2
    return round(middle) if own.integer else middle

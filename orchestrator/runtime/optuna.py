"""Optuna's search: synchronous batches whose results reach the sampler in index order.

The order in which trials finish has no influence: the same study yields the same points. Results of stored
points are given at once, so a search resumes by starting again.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from orchestrator.config.base import Refused
from orchestrator.config.normalise import normalise
from orchestrator.config.search import Range
from orchestrator.config.study import Study, StudyError
from orchestrator.metrics.names import MetricName
from orchestrator.sweep.measurable import lacks
from orchestrator.sweep.points import Dropped, Point, Settings, make_point
from orchestrator.sweep.search import MAX_DRAWS_PER_SAMPLE, draw, no_draw
from orchestrator.sweep.validation import Preflight

logger = logging.getLogger(__name__)

PROBES = 64  # random draws checked before an adaptive search starts


class OptunaPoints:
    """Implements `Points`: asks Optuna for a batch, then tells it the whole batch in the order asked."""

    def __init__(self, study: Study, preflight: Preflight) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._preflight = study, preflight
        self._axes = {
            axis: values if isinstance(values, Range) else {str(value): value for value in values}
            for axis, values in study.sweep[0].items()
        }
        objectives = study.search.objectives
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
            seed=study.search.seed, multivariate=True, constant_liar=True
        )
        self._optuna = optuna.create_study(directions=list(objectives.values()), sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}
        self._num_points = 0
        self._settings = Settings()
        self.dropped: list[Dropped] = []
        self.probed: Sequence[Point] = self._probe()

    def ask(self) -> list[Point]:
        """Return the next batch of points that can exist and were not asked before; empty at the end."""
        search = self._study.search
        size = min(search.batch, search.samples - self._num_points)
        batch: list[Point] = []
        for _ in range(size * MAX_DRAWS_PER_SAMPLE):
            if len(batch) == size:
                break
            trial = self._optuna.ask()
            made = make_point(self._study, self._num_points, self._suggest(trial))
            if isinstance(made, Dropped):
                self.dropped.append(made)
                self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            point = self._preflight.resolve(made)
            if point.key in self._asked:
                self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            self._asked[point.key] = trial
            self._num_points += 1
            batch.append(self._settings.named(point))
        return batch

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Give the objectives of a batch to the sampler, in index order.

        A trial in which a measured objective is undefined counts as failed.
        Raise `StudyError` if a trial does not measure one of them.
        """
        names = list(self._study.search.objectives)
        for point, metrics in sorted(batch, key=lambda pair: pair[0].index):
            trial = self._asked[point.key]
            if metrics is None:
                self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            missing = [name for name in names if name not in metrics]
            unknown = [name for name in missing if not self._measures(point, name)]
            if unknown:
                raise StudyError(
                    f"search.objectives names {unknown[0]}, which no stage measures; "
                    f"choose from {', '.join(sorted(metrics))}."
                )
            if missing:
                logger.warning(
                    "event=objective_undefined trial=%d metric=%s effect=%r",
                    point.index,
                    missing[0],
                    "the search counts the trial as failed",
                )
                self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            self._optuna.tell(trial, [metrics[name] for name in names])

    def _measures(self, point: Point, name: str) -> bool:
        """Return whether a point's stages leave the metric wherever it is defined."""
        num_classes = self._preflight.descriptions[point.spec.data.dataset].num_classes
        try:
            return not lacks(MetricName.parse(name), normalise(point.spec), num_classes)
        except Refused:
            return False

    def _probe(self) -> list[Point]:
        """Resolve some random draws, so that a wrong value fails before anything starts.

        Raise `StudyError` if no draw can exist.
        """
        generator, settings = np.random.default_rng(0), Settings()
        drawn = [make_point(self._study, 0, draw(self._study, generator)) for _ in range(PROBES)]
        possible = [made for made in drawn if isinstance(made, Point)]
        while not possible and len(drawn) < PROBES * MAX_DRAWS_PER_SAMPLE:
            drawn.append(make_point(self._study, 0, draw(self._study, generator)))
            possible = [made for made in drawn[-1:] if isinstance(made, Point)]
        if not possible:
            raise no_draw(next(made for made in drawn if isinstance(made, Dropped)))
        return [settings.named(self._preflight.resolve(made)) for made in possible]

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for axis, choices in self._axes.items():
            if not isinstance(choices, Range):
                values[axis] = choices[trial.suggest_categorical(axis, list(choices))]
            elif choices.integer:
                values[axis] = trial.suggest_int(axis, int(choices.low), int(choices.high), log=choices.log)
            else:
                values[axis] = trial.suggest_float(axis, choices.low, choices.high, log=choices.log)
        return values

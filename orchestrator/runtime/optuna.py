"""Optuna's search: synchronous batches whose results reach the sampler in index order.

The order in which trials finish has no influence: the same study yields the same points. What the sampler was
told is in the sweep's journal and told again by the next start, so that a search resumes by starting again.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from orchestrator.config.base import Refused
from orchestrator.config.conditions import is_asked
from orchestrator.config.normalise import normalise
from orchestrator.config.search import Search
from orchestrator.config.study import Study, StudyError
from orchestrator.metrics.names import MetricName
from orchestrator.runtime.hypervolume import Growth
from orchestrator.runtime.sampling import as_param, distribution, sampler_of, suggest
from orchestrator.sweep.journal import Known, SearchMemory
from orchestrator.sweep.measurable import lacks
from orchestrator.sweep.points import Dropped, Point, Settings, make_point
from orchestrator.sweep.search import MAX_DRAWS_PER_SAMPLE, draw, draw_value, no_draw
from orchestrator.sweep.validation import Preflight

logger = logging.getLogger(__name__)

PROBES = 64  # random draws checked before an adaptive search starts
GENERATION = "NSGAIISampler:generation"  # Optuna's name: of trials that it did not ask itself


class OptunaPoints:
    """Implements `Points`: asks Optuna for a batch, then tells it the whole batch in the order asked.

    `memory`: what earlier starts of the sweep told; None where nothing is kept, as for a plan.
    """

    def __init__(self, study: Study, preflight: Preflight) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._preflight = study, preflight
        search = study.search
        self._optuna = optuna.create_study(
            directions=list(search.objectives.values()),
            sampler=sampler_of(search, groups=bool(study.conditional)),
        )
        self._asked: dict[str, optuna.Trial] = {}
        self._given_keys: set[str] = set()  # of the trials that it was told of without asking
        self._num_points = 0
        self._settings = Settings()
        self._growth = Growth(search) if search.stop else None
        self.memory: SearchMemory | None = None
        self.ended = ""
        """Why the search asks for no more points; empty while it does."""
        self.dropped: list[Dropped] = []
        self.probed: Sequence[Point] = self._probe()

    def ask(self) -> list[Point]:
        """Return the next batch of points that can exist and were not asked before; empty at the end."""
        search = self._study.search
        size = min(search.batch, search.samples - self._num_points)
        batch: list[Point] = []
        for _ in range(0 if self.ended else size * MAX_DRAWS_PER_SAMPLE):
            if len(batch) == size:
                break
            trial = self._optuna.ask()
            made = make_point(self._study, self._num_points, self._suggest(trial))
            if isinstance(made, Dropped):
                self.dropped.append(made)
                self._optuna.tell(trial, state=TrialState.FAIL)
                continue
            point = self._preflight.resolve(made)
            if point.key in self._asked:
                self._optuna.tell(trial, state=TrialState.FAIL)
                continue
            self._asked[point.key] = trial
            self._num_points += 1
            batch.append(self._settings.named(point))
        if not batch:
            self.ended = self.ended or _why_ended(search, self._num_points)
        return batch

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Give the objectives of a batch to the sampler, in index order: those that an earlier start gave it
        where there was one.

        A trial in which a measured objective is undefined counts as failed. One that the search started warm
        with is not told again.
        Raise `StudyError` if a trial does not measure one of them.
        """
        told = self.memory.told if self.memory else {}
        found: dict[str, list[float] | None] = {}
        for point, metrics in sorted(batch, key=lambda pair: pair[0].index):
            key = point.key
            values = found[key] = told[key] if key in told else self._values(point, metrics)
            if values is None or key in self._given_keys:  # the latter would count twice
                self._optuna.tell(self._asked[key], state=TrialState.FAIL)
            else:
                self._optuna.tell(self._asked[key], values)
            if self._growth:
                self._growth.add(values)
        if self.memory:
            self.memory.tell(found)
        if self._growth and (reason := self._growth.ended()):
            self.ended = reason
            logger.warning("event=search_stopped trials=%d reason=%r", self._num_points, reason)

    def start_warm(self, known: Sequence[Known]) -> None:
        """Tell Optuna of trials that it did not ask for, before it asks; the first of them first."""
        generator = np.random.default_rng(self._study.search.seed)
        for one in known:
            self._optuna.add_trial(self._given(one, generator))
            made = make_point(self._study, 0, one.values)
            if isinstance(made, Point):
                self._given_keys.add(self._preflight.resolve(made).key)
            if self._growth:
                self._growth.start(one.objectives)

    def _given(self, one: Known, generator: np.random.Generator) -> optuna.trial.FrozenTrial:
        values, axes = dict(one.values), self._study.sweep[0]
        if self._carries_all:  # as if they had been drawn: they are not read
            values |= {axis: draw_value(generator, own) for axis, own in axes.items() if axis not in values}
        return optuna.trial.create_trial(
            params={axis: as_param(values[axis], own) for axis, own in axes.items() if axis in values},
            distributions={axis: distribution(own) for axis, own in axes.items() if axis in values},
            values=list(one.objectives),
            system_attrs={GENERATION: 0} if self._study.search.sampler == "nsga-ii" else {},
        )

    @property
    def _carries_all(self) -> bool:
        """Whether a trial has a value of every axis, read or not: genes, which nsga-ii crosses whole."""
        return self._study.search.sampler == "nsga-ii"

    def _values(self, point: Point, metrics: Mapping[str, float] | None) -> list[float] | None:
        """Return the objectives of a trial; None if it failed or one of them is undefined."""
        if metrics is None:
            return None
        names = list(self._study.search.objectives)
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
            return None
        return [metrics[name] for name in names]

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
        for axis, choices in self._study.sweep[0].items():
            is_read = is_asked(choices, values, self._study.shown)
            if is_read or self._carries_all:
                value = suggest(trial, axis, choices)
            if is_read:
                values[axis] = value
        return values


def _why_ended(search: Search, num_points: int) -> str:
    if num_points == search.samples:
        return f"all {num_points} samples were asked"
    return f"{num_points} of {search.samples} samples were asked, and no other point could be drawn"

"""How points are chosen: grid and random at once, Optuna in synchronous batches told in index order.

Whatever finishes first, the same study asks for the same points; a point that is stored is told at once, so
a search resumes by starting again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna

from orchestrator.config.study import Range, Study, StudyError
from orchestrator.sweep.points import Dropped, Point, expand, make_point
from orchestrator.sweep.trial import FixedPoints, Points
from orchestrator.sweep.validation import Preflight

MAX_DRAWS_PER_SAMPLE = 100  # draws that cannot exist (m > k) are drawn again

PROBES = 64  # random draws checked before an adaptive search starts


def search_points(study: Study, preflight: Preflight) -> tuple[Points, int, list[Dropped]]:
    """Return the study's search, how many points it will ask for, and what a grid had to drop."""
    if study.search.algorithm == "optuna":
        search = OptunaPoints(study, preflight)
        return search, study.search.samples, search.dropped
    points, dropped = expand(study) if study.search.algorithm == "grid" else random_points(study)
    distinct: dict[str, Point] = {}
    for point in preflight.resolve_all(points):
        if point.key in distinct:  # two budgets in millions may mean one cut point
            dropped.append(Dropped(point.axes, "repeats a point of the sweep"))
        else:
            distinct[point.key] = replace(point, index=len(distinct))
    return FixedPoints(list(distinct.values())), len(distinct), dropped


def random_points(study: Study) -> tuple[list[Point], list[Dropped]]:
    """Draw `search.samples` distinct points; draw number i depends on (seed, i) only."""
    points: list[Point] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for number in range(study.search.samples * MAX_DRAWS_PER_SAMPLE):
        generator = np.random.default_rng((study.search.seed, number))
        values = {axis: _draw(generator, choices) for axis, choices in study.sweep[0].items()}
        made = make_point(study, len(points), values)
        if isinstance(made, Dropped):
            dropped.append(made)
        elif made.key not in seen:
            seen.add(made.key)
            points.append(made)
            if len(points) == study.search.samples:
                break
    if not points:
        raise StudyError(f"sweep: no draw can exist; {dropped[0].reason}")
    return points, dropped


class OptunaPoints:
    """Asks Optuna for a batch, is told the whole batch in the order it was asked."""

    def __init__(self, study: Study, preflight: Preflight) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._preflight = study, preflight
        self._axes = {
            axis: values if isinstance(values, Range) else {_label(value): value for value in values}
            for axis, values in study.sweep[0].items()
        }
        objectives = study.search.objectives
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
            seed=study.search.seed, multivariate=True, constant_liar=True
        )
        self._optuna = optuna.create_study(directions=list(objectives.values()), sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}
        self._num_points = 0
        self.dropped: list[Dropped] = []
        self._probe()

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
            batch.append(point)
        return batch

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Give the objectives of a batch to the sampler, in index order."""
        names = list(self._study.search.objectives)
        for point, metrics in sorted(batch, key=lambda pair: pair[0].index):
            trial = self._asked[point.key]
            if metrics is None:
                self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            unknown = [name for name in names if name not in metrics]
            if unknown:
                raise StudyError(
                    f"search.objectives names {unknown[0]}, which no stage measures; "
                    f"choose from {', '.join(sorted(metrics))}."
                )
            self._optuna.tell(trial, [metrics[name] for name in names])

    def _probe(self) -> None:
        """Resolve some random draws, so that a wrong value fails before anything starts."""
        generator = np.random.default_rng(0)
        for _ in range(PROBES):
            made = make_point(
                self._study, 0, {a: _draw(generator, v) for a, v in self._study.sweep[0].items()}
            )
            if isinstance(made, Point):
                self._preflight.resolve(made)

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


def _draw(generator: np.random.Generator, choices: list[Any] | Range) -> Any:
    if not isinstance(choices, Range):
        return choices[int(generator.integers(len(choices)))]
    if choices.integer and not choices.log:
        return int(generator.integers(int(choices.low), int(choices.high) + 1))
    low, high = (np.log([choices.low, choices.high])) if choices.log else (choices.low, choices.high)
    value = float(generator.uniform(low, high))
    value = float(np.exp(value)) if choices.log else value
    return round(value) if choices.integer else value


def _label(value: Any) -> str:
    return str(value)

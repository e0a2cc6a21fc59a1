"""Warm start: trials of a search's very settings that other sweeps left in the store.

Journals name the trials that sweeps planned, with their keys and swept values. A trial counts if its values,
put over this study's base, give the same key, and if every stage of it is stored: so the base, the data sets
and the code's versions are the same.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.config.base import Scalar, is_same
from orchestrator.config.conditions import is_asked, listed
from orchestrator.config.search import Range
from orchestrator.config.study import Study, StudyError, short_name
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.journal import Journal
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.journal import Known
from orchestrator.sweep.points import Dropped, Point, make_point
from orchestrator.sweep.records import DatasetInput
from orchestrator.sweep.stored import Incomplete, StoredTrials
from orchestrator.sweep.trial import Outcome, Task
from orchestrator.sweep.validation import Preflight

SWEEPS = "sweeps/"


def stored_trials(
    study: Study,
    preflight: Preflight,
    as_task: Callable[[Point], Task],
    store: Artifacts,
    describe: Callable[[str], DatasetInput],
) -> list[Known]:
    """Return the trials that the store holds and the study could ask for, in the order of their keys, with
    its objectives."""
    found: dict[str, tuple[dict[str, Any], Task]] = {}
    for key, row in _planned(store.blobs, besides=study.key):
        values = None if key in found else _values(study, row)
        if values is None:
            continue
        try:
            made = make_point(study, 0, values)
            point = None if isinstance(made, Dropped) else preflight.resolve(made)
        except StudyError:  # of another study, whose values this one does not take
            continue
        if point is not None and point.key == key:
            found[key] = values, as_task(point)
    trials = StoredTrials(store, describe)
    stored = trials.among(list({one.key for _, task in found.values() for one in task.stages.values()}))
    known = []
    for values, task in (found[key] for key in sorted(found)):
        objectives = None if trials.lacking(task, stored) else _objectives(study, trials, task)
        if objectives is not None:
            known.append(Known(values, objectives))
    return known


def _objectives(study: Study, trials: StoredTrials, task: Task) -> list[float] | None:
    try:
        metrics = trials.record(task, Outcome("finished")).metrics
    except Incomplete:  # damaged: it is built again where a trial needs it
        return None
    names = list(study.search.objectives)
    return [metrics[name] for name in names] if all(name in metrics for name in names) else None


def _planned(blobs: Blobs, *, besides: str) -> Iterator[tuple[str, dict[str, Scalar]]]:
    """Yield the key and the shown values of every trial that another sweep planned."""
    keys = sorted({name.removeprefix(SWEEPS).partition("/")[0] for name in blobs.names(SWEEPS)} - {besides})
    for events in parallel_map(lambda key: Journal(blobs, key).events(), keys):
        for event in events:
            if event["event"] == "planned" and "values" in event:
                for key, row in zip(event["trials"], event["values"], strict=True):
                    yield key, dict(zip(event["axes"], row, strict=True))


def _values(study: Study, row: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """Return a trial's values as the study's file has them; None if they are outside of its axes."""
    values: dict[str, Any] = {}
    for axis, own in study.sweep[0].items():
        if not is_asked(own, values, study.shown):
            continue
        shown = row.get(short_name(axis))
        if isinstance(own, Range):
            if not own.has(shown):
                return None
            values[axis] = shown
            continue
        alike = [one for one in listed(own) or () if is_same(study.shown(one, axis), shown)]
        if not alike:
            return None
        values[axis] = alike[0]
    return values

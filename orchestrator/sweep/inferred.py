"""Inferred classes: what the recognition of class inference is compared by, from trials' specs and metrics.

No stage records it, so that stored trials have it too.
"""

from collections.abc import Mapping, Sequence

from orchestrator.config import TrialSpec
from orchestrator.config.base import Scalar
from orchestrator.metrics.bounds import LABELS, bound_of
from orchestrator.metrics.floors import CLASSES, RECOGNISED, RECOGNISER_CHANCE
from orchestrator.metrics.names import CLASS
from orchestrator.sweep.records import TrialRecord

Axes = dict[str, Scalar]


def inferred_classes(spec: TrialSpec, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return how many classes a trial's images are of and, beside a recogniser, how often its first choice
    among the target's classes is right by chance; nothing where no judge saw images of classes."""
    if str(RECOGNISED) not in metrics:
        return {}
    chosen = spec.evaluation.classes or range(spec.target.classes)
    chance = {RECOGNISER_CHANCE: 1.0 / spec.target.classes} if spec.judges.recogniser else {}
    return {CLASSES: float(len(chosen)), **chance}


def bounds_of_classes(records: Sequence[TrialRecord]) -> list[tuple[str, Axes, dict[str, float]]]:
    """Return label, axes and metrics, named as the attack's, of class inference's ceiling and floor: one for
    all trials with the same numbers."""
    found = []
    for bound, label in LABELS.items():
        shared: dict[str, list[Mapping[str, Scalar]]] = {}
        values: dict[str, dict[str, float]] = {}
        for record in records:
            metrics = bound_of(CLASS, bound).items()
            own = {name: record.metrics[one] for name, one in metrics if one in record.metrics}
            if str(RECOGNISED) in own:
                shared.setdefault(str(own), []).append(record.axes)
                values[str(own)] = own
        every = [record.axes for record in records]
        found += [(label, shared_axes(axes, every), values[key]) for key, axes in shared.items()]
    return found


def shared_axes(settings: Sequence[Mapping[str, Scalar]], every: Sequence[Mapping[str, Scalar]]) -> Axes:
    """Return the axes of a row about several settings of a table: the value that all have, `any` where they
    have all of the table's, else those that they have."""
    shown: dict[str, Scalar] = {}
    for axis in dict.fromkeys(axis for setting in settings for axis in setting):
        own, all_of_it = (_values(axis, among) for among in (settings, every))
        if len(own) == 1:
            shown[axis] = next(iter(own.values()))
        else:
            shown[axis] = "any" if len(own) == len(all_of_it) else ", ".join(own)
    return shown


def _values(axis: str, settings: Sequence[Mapping[str, Scalar]]) -> Axes:
    return {str(setting[axis]): setting[axis] for setting in settings if axis in setting}

"""Comparison with papers: printed numbers beside ours, and tests of the orders that papers report.

`comparison_table` sets our mean over seeds beside each number of `report.printed`. `orderings_table` takes
each pair of neighbours in `report.orderings`, pairs trials that differ in that axis only, and tests the
claimed order (`statistics`). A number or an order without a matching trial keeps its row.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Ordering, Printed
from orchestrator.config.study import Study
from orchestrator.metrics.names import MetricName
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import (
    Axes,
    Setting,
    finished_trials,
    fits,
    in_words,
    is_same,
    merged_axes,
    setting_of,
    why_none,
)
from orchestrator.report.statistics import (
    CONFIDENCE,
    Comparison,
    class_differences,
    compare_classes,
    compare_seeds,
    half_column,
    holm,
    mean_and_interval,
)
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

ONE_SEED = {
    "classes": "one seed: only classes are resampled",
    "nothing": "one seed: no interval",
}


def comparison_table(study: Study, records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return one row for each printed number: theirs, our mean over seeds, half a 95 % t-interval."""
    finished = finished_trials(records)
    return pd.DataFrame([_printed_row(printed, finished) for printed in study.report.printed])


def orderings_table(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> pd.DataFrame:
    """Return one row for each claimed pair of neighbours and setting; differences are positive as claimed."""
    finished, images = finished_trials(records), PerImage(store)
    rows: list[dict[str, object]] = []
    for ordering in study.report.orderings:
        for lower, upper in itertools.pairwise(ordering.order):
            rows += _pair_rows(ordering, (lower, upper), finished, images)
    adjusted = holm([float(str(row.pop("p"))) for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
        row["survives_holm"] = "" if np.isnan(p) else "yes" if p < 1 - CONFIDENCE else "no"
    last = ["verdict", "resampled", "note"]
    table = pd.DataFrame(rows)
    return table[[name for name in table.columns if name not in last] + last] if rows else table


def _printed_row(printed: Printed, finished: Sequence[TrialRecord]) -> dict[str, object]:
    fitting = [record for record in finished if fits(record.axes, printed.where)]
    values = [record.metrics[printed.metric] for record in fitting if printed.metric in record.metrics]
    mean, half = mean_and_interval(values)
    remarks = [printed.note, why_none(printed.where, finished)] if not fitting else [printed.note]
    if fitting and not values:
        remarks.append(f"{printed.metric} was not measured")
    settings = {setting_of(record.axes) for record in fitting}
    if len(settings) > 1:
        remarks.append(f"mean of {len(settings)} settings; narrow where")
    return {
        "source": printed.source,
        "label": printed.label,
        "metric": printed.metric,
        "printed": printed.value,
        "ours": mean,
        half_column("ours"): half,
        "difference": mean - printed.value,
        "seeds": len(values),
        "note": "; ".join(remark for remark in remarks if remark),
    }


@dataclass(frozen=True)
class _Neighbours:
    """Two finished trials that differ in one axis (and in axes that only one of them has)."""

    lower: TrialRecord
    upper: TrialRecord
    merged: Axes  # values that both share, without the compared axis


def _pair_rows(
    ordering: Ordering,
    values: tuple[Scalar, Scalar],
    finished: Sequence[TrialRecord],
    images: PerImage,
) -> list[dict[str, object]]:
    """Return a row for each setting of the other axes, or one row with the reason why there is none."""
    settings: dict[Setting, list[_Neighbours]] = {}
    for pair in _pairs(ordering, values, finished):
        settings.setdefault(setting_of(pair.merged), []).append(pair)
    head = {
        "claim": ordering.claim,
        "source": ordering.source,
        "metric": ordering.metric,
        "axis": ordering.axis,
        "lower": str(values[0]),
        "upper": str(values[1]),
    }
    if not settings:
        return [head | _without_answer(_why_no_pair(ordering, values, finished))]
    free = {axis for setting in settings for axis, _ in setting}
    shown = [a for a in sorted(free) if len({dict(s).get(a) for s in settings}) > 1 or a in ordering.where]
    rows = []
    for setting, pairs in settings.items():
        words = in_words({axis: value for axis, value in setting if axis in shown})
        rows.append(head | {"setting": words} | _answer(_compare(ordering.metric, pairs, images)))
    return rows


def _pairs(
    ordering: Ordering, values: tuple[Scalar, Scalar], finished: Sequence[TrialRecord]
) -> Iterator[_Neighbours]:
    """Yield the pairs of trials that the ordering compares."""
    lower, upper = (
        [r for r in finished if is_same(r.axes.get(ordering.axis), value) and ordering.metric in r.metrics]
        for value in values
    )
    partners = _Partners(upper, ordering.axis)
    for one in lower:
        for other in partners.of(one):
            merged = merged_axes(one.axes, other.axes, {ordering.axis})
            if merged is not None and fits(merged, ordering.where):
                yield _Neighbours(one, other, merged)


class _Partners:
    """Finds the trials that agree with another one in every axis but one, without comparing all with all.

    Trials are grouped by the axes that they have, since an axis that one of two lacks tells them not apart,
    and in each group by the values of those that the other has too.
    """

    def __init__(self, records: Sequence[TrialRecord], without: str) -> None:
        self._without = without
        self._groups: dict[frozenset[str], list[tuple[int, TrialRecord]]] = {}
        for number, record in enumerate(records):
            self._groups.setdefault(frozenset(self._present(record.axes)), []).append((number, record))
        self._tables: dict[tuple[frozenset[str], tuple[str, ...]], _Table] = {}

    def of(self, one: TrialRecord) -> list[TrialRecord]:
        """Return the partners of a trial in their order."""
        found: list[tuple[int, TrialRecord]] = []
        for present in self._groups:
            shared = tuple(axis for axis in self._present(one.axes) if axis in present)
            values = tuple(one.axes[axis] for axis in shared)
            found += self._table(present, shared).get(values, [])
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    def _table(self, present: frozenset[str], shared: tuple[str, ...]) -> "_Table":
        """Return a group's trials by their values of some axes."""
        if (present, shared) not in self._tables:
            table: _Table = {}
            for number, record in self._groups[present]:
                values = tuple(record.axes[axis] for axis in shared)
                table.setdefault(values, []).append((number, record))
            self._tables[present, shared] = table
        return self._tables[present, shared]

    def _present(self, axes: Axes) -> Iterator[str]:
        return (axis for axis, value in axes.items() if value != ABSENT and axis != self._without)


_Table = dict[tuple[Scalar, ...], list[tuple[int, TrialRecord]]]
"""Values of some axes -> the trials that have them, with their places."""


def _compare(metric: str, pairs: Sequence[_Neighbours], images: PerImage) -> Comparison:
    """Compare by class where every trial kept its values by image, else by seed."""
    measured = MetricName.parse(metric).metric
    sign = -1.0 if measured.leaks == "down" else 1.0
    kept = [(images.of(pair.lower, metric), images.of(pair.upper, metric)) for pair in pairs]
    by_class = [
        class_differences(lower, upper, measured.name)
        for lower, upper in kept
        if lower is not None and upper is not None
    ]
    if len(by_class) == len(pairs) and all(len(differences) for differences in by_class):
        return compare_classes(by_class, sign=sign)
    return compare_seeds([p.upper.metrics[metric] - p.lower.metrics[metric] for p in pairs], sign=sign)


def _answer(comparison: Comparison) -> dict[str, object]:
    return {
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "seeds_agreeing": comparison.num_agreeing,
        "seeds": comparison.num_seeds,
        "p": comparison.p,
        "verdict": comparison.verdict,
        "resampled": comparison.resampled,
        "note": ONE_SEED.get(comparison.resampled, ""),
    }


def _without_answer(reason: str) -> dict[str, object]:
    nan = float("nan")
    row: dict[str, object] = {"setting": "", "difference": nan, "low": nan, "high": nan}
    row |= {"seeds_agreeing": 0, "seeds": 0, "p": nan}
    return row | {"verdict": "no trials", "resampled": "nothing", "note": reason}


def _why_no_pair(ordering: Ordering, values: tuple[Scalar, Scalar], finished: Sequence[TrialRecord]) -> str:
    for value in values:
        if reason := why_none({ordering.axis: value}, finished):
            return reason
    if (reason := why_none(ordering.where, finished)) and ordering.where:
        return reason
    if not any(ordering.metric in record.metrics for record in finished):
        return f"{ordering.metric} was not measured"
    return "no two finished trials differ in this axis only"

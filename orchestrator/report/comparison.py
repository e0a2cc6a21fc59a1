"""Comparison with papers: printed numbers beside ours, and tests of the orders that papers report.

`comparison_table` sets our mean over seeds beside each number of `report.printed`. `orderings_table` takes
each pair of neighbours in `report.orderings`, pairs trials that differ in that axis only, and tests the
claimed order (`statistics`) on differences crossed over seeds and classes. Holm's correction runs over all
rows but those that compare a computation with itself; rows of the same trials are one test. A number or an
order without a matching trial keeps its row.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Ordering, Printed, Report
from orchestrator.config.study import Study
from orchestrator.metrics.names import MetricName
from orchestrator.report.crossed import ByClass, Crossed
from orchestrator.report.held import beyond, claimed, remarks
from orchestrator.report.means import cross_trials, mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import (
    Axes,
    Setting,
    finished_trials,
    fits,
    held_fixed,
    in_words,
    is_same,
    merged_axes,
    present_values,
    setting_of,
    why_none,
)
from orchestrator.report.statistics import (
    CONFIDENCE,
    Comparison,
    compare,
    half_column,
    holm,
)
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord


def comparison_table(study: Study, records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return one row for each printed number: theirs, our mean over seeds and half its 95 % interval."""
    finished = finished_trials(records)
    return pd.DataFrame([_printed_row(printed, finished, study.report) for printed in study.report.printed])


def orderings_table(study: Study, records: Sequence[TrialRecord], images: PerImage) -> pd.DataFrame:
    """Return one row for each claimed pair of neighbours and setting; differences are positive as claimed."""
    finished = finished_trials(records)
    rows: list[dict[str, object]] = []
    tests: list[_Test] = []
    for ordering in study.report.orderings:
        for lower, upper in itertools.pairwise(ordering.order):
            for row, test in _pair_rows(ordering, (lower, upper), finished, images, study.report):
                rows.append(row)
                tests.append(test)
    family = {test: float(str(row["p"])) for row, test in zip(rows, tests, strict=True)}
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    for row, test in zip(rows, tests, strict=True):
        p = adjusted[test]
        row["p_holm"] = p
        row["survives_holm"] = "" if np.isnan(p) else "yes" if p < 1 - CONFIDENCE else "no"
    last = ["verdict", "resampled", "fixed", "note"]
    table = pd.DataFrame(rows)
    return table[[name for name in table.columns if name not in last] + last] if rows else table


_Test = tuple[object, ...]
"""What a row tests: rows that test the same are one member of Holm's family."""

_NO_TRIALS = "no trials"


def _printed_row(printed: Printed, finished: Sequence[TrialRecord], report: Report) -> dict[str, object]:
    fitting = [record for record in finished if fits(record.axes, printed.where)]
    values = [record.metrics[printed.metric] for record in fitting if printed.metric in record.metrics]
    mean, half = mean_and_half(fitting, printed.metric, report=report)
    noted = [printed.note, why_none(printed.where, finished)] if not fitting else [printed.note]
    noted += remarks(printed.metric, fitting)
    if fitting and not values:
        noted.append(f"{printed.metric} was not measured")
    settings = {setting_of(record.axes, report.repeats) for record in fitting}
    if len(settings) > 1:
        noted.append(f"mean of {len(settings)} settings; narrow where")
    return {
        "source": printed.source,
        "label": printed.label,
        "metric": printed.metric,
        "printed": printed.value,
        "ours": mean,
        half_column("ours"): half,
        "difference": mean - printed.value,
        "seeds": len(values),
        "note": "; ".join(remark for remark in noted if remark),
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
    report: Report,
) -> list[tuple[dict[str, object], _Test]]:
    """Return a row for each setting of the other axes, or one row with the reason why there is none; each
    with what it tests."""
    settings: dict[Setting, list[_Neighbours]] = {}
    for pair in _pairs(ordering, values, finished):
        settings.setdefault(setting_of(pair.merged, report.repeats), []).append(pair)
    head = {
        "claim": ordering.claim,
        "source": ordering.source,
        "metric": ordering.metric,
        "axis": ordering.axis,
        "lower": str(values[0]),
        "upper": str(values[1]),
    }
    if not settings:
        return [(head | _without_answer(_why_no_pair(ordering, values, finished)), (_NO_TRIALS,))]
    free = {axis for setting in settings for axis, _ in setting}
    shown = [a for a in sorted(free) if len({dict(s).get(a) for s in settings}) > 1 or a in ordering.where]
    rows = []
    for setting, pairs in settings.items():
        words = in_words({axis: value for axis, value in setting if axis in shown})
        row = head | {"setting": words} | _answer(_compare(ordering.metric, pairs, images, report), report)
        row |= _marked(ordering, values, pairs, str(row["note"]))
        rows.append((row, _test(ordering.metric, pairs)))
    return rows


def _test(metric: str, pairs: Sequence[_Neighbours]) -> _Test:
    """Return what a row tests: the metric and the stages of each pair, whichever of the two is the lower."""

    def work(record: TrialRecord) -> tuple[str, ...]:
        return tuple(sorted(record.stage_keys.values())) or (record.key,)

    sides = (sorted((work(pair.lower), work(pair.upper))) for pair in pairs)
    return (metric, *sorted(map(tuple, sides)))


def _marked(
    ordering: Ordering, values: tuple[Scalar, Scalar], pairs: Sequence[_Neighbours], note: str
) -> dict[str, object]:
    """Return the claim and the note of a row, which say what the adversary had beyond the release."""
    members = ([pair.lower for pair in pairs], [pair.upper for pair in pairs])
    sides = dict(zip(map(str, values), members, strict=True))
    claim = claimed(ordering.claim, ordering.metric, sides)
    remarks_of = [note, *beyond(sides.items()), *_averaged(ordering.along, sides)]
    return {"claim": claim, "note": "; ".join(filter(None, remarks_of))}


def _averaged(along: Sequence[str], sides: Mapping[str, Sequence[TrialRecord]]) -> Iterator[str]:
    """Yield a remark for each axis that changes along, of which a side has several values."""
    for side, members in sides.items():
        for axis in along:
            found = dict.fromkeys(str(value) for value in present_values(axis, members))
            if len(found) > 1:
                yield f"{side}: mean over {axis}={', '.join(found)}"


def _pairs(
    ordering: Ordering, values: tuple[Scalar, Scalar], finished: Sequence[TrialRecord]
) -> Iterator[_Neighbours]:
    """Yield the pairs of trials that the ordering compares."""
    lower, upper = (
        [r for r in finished if is_same(r.axes.get(ordering.axis), value) and ordering.metric in r.metrics]
        for value in values
    )
    free = {ordering.axis, *ordering.along}
    partners = _Partners(upper, free)
    for one in lower:
        for other in partners.of(one):
            merged = merged_axes(one.axes, other.axes, free)
            if merged is not None and fits(merged, ordering.where):
                yield _Neighbours(one, other, merged)


class _Partners:
    """Finds the trials that agree with another one in every axis but some, without comparing all with all.

    Trials are grouped by the axes that they have, since an axis that one of two lacks tells them not apart,
    and in each group by the values of those that the other has too.
    """

    def __init__(self, records: Sequence[TrialRecord], without: Collection[str]) -> None:
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
        return (axis for axis, value in axes.items() if value != ABSENT and axis not in self._without)


_Table = dict[tuple[Scalar, ...], list[tuple[int, TrialRecord]]]
"""Values of some axes -> the trials that have them, with their places."""


def _compare(metric: str, pairs: Sequence[_Neighbours], images: PerImage, report: Report) -> Comparison:
    """Compare by class where every trial kept its values by image, else by the trials' own values."""
    sign = -1.0 if MetricName.parse(metric).metric.leaks == "down" else 1.0
    return compare(_differences(metric, pairs, images, report), sign=sign)


def _differences(metric: str, pairs: Sequence[_Neighbours], images: PerImage, report: Report) -> Crossed:
    """Return upper minus lower over replicates and, where all kept values by image, over classes."""
    by_class: list[ByClass | None] = []
    for pair in pairs:
        lower, upper = images.by_class(pair.lower, metric), images.by_class(pair.upper, metric)
        by_class.append(None if lower is None or upper is None else upper.minus(lower))
    own = [pair.upper.metrics[metric] - pair.lower.metrics[metric] for pair in pairs]
    return cross_trials([pair.merged for pair in pairs], by_class, own, report)


def _answer(comparison: Comparison, report: Report) -> dict[str, object]:
    row: dict[str, object] = {"difference": comparison.difference}
    for name, interval in (
        ("", comparison.interval),
        ("bootstrap_", comparison.bootstrap),
        ("seeds_", comparison.seeds),
    ):
        row |= {f"{name}low": interval.low, f"{name}high": interval.high}
    return row | {
        "seeds_agreeing": comparison.num_agreeing,
        "seeds": comparison.num_seeds,
        "p_flip": comparison.p_flip,
        "p": comparison.p,
        "verdict": comparison.verdict,
        "resampled": comparison.resampled,
        "fixed": held_fixed(comparison.factors),
        "note": comparison.note,
    }


def _without_answer(reason: str) -> dict[str, object]:
    nan = float("nan")
    ends = [f"{name}{end}" for name in ("", "bootstrap_", "seeds_") for end in ("low", "high")]
    row: dict[str, object] = {"setting": "", "difference": nan} | dict.fromkeys(ends, nan)
    row |= {"seeds_agreeing": 0, "seeds": 0, "p_flip": nan, "p": nan}
    return row | {"verdict": "no trials", "resampled": "nothing", "fixed": "", "note": reason}


def _why_no_pair(ordering: Ordering, values: tuple[Scalar, Scalar], finished: Sequence[TrialRecord]) -> str:
    for value in values:
        if reason := why_none({ordering.axis: value}, finished):
            return reason
    if (reason := why_none(ordering.where, finished)) and ordering.where:
        return reason
    if not any(ordering.metric in record.metrics for record in finished):
        return f"{ordering.metric} was not measured"
    return "no two finished trials differ in this axis only"

"""Delta: drop of attack accuracy by a defense over its drop of natural accuracy, as TL-DMI reports it.

Delta = (AttAcc_none - AttAcc_def) / (Acc_none - Acc_def), each from the means of classes. Its interval is a
two-level bootstrap: seeds, and classes within each; numerator and denominator share every draw, because a
ratio of separate ones would be too wide and Fieller's interval fails for small denominators. The ratio has
no value where the defended model is not less accurate, and no bounds where that cannot be told from noise.
On synthetic data the interval covers the truth in 93-97 % of the cases with eight seeds, in 89 % with three.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Delta
from orchestrator.config.study import Study
from orchestrator.metrics.names import MetricName
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import (
    Setting,
    finished_trials,
    fits,
    in_words,
    merged_axes,
    setting_of,
    why_none,
)
from orchestrator.report.statistics import CONFIDENCE, REPLICATES, resampled_means
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord

POINTS = 100  # percentage points of a share

Verdict = Literal["defined", "unstable", "undefined", "no interval"]
NOTES: dict[Verdict, str] = {
    "defined": "",
    "unstable": "denominator's interval includes 0",
    "undefined": "undefined: the defended model is not less accurate",
    "no interval": "one seed: no interval",
}
NAN = float("nan")


@dataclass(frozen=True)
class Drop:
    """Undefended minus defended share, with its 95 % interval."""

    mean: float
    low: float = NAN  # NaN where there is nothing to resample
    high: float = NAN


@dataclass(frozen=True)
class Ratio:
    """Delta with its parts; undefined numbers are NaN."""

    leakage: Drop  # the numerator
    utility: Drop  # the denominator
    delta: float
    low: float
    high: float
    verdict: Verdict


def delta_of(seeds: Sequence[np.ndarray], *, replicates: int = REPLICATES) -> Ratio:
    """Return Delta from each seed's drops by class, (classes, 2): of leakage and of utility."""
    means = np.mean([drops.mean(axis=0) for drops in seeds], axis=0)
    leakage, utility = (Drop(float(mean)) for mean in means)
    low = high = NAN
    if len(seeds) > 1 or len(seeds[0]) > 1:
        drawn = resampled_means(seeds, replicates)
        leakage, utility = (
            Drop(drop.mean, *_interval(column))
            for drop, column in zip((leakage, utility), drawn.T, strict=True)
        )
        low, high = _interval(_ratios(drawn))
    verdict = _verdict(utility)
    if verdict != "defined":
        low = high = NAN
    return Ratio(leakage, utility, _ratio(leakage.mean, utility.mean), low, high, verdict)


def delta_table(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> pd.DataFrame:
    """Return one row for each defended setting: both drops in points, Delta, intervals, a verdict and a note.

    The study has `report.delta`.
    """
    delta = study.report.delta
    assert delta is not None
    finished, images = finished_trials(records), PerImage(store)
    by_setting: dict[Setting, list[_Defended]] = {}
    for pair in _pairs(delta, finished):
        by_setting.setdefault(setting_of(pair.axes), []).append(pair)
    settings = [dict(setting) for setting in by_setting]
    axes = dict.fromkeys(axis for setting in settings for axis in setting)
    shown = [a for a in axes if a in delta.reference or len({s.get(a) for s in settings}) > 1]
    rows = []
    for setting, pairs in zip(settings, by_setting.values(), strict=True):
        row: dict[str, object] = {axis: setting.get(axis, "") for axis in shown}
        rows.append(row | _answer(delta, [pair for pair in pairs if pair.reference], images))
    if not rows:
        reason = why_none({}, finished) or "every finished trial is undefended"
        rows = [dict.fromkeys(delta.reference, "") | _without_answer(reason)]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Defended:
    """A defended trial and its undefended reference; None where no such trial finished."""

    reference: TrialRecord | None
    trial: TrialRecord
    axes: Mapping[str, Scalar]  # of both, and the defended one's own values of the reference's axes


def _pairs(delta: Delta, finished: Sequence[TrialRecord]) -> Iterator[_Defended]:
    """Yield every defended trial with each undefended one that differs in the reference's axes only."""
    undefended = [record for record in finished if fits(record.axes, delta.reference)]
    for record in (record for record in finished if not fits(record.axes, delta.reference)):
        beside = [(one, merged_axes(record.axes, one.axes, delta.reference)) for one in undefended]
        paired = [
            _Defended(one, record, {**record.axes, **merged}) for one, merged in beside if merged is not None
        ]
        yield from paired or [_Defended(None, record, record.axes)]


def _answer(delta: Delta, pairs: Sequence[_Defended], images: PerImage) -> dict[str, object]:
    if not pairs:
        words = in_words(delta.reference)
        return _without_answer(f"no finished trial has {words} and the same other axes and seeds")
    trials = [record for pair in pairs for record in (pair.reference, pair.trial) if record]
    for metric in (delta.leakage, delta.utility):
        if not all(metric in record.metrics for record in trials):
            return _without_answer(f"{metric} was not measured in every trial")
    by_class = [_drops_by_class(delta, pair, images) for pair in pairs]
    kept = [drops for drops in by_class if drops is not None and len(drops)]
    if len(kept) < len(pairs):
        kept = [_drops_of_means(delta, pair) for pair in pairs]
    return _row(delta_of(kept), kept)


def _drops_by_class(delta: Delta, pair: _Defended, images: PerImage) -> np.ndarray | None:
    """Return both drops for the classes that all four have, (classes, 2); None where a trial kept nothing."""
    assert pair.reference is not None
    means = []
    for metric in (delta.leakage, delta.utility):
        field = MetricName.parse(metric).metric.name
        for record in (pair.reference, pair.trial):
            rows = images.of(record, metric)
            if rows is None:
                return None
            means.append(pd.Series(rows[field].astype(np.float64)).groupby(rows["label"]).mean())
    shared = reduce(pd.Index.intersection, (series.index for series in means)).sort_values()
    leakage_none, leakage_def, utility_none, utility_def = (series[shared].to_numpy() for series in means)
    return np.stack([leakage_none - leakage_def, utility_none - utility_def], axis=1)


def _drops_of_means(delta: Delta, pair: _Defended) -> np.ndarray:
    """Return both drops of the trials' own means as those of a single class, (1, 2)."""
    assert pair.reference is not None
    before, after = pair.reference.metrics, pair.trial.metrics
    return np.array([[before[metric] - after[metric] for metric in (delta.leakage, delta.utility)]])


def _row(ratio: Ratio, seeds: Sequence[np.ndarray]) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, drop in (("numerator", ratio.leakage), ("denominator", ratio.utility)):
        row |= {name: POINTS * drop.mean, f"{name}_low": POINTS * drop.low}
        row[f"{name}_high"] = POINTS * drop.high
    row |= {"delta": ratio.delta, "low": ratio.low, "high": ratio.high, "seeds": len(seeds)}
    is_by_class = len(seeds[0]) > 1
    levels = [name for name, drawn in (("classes", is_by_class), ("seeds", len(seeds) > 1)) if drawn]
    note = NOTES[ratio.verdict]
    if levels == ["classes"]:
        note = "; ".join(filter(None, (note, "one seed: only classes are resampled")))
    return row | {"verdict": ratio.verdict, "resampled": " and ".join(levels) or "nothing", "note": note}


def _without_answer(reason: str) -> dict[str, object]:
    names = [f"{part}{end}" for part in ("numerator", "denominator") for end in ("", "_low", "_high")]
    row: dict[str, object] = dict.fromkeys([*names, "delta", "low", "high"], NAN)
    return row | {"seeds": 0, "verdict": "no trials", "resampled": "nothing", "note": reason}


def _verdict(utility: Drop) -> Verdict:
    """Return whether the ratio is defined, by the mean and the interval of its denominator."""
    if utility.mean <= 0:
        return "undefined"
    if np.isnan(utility.low):
        return "no interval"
    return "defined" if utility.low > 0 else "unstable"


def _ratio(leakage: float, utility: float) -> float:
    return leakage / utility if utility > 0 else NAN


def _ratios(drawn: np.ndarray) -> np.ndarray:
    """Return each replicate's ratio; where the denominator is not positive, the limit from above 0."""
    leakage, utility = drawn.T
    is_positive = utility > 0
    limits = np.where(leakage == 0, 0.0, np.copysign(np.inf, leakage))
    return np.divide(leakage, utility, out=limits, where=is_positive)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval; its ends are replicates, since some may be infinite."""
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(values, tail, method="lower")
    return float(low), float(np.quantile(values, 1 - tail, method="higher"))

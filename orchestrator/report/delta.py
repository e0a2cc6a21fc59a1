"""Delta: drop of attack accuracy by a defense over its drop of natural accuracy, as TL-DMI reports it.

Delta = (AttAcc_none - AttAcc_def) / (Acc_none - Acc_def), each from the means of classes. Both drops have the
interval of every comparison (`statistics`). The ratio's is a bootstrap over seeds and classes: numerator and
denominator share every draw, because a ratio of separate ones would be too wide and Fieller's interval fails
for small denominators; replicates are stretched about the mean until AttAcc's drop less Delta times Acc's
spreads as its own interval does, because a bootstrap over few seeds is too narrow. The ratio has no value
where the defended model is not less accurate, and no bounds where that cannot be told from noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Delta, Report
from orchestrator.config.study import Study
from orchestrator.report.crossed import ByClass, Crossed
from orchestrator.report.held import held_column, without_empty
from orchestrator.report.means import cross_trials
from orchestrator.report.per_image import PerImage
from orchestrator.report.resampling import REPLICATES, resampled_means
from orchestrator.report.settings import (
    Setting,
    finished_trials,
    fits,
    held_fixed,
    in_words,
    merged_axes,
    setting_of,
    why_none,
)
from orchestrator.report.statistics import CONFIDENCE, Interval, Uncertainty, one_seed_note
from orchestrator.sweep.records import TrialRecord

POINTS = 100  # percentage points of a share

Verdict = Literal["defined", "unstable", "undefined", "no interval"]
NOTES: dict[Verdict, str] = {
    "defined": "",
    "unstable": "denominator's interval includes 0",
    "undefined": "undefined: the defended model is not less accurate",
    "no interval": "",
}
NAN = float("nan")
LEAST_SPREAD = 1e-12  # of replicates, as a share of the numerator: less is rounding


@dataclass(frozen=True)
class Drop:
    """Undefended minus defended share, with its 95 % interval."""

    mean: float
    interval: Interval

    @classmethod
    def of(cls, drops: Crossed) -> "Drop":
        """Return the drop with the interval of its mean."""
        return cls(drops.mean, Uncertainty.of(drops).interval)


@dataclass(frozen=True)
class Ratio:
    """Delta with its parts; undefined numbers are NaN."""

    leakage: Drop  # the numerator
    utility: Drop  # the denominator
    delta: float
    interval: Interval
    verdict: Verdict


def delta_of(leakage: Crossed, utility: Crossed, *, replicates: int = REPLICATES) -> Ratio:
    """Return Delta from the drops of leakage and of utility, arrays that lack the same values."""
    numerator, denominator = Drop.of(leakage), Drop.of(utility)
    delta = _ratio(numerator.mean, denominator.mean)
    verdict = _verdict(denominator)
    interval = _bounds(leakage, utility, delta, replicates) if verdict == "defined" else Interval()
    return Ratio(numerator, denominator, delta, interval, verdict)


def _bounds(leakage: Crossed, utility: Crossed, delta: float, replicates: int) -> Interval:
    """Return the percentiles of the stretched replicates' ratios."""
    drawn = np.stack([resampled_means(drops, replicates) for drops in (leakage, utility)], axis=1)
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    own = _percentiles(drawn @ (1, -delta))
    rest = Crossed(leakage.values - delta * utility.values, leakage.factors)
    spread, half = (own.high - own.low) / 2, Uncertainty.of(rest).half()
    stretch = half / spread if spread > LEAST_SPREAD * abs(leakage.mean) else 1.0
    means = np.array([leakage.mean, utility.mean])
    return _percentiles(_ratios(means + stretch * (drawn - means)))


def delta_table(study: Study, records: Sequence[TrialRecord], images: PerImage) -> pd.DataFrame:
    """Return one row for each defended setting: both drops in points, Delta, intervals, a verdict and a note.

    The study has `report.delta`.
    """
    delta = study.report.delta
    assert delta is not None
    finished = finished_trials(records)
    by_setting: dict[Setting, list[_Defended]] = {}
    for pair in _pairs(delta, finished):
        by_setting.setdefault(setting_of(pair.axes, study.report.repeats), []).append(pair)
    settings = [dict(setting) for setting in by_setting]
    axes = dict.fromkeys(axis for setting in settings for axis in setting)
    shown = [a for a in axes if a in delta.reference or len({s.get(a) for s in settings}) > 1]
    rows = []
    for setting, pairs in zip(settings, by_setting.values(), strict=True):
        row: dict[str, object] = {axis: setting.get(axis, "") for axis in shown}
        row |= held_column([pair.trial for pair in pairs])
        having = [pair for pair in pairs if pair.reference]
        rows.append(row | _answer(delta, having, images, study.report))
    if not rows:
        reason = why_none({}, finished) or "every finished trial is undefended"
        rows = [dict.fromkeys(delta.reference, "") | _without_answer(reason)]
    return without_empty(pd.DataFrame(rows))


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


def _answer(delta: Delta, pairs: Sequence[_Defended], images: PerImage, report: Report) -> dict[str, object]:
    if not pairs:
        words = in_words(delta.reference)
        return _without_answer(f"no finished trial has {words} and the same other axes and seeds")
    trials = [record for pair in pairs for record in (pair.reference, pair.trial) if record]
    for metric in (delta.leakage, delta.utility):
        if not all(metric in record.metrics for record in trials):
            return _without_answer(f"{metric} was not measured in every trial")
    leakage, utility = _crossed_drops(delta, pairs, images, report)
    return _row(delta_of(leakage, utility), leakage, len(pairs))


def _crossed_drops(
    delta: Delta, pairs: Sequence[_Defended], images: PerImage, report: Report
) -> tuple[Crossed, Crossed]:
    """Return both drops over replicates and, where all kept values by image, over classes."""
    axes = [pair.axes for pair in pairs]
    by_class = [_drops_by_class(delta, pair, images) for pair in pairs]
    own = [_drops_of_means(delta, pair) for pair in pairs]
    leakage, utility = (
        cross_trials(
            axes, [drops and drops[part] for drops in by_class], [drops[part] for drops in own], report
        )
        for part in (0, 1)
    )
    return leakage, utility


def _drops_by_class(delta: Delta, pair: _Defended, images: PerImage) -> tuple[ByClass, ByClass] | None:
    """Return both drops for the classes that all four have; None where a trial kept nothing."""
    assert pair.reference is not None
    drops = []
    for metric in (delta.leakage, delta.utility):
        before, after = images.by_class(pair.reference, metric), images.by_class(pair.trial, metric)
        if before is None or after is None:
            return None
        drops.append(before.minus(after))
    leakage, utility = drops
    return leakage.among(utility), utility.among(leakage)


def _drops_of_means(delta: Delta, pair: _Defended) -> tuple[float, float]:
    """Return both drops of the trials' own means."""
    assert pair.reference is not None
    before, after = pair.reference.metrics, pair.trial.metrics
    return before[delta.leakage] - after[delta.leakage], before[delta.utility] - after[delta.utility]


def _row(ratio: Ratio, drops: Crossed, num_pairs: int) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, drop in (("numerator", ratio.leakage), ("denominator", ratio.utility)):
        row |= {name: POINTS * drop.mean, f"{name}_low": POINTS * drop.interval.low}
        row[f"{name}_high"] = POINTS * drop.interval.high
    row |= {"delta": ratio.delta, "low": ratio.interval.low, "high": ratio.interval.high, "seeds": num_pairs}
    note = "; ".join(filter(None, (NOTES[ratio.verdict], one_seed_note(drops.resampled))))
    row |= {"verdict": ratio.verdict, "resampled": drops.in_words, "fixed": held_fixed(drops.resampled)}
    return row | {"note": note}


def _without_answer(reason: str) -> dict[str, object]:
    names = [f"{part}{end}" for part in ("numerator", "denominator") for end in ("", "_low", "_high")]
    row: dict[str, object] = dict.fromkeys([*names, "delta", "low", "high"], NAN)
    row |= {"seeds": 0, "verdict": "no trials", "resampled": "nothing", "fixed": ""}
    return row | {"note": reason}


def _verdict(utility: Drop) -> Verdict:
    """Return whether the ratio is defined, by the mean and the interval of its denominator."""
    if utility.mean <= 0:
        return "undefined"
    if np.isnan(utility.interval.low):
        return "no interval"
    return "defined" if utility.interval.low > 0 else "unstable"


def _ratio(leakage: float, utility: float) -> float:
    return leakage / utility if utility > 0 else NAN


def _ratios(drawn: np.ndarray) -> np.ndarray:
    """Return each replicate's ratio; where the denominator is not positive, the limit from above 0."""
    leakage, utility = drawn.T
    is_positive = utility > 0
    limits = np.where(leakage == 0, 0.0, np.copysign(np.inf, leakage))
    return np.divide(leakage, utility, out=limits, where=is_positive)


def _percentiles(values: np.ndarray) -> Interval:
    """Return the percentile interval; its ends are replicates, since some may be infinite."""
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(values, tail, method="lower")
    return Interval(float(low), float(np.quantile(values, 1 - tail, method="higher")))

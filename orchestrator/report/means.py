"""Means over the trials of a setting, with half a 95 % interval over seeds and, for values by image, classes.

The mean is that of the trials' own numbers. One seed has no interval: classes alone would say nothing of how
another training turns out.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.config.report import Report
from orchestrator.report.crossed import CLASSES, ByClass, Crossed, cross
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import replicate_of
from orchestrator.report.statistics import Uncertainty
from orchestrator.sweep.records import TrialRecord

DEFAULTS = Report()


def mean_and_half(
    records: Sequence[TrialRecord], metric: str, images: PerImage | None = None, report: Report = DEFAULTS
) -> tuple[float, float]:
    """Return a metric's mean over trials and half its interval; trials that lack the metric count nothing.

    NaN for no values, and for the interval of one seed.
    """
    having = [record for record in records if metric in record.metrics]
    if not having:
        return float("nan"), float("nan")
    mean = float(np.mean([record.metrics[metric] for record in having]))
    crossed = crossed_values(having, metric, images, report)
    has_seeds = any(axis != CLASSES for axis in crossed.resampled)
    return mean, Uncertainty.of(crossed).half() if has_seeds else float("nan")


def crossed_values(
    records: Sequence[TrialRecord], metric: str, images: PerImage | None, report: Report
) -> Crossed:
    """Return a metric over replicates and, where every trial kept its values by image and the study does not
    hold all classes fixed, over classes. Every trial has the metric."""
    replicates = [replicate_of(record.axes, report.repeats) for record in records]
    kept = [] if images is None else [images.by_class(record, metric) for record in records]
    by_class: list[ByClass] = [one for one in kept if one is not None]
    if report.population or len(by_class) < len(records):
        own = [record.metrics[metric] for record in records]
        return cross(list(zip(replicates, own, strict=True)))
    return cross(list(zip(replicates, by_class, strict=True)))

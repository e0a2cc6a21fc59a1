"""Settings: axes and values of trials, which of them fit given values, and what two of them share."""

from collections.abc import Callable, Collection, Mapping, Sequence

from orchestrator.config.base import Scalar, is_same
from orchestrator.config.study import SHORTHANDS, is_seed
from orchestrator.report.crossed import CLASSES
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

Axes = Mapping[str, Scalar]
Setting = tuple[tuple[str, Scalar], ...]
Repeats = Callable[[str], bool]
"""Whether an axis repeats a setting: `Report.repeats` of the study, by default whether it is a seed."""

FIXED = {
    "target.seed": "seed of F",
    "attack.seed": "seed of the attack",
    CLASSES: "classes",
    "data.class_seed": "class draw",
    "data.split": "split",
    "auxiliary.seed": "auxiliary draw",
    "evaluation.seed": "attacked images",
    "judge.seed": "judge",
}
"""What is drawn at random in a study: axis -> its name in tables that hold it fixed."""


def finished_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the finished trials in the study's order."""
    return sorted((r for r in records if r.status == "finished"), key=lambda one: one.index)


def setting_of(axes: Axes, repeats: Repeats = is_seed) -> Setting:
    """Return the axes that are no replicates, with their values."""
    return tuple((axis, value) for axis, value in axes.items() if not repeats(axis))


def by_setting(
    records: Sequence[TrialRecord], repeats: Repeats = is_seed
) -> dict[Setting, list[TrialRecord]]:
    """Return the finished trials of each setting, both in the study's order."""
    settings: dict[Setting, list[TrialRecord]] = {}
    for record in finished_trials(records):
        settings.setdefault(setting_of(record.axes, repeats), []).append(record)
    return settings


def replicate_of(axes: Axes, repeats: Repeats = is_seed) -> dict[str, Scalar]:
    """Return the replicate axes that a trial has, with their values."""
    return {axis: value for axis, value in axes.items() if repeats(axis) and value != ABSENT}


def held_fixed(resampled: Collection[str]) -> str:
    """Return what an interval over these axes, and classes, holds fixed, `split, judge`."""
    free = {field for axis in resampled for field in SHORTHANDS.get(axis, (axis,))}
    return ", ".join(words for field, words in FIXED.items() if field not in free)


def fits(axes: Axes, where: Axes, *, absent_fits: bool = False) -> bool:
    """Return whether a trial has these values; `absent_fits`: an axis that its attack lacks excludes
    nothing."""
    return all(
        (absent_fits and axes.get(axis, ABSENT) == ABSENT) or (axis in axes and is_same(axes[axis], value))
        for axis, value in where.items()
    )


def replicates_of(records: Sequence[TrialRecord], repeats: Repeats = is_seed) -> set[str]:
    """Return the axes that repeat a setting."""
    return {axis for record in records for axis in record.axes if repeats(axis)}


def narrowed(records: Sequence[TrialRecord], named: Collection[str]) -> list[TrialRecord]:
    """Return the trials that have the first value of every axis that is not named, or lack the axis."""
    kept = list(records)
    for axis in dict.fromkeys(axis for record in records for axis in record.axes if axis not in named):
        first = next(iter(present_values(axis, kept)), ABSENT)
        kept = [record for record in kept if fits(record.axes, {axis: first}, absent_fits=True)]
    return kept


def present_values(axis: str, records: Sequence[TrialRecord]) -> list[Scalar]:
    """Return the axis's values in those trials that have it, in their order, repeated ones too."""
    values = (record.axes.get(axis, ABSENT) for record in records)
    return [value for value in values if value != ABSENT]


def varying_axes(records: Sequence[TrialRecord], repeats: Repeats = is_seed) -> list[str]:
    """Return the axes, replicates apart, that have several values; absence is one."""
    axes = dict.fromkeys(axis for record in records for axis in record.axes if not repeats(axis))
    return [axis for axis in axes if len({record.axes.get(axis, ABSENT) for record in records}) > 1]


def merged_axes(one: Axes, other: Axes, without: Collection[str]) -> dict[str, Scalar] | None:
    """Return the common values of two trials; None where an axis that both have differs."""
    merged: dict[str, Scalar] = {}
    for axis in (axis for axis in one if axis not in without):
        mine, theirs = one[axis], other.get(axis, ABSENT)
        if mine != theirs and ABSENT not in (mine, theirs):
            return None
        merged[axis] = theirs if mine == ABSENT else mine
    return merged


def why_none(where: Axes, finished: Sequence[TrialRecord]) -> str:
    """Return why no finished trial fits, by one value that none has if there is such; empty if one fits."""
    if any(fits(record.axes, where) for record in finished):
        return ""
    for axis, value in where.items():
        if not any(fits(record.axes, {axis: value}) for record in finished):
            return f"no finished trial has {axis}={value}"
    return f"no finished trial has {in_words(where)}" if where else "no trial finished"


def in_words(where: Axes) -> str:
    """Return axes and values as text, `m=1, k=5`."""
    return ", ".join(f"{axis}={value}" for axis, value in where.items())

"""The Pareto front of defences: accuracy against what the strongest attack on each still leaks.

What the defender chooses are the axes of the target and of its release; all else is the adversary's, which
takes its best. The number of classes (k) and the data are neither: they are another task, at which another
accuracy is possible, so that the front is of one task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.base import Scalar
from orchestrator.config.study import SHORT_NAMES
from orchestrator.report.page.ranking import ACCURACY, Ranked, Ranking

TASK, DATA = "target.classes", "data."
DEFENDER = ("target.", "release.")
ROUNDING = 1e-12  # of accuracies that are equal


@dataclass(frozen=True)
class Front:
    """The settings of the front, the most accurate first, and what it is of in words."""

    chosen: Sequence[Ranked]
    words: str


def front(found: Ranking) -> Front:
    """Return the strongest attack on each defence that no other defence beats in accuracy and in leaking
    less; none where accuracy does not vary.

    A skill below 0 counts as 0, settings at chance are left out, and settings whose private images the
    adversary held count only where every setting's were held.
    """
    known = [
        one
        for one in found.ranked
        if not one.has_chance
        and ACCURACY in one.estimates
        and math.isfinite(one.estimates[ACCURACY].mean)
        and math.isfinite(found.leak(one).mean)
    ]
    fresh = [one for one in known if not is_held(found, one)]
    is_mixed = 0 < len(fresh) < len(known)
    tasks: dict[str, dict[str, Ranked]] = {}
    for one in fresh or known:  # the one that leaks most first
        own = dict(one.setting)
        task = {axis: value for axis, value in own.items() if is_task(axis)}
        defence = {axis: value for axis, value in own.items() if is_defence(axis)}
        tasks.setdefault(_key(task), {}).setdefault(_key(defence), one)
    chosen, groups = max(tasks.items(), key=lambda item: len(item[1]), default=("", {}))
    accuracies = [one.estimates[ACCURACY].mean for one in groups.values()]
    if not groups or max(accuracies) - min(accuracies) <= ROUNDING:
        return Front([], f"No Pareto front: {ACCURACY} does not vary between defences that are compared.")
    at = f" at {chosen}" if len(tasks) > 1 else ""
    words = (
        f"Orange squares are the Pareto front of the {len(groups)} defences{at}, each by its strongest "
        "attack: no other one is as accurate and leaks less."
    )
    if is_mixed:
        words += " Settings whose adversary held the images are not in it."
    return Front(_unbeaten(found, list(groups.values())), words)


def is_task(axis: str) -> bool:
    """Return whether an axis is of the task: the number of classes, the data."""
    return axis in (SHORT_NAMES[TASK], TASK) or f"{axis}.".startswith(DATA)


def is_defence(axis: str) -> bool:
    """Return whether the defender chooses an axis."""
    paths = {short: path for path, short in SHORT_NAMES.items()}
    return f"{paths.get(axis, axis)}.".startswith(DEFENDER) and not is_task(axis)


def is_held(found: Ranking, one: Ranked) -> bool:
    """Return whether a setting's adversary held the images that its leakage is of."""
    return any(found.part in member.held for member in one.members)


def _unbeaten(found: Ranking, groups: Sequence[Ranked]) -> list[Ranked]:
    def leak(one: Ranked) -> float:
        own = found.leak(one).mean
        return max(own, 0.0) if found.is_skill else found.sign * own

    kept: list[Ranked] = []
    least, at = math.inf, math.inf
    for one in sorted(groups, key=lambda each: (-each.estimates[ACCURACY].mean, leak(each))):
        accuracy = one.estimates[ACCURACY].mean
        if leak(one) < least or (leak(one) == least and accuracy == at):
            least, at = leak(one), accuracy
            kept.append(one)
    return kept


def _key(axes: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in axes.items())

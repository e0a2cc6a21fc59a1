"""Settings of a sweep by what they leak: means over replicates, and which of them may be called the worst.

Leakage is the skill at the objective's part of the private images, recognition over the floor for images of
classes; where no yardstick was measured the objective itself, if it is a leakage. A setting is shown to leak
where its attack beats every yardstick and its skill is above 0, both after Holm's correction over all
settings: of many settings without leakage some would seem to leak by chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.config.report import Report
from orchestrator.config.study import Study
from orchestrator.metrics.bounds import accepted
from orchestrator.metrics.floors import OVER_FLOOR, RECOGNISED
from orchestrator.metrics.names import CLASS, METRICS, PARTS, MetricName
from orchestrator.metrics.skill import skill_name
from orchestrator.report.held import marks
from orchestrator.report.judges import further_judges
from orchestrator.report.means import cross_trials, crossed_values, mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Setting, by_setting, finished_trials, replicate_of
from orchestrator.report.skill import at_chance, leak_p, unbeaten_column
from orchestrator.report.statistics import CONFIDENCE, Uncertainty, holm
from orchestrator.sweep.adversary import BEYOND, HELD
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

ACCURACY, QUERIES = "target/accuracy", "attack/queries"


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates with half its 95 % interval; NaN for what there is none of."""

    mean: float
    half: float = math.nan

    @property
    def holds_zero(self) -> bool:
        """Whether the interval holds 0; one seed has none."""
        return not math.isnan(self.half) and abs(self.mean) <= self.half


@dataclass(frozen=True, eq=False)
class Ranked:
    """One setting."""

    setting: Setting
    members: Sequence[TrialRecord]
    estimates: Mapping[str, Estimate]  # metric -> its mean
    held: str
    beyond: str  # queries that were answered with more than the release
    unbeaten: str
    has_chance: bool  # its target or evaluation model is not better than chance

    def words(self, axes: Sequence[str]) -> str:
        """Return the values of these axes, `m=1, k=5`."""
        own = dict(self.setting)
        named = [f"{axis}={own[axis]}" for axis in axes if own.get(axis, ABSENT) != ABSENT]
        return ", ".join(named) or "the only setting"


@dataclass(frozen=True, eq=False)
class Ranking:
    """Every setting with a finished trial, the one that leaks most first."""

    leakage: str  # metric
    recognition: Mapping[str, str]  # judge -> its metric
    ranked: Sequence[Ranked]
    images: PerImage
    report: Report

    @property
    def is_skill(self) -> bool:
        """Whether leakage is a skill: 0 is no better than a guess without training."""
        return self.leakage in _skills()

    @property
    def is_over_floor(self) -> bool:
        """Whether leakage is recognition over the floor: 0 is the floor, 1 recognises every image."""
        return self.leakage == OVER_FLOOR

    @property
    def part(self) -> str:
        """The private images that leakage is of: train, test or class."""
        return MetricName.parse(self.leakage).part or CLASS

    @property
    def sign(self) -> float:
        """1 if a larger number leaks more, else -1."""
        return -1.0 if MetricName.parse(self.leakage).metric.leaks == "down" else 1.0

    def leak(self, one: Ranked) -> Estimate:
        """Return what a setting leaks."""
        return one.estimates.get(self.leakage, Estimate(math.nan))

    @property
    def worst(self) -> Ranked | None:
        """The setting that leaks most of those that are shown to leak; None if none is."""
        return next(iter(self.shown), None)

    @cached_property
    def tested(self) -> Sequence[Ranked]:
        """The settings that may be named: not at chance, with a finite leakage."""
        return [one for one in self.ranked if not one.has_chance and math.isfinite(self.leak(one).mean)]

    @cached_property
    def shown(self) -> Sequence[Ranked]:
        """The tested settings that are shown to leak (Holm over all tested ones); all of them where no
        yardstick was measured."""
        if not self.is_skill:
            return self.tested
        adjusted = holm([self._p(one) for one in self.tested])
        return [one for one, p in zip(self.tested, adjusted, strict=True) if p < 1 - CONFIDENCE]

    def _p(self, one: Ranked) -> float:
        """Return the larger p-value of beating every yardstick and of a skill of 0; NaN where the former was
        not tested. One seed has the former alone, over classes."""
        if self.leak(one).mean <= 0:
            return 1.0
        beaten = leak_p(one.members, self.part, self.images, self.report)
        having = [member for member in one.members if self.leakage in member.metrics]
        own = Uncertainty.of(crossed_values(having, self.leakage, None, self.report)).p
        return beaten if math.isnan(own) else max(beaten, own)

    @property
    def passed_over(self) -> Sequence[Ranked]:
        """The settings whose number is larger than the named one's, though they are not shown to leak."""
        places = [place for place, one in enumerate(self.ranked) if one is self.worst]
        return self.ranked[: places[0]] if places else []

    @cached_property
    def lower(self) -> Sequence[Ranked]:
        """The settings that leak less than the named one."""
        places = [place for place, one in enumerate(self.ranked) if one is self.worst]
        return self.ranked[places[0] + 1 :] if places else []

    @cached_property
    def not_told_apart(self) -> int:
        """Number of `lower` settings whose paired difference from the named one has an interval that holds 0,
        or none."""
        worst = self.worst
        return 0 if worst is None else sum(self._is_close(worst, other) for other in self.lower)

    def _is_close(self, worst: Ranked, other: Ranked) -> bool:
        own, theirs = (self._by_replicate(one) for one in (worst, other))
        shared = [key for key in own if key in theirs]
        if not shared:
            return True
        axes = [own[key].axes for key in shared]
        gaps = [own[key].metrics[self.leakage] - theirs[key].metrics[self.leakage] for key in shared]
        error = Uncertainty.of(cross_trials(axes, [None] * len(gaps), gaps, self.report))
        return math.isnan(error.half()) or abs(error.mean) <= error.half()

    def _by_replicate(self, one: Ranked) -> dict[str, TrialRecord]:
        return {
            str(replicate_of(member.axes, self.report.repeats)): member
            for member in one.members
            if self.leakage in member.metrics
        }


def ranking(study: Study, records: Sequence[TrialRecord], images: PerImage) -> Ranking | None:
    """Return the settings with what they leak, as a mean, and all else that the page shows of them.

    None where no trial finished, or none measured a leakage.
    """
    finished, report = finished_trials(records), study.report
    leakage = leakage_metric(study, finished)
    if leakage is None:
        return None
    part = MetricName.parse(leakage).part or CLASS
    judged = _recognition(part, finished)
    names = dict.fromkeys([leakage, *study.search.objectives, ACCURACY, *judged.values(), QUERIES])
    barred = {one.trial for one in at_chance(records)}
    ranked = []
    for setting, members in by_setting(finished, report.repeats).items():
        estimates = {name: Estimate(*mean_and_half(members, name, report=report)) for name in names}
        costs = {name for one in members for name in one.costs}
        for name in costs:
            own = [one.costs[name] for one in members if name in one.costs]
            estimates[name] = Estimate(sum(own) / len(own))
        marked = marks(members)
        ranked.append(
            Ranked(
                setting,
                members,
                {name: one for name, one in estimates.items() if not math.isnan(one.mean)},
                str(marked[HELD]),
                str(marked[BEYOND]),
                next(iter(map(str, unbeaten_column(members, images, report).values()))),
                any(one.name in barred for one in members),
            )
        )
    found = Ranking(leakage, judged, ranked, images, report)
    order = sorted(ranked, key=lambda one: _order(found.leak(one).mean * found.sign))
    return replace(found, ranked=order)


def leakage_metric(study: Study, finished: Sequence[TrialRecord]) -> str | None:
    """Return the metric by which settings are sorted."""
    measured = {name for record in finished for name in record.metrics}
    objectives = [name for name in study.search.objectives if MetricName.parse(name).metric.leaks]
    part = next((own for name in objectives if (own := MetricName.parse(name).part)), None)
    part = part or (CLASS if str(RECOGNISED) in measured else PARTS[0])
    skills = [OVER_FLOOR, str(skill_name(CLASS))] if part == CLASS else [str(skill_name(part))]
    recognised = [str(accepted(one)) for one in (*PARTS, CLASS)]
    return next((name for name in (*skills, *objectives, *recognised) if name in measured), None)


def _skills() -> set[str]:
    return {OVER_FLOOR, *(str(skill_name(part)) for part in (*PARTS, CLASS))}


def _recognition(part: str, finished: Sequence[TrialRecord]) -> dict[str, str]:
    """Return the trial's own judge, further ones and the recogniser -> the metric of what they accept."""
    first = accepted(part)
    named = {"judge": str(first)} | {name: str(first.of_judge(name)) for name in further_judges(finished)}
    named["recogniser"] = str(METRICS["recogniser_accepted"].on(part))
    return {judge: name for judge, name in named.items() if any(name in one.metrics for one in finished)}


def _order(value: float) -> float:
    """Return the key of a descending order in which NaN comes last."""
    return math.inf if math.isnan(value) else -value

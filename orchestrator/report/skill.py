"""Cautions of a report: attacks that beat no yardstick, models at chance, and which trial is the best.

A setting is no better than a yardstick where its mean skill over seeds is not above 0. It is shown to beat
them where the interval of the paired difference of errors, the best yardstick's less the attack's, lies above
0 (`statistics.compare`); with one seed it is over classes alone. Images of classes are compared by
recognition instead (`metrics/floors.py`): a setting is no better than a judge's floor where the interval of
the paired difference of shares, the attack's less the floor's, does not lie above 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from orchestrator.config.report import Report
from orchestrator.config.study import Study
from orchestrator.metrics.floors import OVER_FLOOR, RECOGNISED, Recognition, floor_words, recognitions
from orchestrator.metrics.names import CLASS, MetricName
from orchestrator.metrics.skill import (
    best_yardstick,
    error_name,
    guess_words,
    skill_name,
    unbeaten_words,
    yardstick_names,
)
from orchestrator.report.crossed import ByClass, Crossed
from orchestrator.report.means import DEFAULTS, cross_trials
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import finished_trials
from orchestrator.report.statistics import NAN, Comparison, Uncertainty, compare
from orchestrator.sweep.records import TrialRecord

UNBEATEN = "no better than"
"""Column of the summary: the yardsticks and floors that a setting does not beat, with the parts."""

ALWAYS = (
    str(RECOGNISED),
    "inversion/skill_test",
    OVER_FLOOR,
    "class/skill",
    "target/accuracy",
    "judge/accuracy",
)
"""Columns of every summary, where they were measured."""

START = "target.pretrain.weights"  # parameter of a trial

LEVEL = 0.01  # of the one-sided test against chance
MOST_NAMED = 12  # trials that one line names; a file has all of them


@dataclass(frozen=True)
class AtChance:
    """A model of a trial that is not shown to be better than always choosing the most frequent class."""

    model: str  # target, judge or a further one: judge.NAME
    trial: str
    accuracy: float
    chance: float  # share of the most frequent class among the test images
    images: int
    p: float  # one-sided, binomial


def summary_metrics(study: Study, records: Sequence[TrialRecord]) -> list[str]:
    """Return the metrics of the summary: objectives, those of the report, skill and accuracies."""
    measured = {name for record in finished_trials(records) for name in record.metrics}
    always = [name for name in ALWAYS if name in measured]
    return list(dict.fromkeys([*study.search.objectives, *study.report.metrics, *always]))


def unbeaten_column(
    members: Sequence[TrialRecord], images: PerImage | None = None, report: Report = DEFAULTS
) -> dict[str, object]:
    """Return the column of the yardsticks that the mean over a setting's seeds does not beat, and of the
    floors that its recognition is not shown to be above; as numbers where nothing can be resampled."""
    lost = []
    for one in recognitions(_means(members)):
        found = over_floor(members, one, images, report)
        is_above = found.verdict == "holds" if found.factors else found.difference > 0
        lost += [] if is_above else [one]
    return {UNBEATEN: "; ".join([*guess_words(_means(members)), *floor_words(lost)])}


def at_chance(records: Sequence[TrialRecord]) -> list[AtChance]:
    """Return the targets and evaluation models of finished trials that are not better than chance."""
    tested = (one for record in finished_trials(records) for one in _tested(record))
    return [one for one in tested if one.p >= LEVEL]


def warnings(found: Sequence[AtChance]) -> list[str]:
    """Return a line for each kind of model at chance, naming trials."""
    lines = []
    for model in dict.fromkeys(one.model for one in found):
        these = [one for one in found if one.model == model]
        worst = max(these, key=lambda one: one.p)
        lines.append(
            f"the {model} is not better than chance (accuracy {worst.accuracy:.3g} on {worst.images} test "
            f"images, most frequent class {worst.chance:.3g}) in {_listed([one.trial for one in these])}"
        )
    return lines


def same_start(finished: Sequence[TrialRecord]) -> list[str]:
    """Return a line for each judge that starts from the very weights that F starts from, naming trials."""
    trials: dict[tuple[str, str], list[str]] = {}
    for record in finished:
        start = record.params.get(START)
        for field, weights in record.params.items():
            is_judge = field == "judge.weights" or (
                field.startswith("judges.") and field.endswith(".weights")
            )
            if is_judge and weights == start and start not in ("none", None):
                judge = field.removesuffix(".weights").replace("judges.classifiers.", "judge.")
                trials.setdefault((judge, str(weights)), []).append(record.name)
    return [
        f"the {judge} starts from the weights that the target starts from ({weights}), so that what fools "
        f"one may fool the other, in {_listed(names)}"
        for (judge, weights), names in trials.items()
    ]


def best_lines(study: Study, records: Sequence[TrialRecord]) -> list[str]:
    """Return a line that names the best trial by an objective that wants no leakage, or why there is none;
    empty if no trial has it, and of several objectives, which have a front (`pareto.front_line`).

    Where more leakage is better the setting that leaks most is named instead (`page.ranking`). Trials whose
    target or evaluation model is at chance are left out.
    """
    if len(study.search.objectives) > 1:
        return []
    objective, is_larger_better = study.objective
    if MetricName.parse(objective).metric.leaks == ("up" if is_larger_better else "down"):
        return []
    finished = [record for record in finished_trials(records) if objective in record.metrics]
    if not finished:
        return []
    barred = {one.trial for one in at_chance(records)}
    chosen = [record for record in finished if record.name not in barred]
    if not chosen:
        return [f"No trial is called best by `{objective}`: all have a model at chance."]
    best = (max if is_larger_better else min)(chosen, key=lambda one: one.metrics[objective])
    among = "" if len(chosen) == len(finished) else f", of the {len(chosen)} without a model at chance"
    return [f"Best `{objective}`: {best.metrics[objective]:.4g} in `{best.name}`{among}."]


def caution_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Return lines of Markdown for models at chance, for judges that start where F does, and for trials that
    beat no yardstick or floor."""
    finished = finished_trials(records)
    told = [*warnings(at_chance(records)), *same_start(finished)]
    lines = [f"- **warning**: {line}" for line in told]
    lost = [record for record in finished if unbeaten_words(record.metrics)]
    if lost:
        named = _listed([f"`{record.name}`" for record in lost])
        lines.append(f"- no better than a yardstick: {len(lost)} of {len(finished)} trials: {named}")
    return lines


def beats_yardsticks(
    members: Sequence[TrialRecord], part: str, images: PerImage, report: Report = DEFAULTS
) -> Comparison | None:
    """Compare the attack of one setting's trials with the best yardstick of each; positive: it is better.

    Over replicates and classes, or without classes where a trial kept no values by image. None where a trial
    has no skill.
    """
    gains = _gains(members, part, images, report)
    return None if gains is None else compare(gains)


def _gains(members: Sequence[TrialRecord], part: str, images: PerImage, report: Report) -> Crossed | None:
    if not members or any(str(skill_name(part)) not in record.metrics for record in members):
        return None
    gains = [_gain_by_class(record, part, images) for record in members]
    skills = [record.metrics[str(skill_name(part))] for record in members]
    return cross_trials([record.axes for record in members], gains, skills, report)


def over_floor(
    members: Sequence[TrialRecord],
    one: Recognition,
    images: PerImage | None = None,
    report: Report = DEFAULTS,
) -> Comparison:
    """Compare what a judge recognises of one setting's trials with its floor; positive: it is more.

    All of them have both. Over replicates and classes, or without classes as `beats_yardsticks`.
    """
    return compare(_over_floor(members, one, images, report))


def _over_floor(
    members: Sequence[TrialRecord], one: Recognition, images: PerImage | None, report: Report
) -> Crossed:
    gains = [None if images is None else _recognised_by_class(record, one, images) for record in members]
    shares = [record.metrics[one.share] - record.metrics[one.floor] for record in members]
    return cross_trials([record.axes for record in members], gains, shares, report)


def leak_p(members: Sequence[TrialRecord], part: str, images: PerImage, report: Report) -> float:
    """Return the two-sided p-value at which the attack of one setting's trials beats every yardstick of a
    part, or every judge's floor: the largest of theirs, 1 where one is not beaten, NaN where none was
    tested."""
    if part == CLASS:
        found = [_over_floor(members, one, images, report) for one in recognitions(_means(members))]
    else:
        gains = _gains(members, part, images, report)
        found = [] if gains is None else [gains]
    errors = [Uncertainty.of(one) for one in found]
    if any(error.mean <= 0 for error in errors):
        return 1.0
    return max((error.p for error in errors), default=NAN)


def _recognised_by_class(record: TrialRecord, one: Recognition, images: PerImage) -> ByClass | None:
    """Return the share that a judge recognises less the floor by class; None if one was not kept."""
    own = images.by_class(record, one.share)
    if own is None or MetricName.parse(one.floor).metric.of == "stage":
        return None if own is None else ByClass(own.identities, own.values - record.metrics[one.floor])
    floor = images.by_class(record, one.floor)
    return None if floor is None else own.minus(floor)


def _gain_by_class(record: TrialRecord, part: str, images: PerImage) -> ByClass | None:
    """Return the best yardstick's error less the attack's by class; None if one was not kept."""
    guess = best_yardstick(record.metrics, part)
    assert guess is not None  # there is a skill
    own = images.by_class(record, str(error_name(part)))
    best = images.by_class(record, str(yardstick_names(part)[guess]))
    return None if own is None or best is None else best.minus(own)


def _listed(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _means(members: Sequence[TrialRecord]) -> Mapping[str, float]:
    """Return the mean of every metric that all trials have."""
    shared = set.intersection(*(set(member.metrics) for member in members)) if members else set()
    return {name: float(np.mean([member.metrics[name] for member in members])) for name in shared}


def _tested(record: TrialRecord) -> Iterator[AtChance]:
    """Yield the target and the evaluation model of a trial with the p-value of being better than chance."""
    accuracies = [name.partition("/")[0] for name in record.metrics if name.endswith("/accuracy")]
    for model in ("target", "judge", *(one for one in accuracies if one.startswith("judge."))):
        kind = model.partition(".")[0]
        names = (f"{model}/accuracy", f"yardstick/{kind}_chance", f"yardstick/{kind}_images")
        if all(name in record.metrics for name in names):
            accuracy, chance, size = (record.metrics[name] for name in names)
            hits = round(accuracy * size)
            p = float(special.bdtrc(hits - 1, round(size), chance))
            yield AtChance(model, record.name, accuracy, chance, round(size), p)

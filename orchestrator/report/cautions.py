"""Cautions: lines of Markdown on what not to trust of a sweep's numbers, for its note and its page."""

from collections import Counter
from collections.abc import Sequence

from orchestrator.config.conditions import listed
from orchestrator.config.report import Report
from orchestrator.config.study import Study, is_seed
from orchestrator.metrics.names import BY_JUDGES, BY_RECOGNISER, CLASS, MetricName
from orchestrator.report.captions import captions
from orchestrator.report.held import note_lines
from orchestrator.report.judges import judge_lines
from orchestrator.report.settings import by_setting, finished_trials
from orchestrator.report.skill import MOST_NAMED, caution_lines
from orchestrator.sweep.records import TrialRecord

FEW = 3  # replicates, below which an interval says little

WHOSE = {"attack": "attack", "prior": "attack", "target": "target"}
"""Section of a trial -> whose settings its axes are."""

JUDGED = (
    *(*BY_JUDGES, *BY_RECOGNISER, "knn_distance", "centroid_distance", "class_rank", "class_nearest"),
    *("retrieval_feature_top1", "retrieval_feature_rank", "retrieval_feature_nearer"),
    *("over_chance", "over_floor"),
)
"""Metrics of reconstructions that a judge measures or that are of one's."""


def cautions(records: Sequence[TrialRecord], study: Study) -> list[str]:
    """Return a line for everything that a reader must know of these trials; none where there is nothing."""
    return [*caution_remarks(records, study), *(f"{head}: {error}" for head, error in failures(records))]


def caution_remarks(records: Sequence[TrialRecord], study: Study) -> list[str]:
    """Return the lines of `cautions` that no failure makes."""
    records = sorted(records, key=lambda one: one.index)
    finished = finished_trials(records)
    lines = [*caution_lines(records), *judge_lines(records), *note_lines(finished)]
    remarks = [*captions(records, study.report), *(chosen_by_judge(study) if len(finished) > 1 else [])]
    return [*lines, *(f"- {remark}." for remark in remarks)]


def chosen_by_judge(study: Study) -> list[str]:
    """Return a sentence where a search chooses settings by a judge, which then reports the chosen ones: the
    best of several noisy values is better than a second measurement of that setting."""
    names = [name for name in study.search.objectives if _is_judged(name)]
    axes = [axis for grid in study.sweep for axis, values in grid.items() if _has_choice(axis, values)]
    sections = {axis.partition(".")[0] for axis in axes}
    whose = sorted({WHOSE[section] for section in sections if section in WHOSE})
    if study.search.algorithm == "grid" or not names or not whose:
        return []
    settings = " and ".join(f"of the {one}" for one in whose)
    reports, are = ("reports them", "value is") if len(names) == 1 else ("report them", "values are")
    named = " and ".join(f"`{name}`" for name in names)
    return [
        f"settings {settings} were chosen by {named}, which also {reports}: the best one's {are} optimistic; "
        "compare another judge's"
    ]


def _has_choice(axis: str, values: object) -> bool:
    known = listed(values)
    return not is_seed(axis) and (known is None or len(known) > 1)


def _is_judged(name: str) -> bool:
    metric = MetricName.parse(name)
    return metric.stage.partition(".")[0] in ("attack", CLASS) and metric.metric.name in JUDGED


def failures(records: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    """Return which trials failed in which stage, in Markdown, with their error, which is plain text: a pair
    for each stage and error."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in sorted(records, key=lambda one: one.index):
        if record.status == "failed":
            groups.setdefault((str(record.failed_stage), str(record.error)), []).append(f"`{record.name}`")
    lines = []
    for (stage, error), names in groups.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append((f"- failed: {', '.join(names[:MOST_NAMED])}{more} in {stage}", error))
    return lines


def few_replicates(records: Sequence[TrialRecord], report: Report) -> list[str]:
    """Return a line for each number of replicates of a setting that is too small to show a spread."""
    settings = by_setting(records, report.repeats)
    counts = Counter(len(members) for members in settings.values())
    lines = []
    for number in range(1, FEW):
        if counts[number]:
            words = (
                "one replicate: no interval"
                if number == 1
                else f"{number} replicates: an interval says little"
            )
            lines.append(f"- few replicates: {counts[number]} of {len(settings)} settings have {words}.")
    return lines

"""Cautions: lines of Markdown on what not to trust of a sweep's numbers, for its note and its page."""

from collections import Counter
from collections.abc import Sequence

from orchestrator.config.report import Report
from orchestrator.report.captions import captions
from orchestrator.report.held import note_lines
from orchestrator.report.judges import judge_lines
from orchestrator.report.settings import by_setting, finished_trials
from orchestrator.report.skill import MOST_NAMED, caution_lines
from orchestrator.sweep.records import TrialRecord

FEW = 3  # replicates, below which an interval says little


def cautions(records: Sequence[TrialRecord], report: Report) -> list[str]:
    """Return a line for everything that a reader must know of these trials; none where there is nothing."""
    return [*caution_remarks(records, report), *(f"{head}: {error}" for head, error in failures(records))]


def caution_remarks(records: Sequence[TrialRecord], report: Report) -> list[str]:
    """Return the lines of `cautions` that no failure makes."""
    records = sorted(records, key=lambda one: one.index)
    lines = [*caution_lines(records), *judge_lines(records), *note_lines(finished_trials(records))]
    return [*lines, *(f"- {remark}." for remark in captions(records, report))]


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

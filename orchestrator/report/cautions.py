"""Cautions: lines of Markdown on what not to trust of a sweep's numbers, for its note and its page."""

from collections import Counter
from collections.abc import Sequence

from orchestrator.config.report import Report
from orchestrator.report.captions import captions
from orchestrator.report.held import note_lines
from orchestrator.report.judges import judge_lines
from orchestrator.report.settings import by_setting, finished_trials
from orchestrator.report.skill import caution_lines
from orchestrator.sweep.records import TrialRecord

FEW = 3  # replicates, below which an interval says little


def cautions(records: Sequence[TrialRecord], report: Report) -> list[str]:
    """Return a line for everything that a reader must know of these trials; none where there is nothing."""
    records = sorted(records, key=lambda one: one.index)
    finished = finished_trials(records)
    lines = [*caution_lines(records), *judge_lines(records), *note_lines(finished)]
    failed = [record for record in records if record.status == "failed"]
    lines += [f"- failed: `{record.name}` in {record.failed_stage}: {record.error}" for record in failed]
    return [*lines, *(f"- {remark}." for remark in captions(records, report))]


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

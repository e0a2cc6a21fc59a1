"""Captions: what a reader of a report's tables must know of how its trials were made."""

from collections.abc import Sequence

from orchestrator.config.report import Report
from orchestrator.report.means import DEFAULTS
from orchestrator.report.settings import finished_trials
from orchestrator.sweep.records import TrialRecord

OF_POPULATION = (
    "classes are held fixed, as they are all there are (report.population): intervals are over seeds, and "
    "say nothing of other classes"
)


def captions(records: Sequence[TrialRecord], report: Report = DEFAULTS) -> list[str]:
    """Return one sentence for each such thing that holds for a finished trial."""
    finished = finished_trials(records)
    return [*_of_accuracy(finished), *([OF_POPULATION] if finished and report.population else [])]


def _of_accuracy(finished: Sequence[TrialRecord]) -> list[str]:
    """Return that the accuracy of trials is too high, and why."""
    chosen = [one for one in finished if _is_chosen_on_test(one)]
    if not chosen:
        return []
    share = "every trial" if len(chosen) == len(finished) else f"{len(chosen)} of {len(finished)} trials"
    return [
        f"target/accuracy of {share} is that of the epoch which is best on the test images themselves "
        "(target.selection=test): it is too high"
    ]


def _is_chosen_on_test(record: TrialRecord) -> bool:
    """Return whether F's epoch was chosen on the images of its accuracy; a snapshot's was not chosen."""
    params = record.params
    return params.get("target.selection") == "test" and params.get("target.snapshot", "none") == "none"

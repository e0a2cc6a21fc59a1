"""Findings: what a report concludes of its trials, once for the page and for the note."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.config.study import Study
from orchestrator.report.importance import Importance, Searched, importances
from orchestrator.report.page.content import ordered_axes
from orchestrator.report.page.ranking import Ranking, leakage_metric, ranking
from orchestrator.report.page.spent import artifacts_of
from orchestrator.report.page.words import axis_line, leak_line, price_line
from orchestrator.report.pareto import front_line
from orchestrator.report.per_image import PerImage
from orchestrator.report.sections import Sections
from orchestrator.report.settings import finished_trials
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord

CPU, WALL = ("cost/cpu_seconds", "CPU seconds"), ("cost/wall_seconds", "device seconds")
ANSWER, IMPORTANCE, COSTS = "answer", "importance", "costs"


@dataclass(frozen=True)
class Findings:
    """What a sweep answers."""

    ranked: Ranking | None
    """Settings by what they leak; None where no finished trial measured it."""

    importance: Sequence[Importance]
    axes: Sequence[str]
    """Those that vary, the one that matters most for the leakage first."""

    seconds: tuple[str, str]
    """Metric of a trial's costs, and its unit in words."""

    artifacts: Mapping[str, Artifact]
    """Key -> the stored stages of all trials."""

    answer: Sequence[str]
    """Three lines of Markdown: what leaks, at what price, by which axis; before them the front of several
    objectives."""


def findings(
    study: Study,
    records: Sequence[TrialRecord],
    store: Artifacts,
    images: PerImage,
    sections: Sections,
    searched: Searched | None = None,
) -> Findings:
    """Return what the trials say; `searched` speaks for a search's model of its axes."""
    finished, report = finished_trials(records), study.report
    ranked: Ranking | None = None
    if finished:
        ranked = sections.made(ANSWER, "the ranking", partial(ranking, study, records, images), None)
    leakage = leakage_metric(study, finished)
    measured = list(dict.fromkeys([*study.search.objectives, *filter(None, [leakage])]))
    make = partial(importances, records, measured, report, searched)
    importance = sections.made(IMPORTANCE, "the importance of axes", make, [])
    answered = (
        ranked.leakage if ranked else study.objective[0]
    )  # all lines of the answer are about one metric
    main = next((one for one in importance if one.metric == answered), None)
    axes = ordered_axes(finished, report, main)
    none: dict[str, Artifact] = {}
    artifacts = sections.made(COSTS, "the costs", partial(artifacts_of, records, store), none)
    stages = {one.stage for one in artifacts.values()}
    seconds = WALL if any(study.resources.of(stage).gpus_per_worker for stage in stages) else CPU
    several = len(study.search.objectives) > 1
    lines = [line] if several and (line := front_line(records, study.search.objectives)) else []
    if ANSWER not in sections.faults:
        make_lines = partial(_answer, ranked, axes, seconds)
        lines += sections.made(ANSWER, "the answer", make_lines, [])
    if IMPORTANCE not in sections.faults:
        lines = [*lines, *sections.made(IMPORTANCE, "the line on axes", lambda: [axis_line(main)], [])]
    return Findings(ranked, importance, axes, seconds, artifacts, lines)


def _answer(ranked: Ranking | None, axes: Sequence[str], seconds: tuple[str, str]) -> list[str]:
    if ranked is None:
        return ["No trial finished that measured what leaks."]
    return [leak_line(ranked, axes), price_line(ranked, seconds)]

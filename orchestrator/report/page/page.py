"""report.html: what a finished sweep answers, in one file that needs nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from orchestrator.config.installation import to_call
from orchestrator.config.study import Study
from orchestrator.metrics.names import MetricName
from orchestrator.report.cautions import caution_remarks, failures, few_replicates
from orchestrator.report.importance import Importance
from orchestrator.report.page import content, words
from orchestrator.report.page.content import Chart, Table
from orchestrator.report.page.front import Front, front
from orchestrator.report.page.pictures import LIMIT, embedded
from orchestrator.report.page.ranking import Ranking, ranking
from orchestrator.report.page.spent import spent_by_stage
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import finished_trials, held_fixed, replicates_of
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord

PAGE = "report.html"
TEMPLATE = "page.html.jinja"
CPU, WALL = ("cost/cpu_seconds", "CPU seconds"), ("cost/wall_seconds", "device seconds")
TABLES = {
    "comparison": "Printed in papers against ours",
    "orderings": "Orders that papers claim, with verdicts",
    "judges": "Judges side by side",
    "delta": "What a defense saves for what it costs",
    "costs": "What one stage costs beside a reference",
    "bounds": "Ceiling and floor of recognition",
}
"""Table of the report -> its title on the page."""


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows in words."""

    title: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Rerun:
    """How the study is run again, and how many of its points are in no record."""

    command: str = to_call("sweep", "study.yaml")  # of the resolved study, which is beside the page
    num_missing: int = 0


def report_page(
    study: Study,
    records: Sequence[TrialRecord],
    store: Artifacts,
    images: PerImage,
    files: Mapping[str, bytes],
    found: Sequence[Importance],
    rerun: Rerun,
) -> bytes:
    """Return the page. `files`: the report's other files, some of which it shows."""
    finished, report = finished_trials(records), study.report
    ranked = ranking(study, records, images) if finished else None
    objective = study.objective[0]
    answered = ranked.leakage if ranked else objective  # all lines of the answer are about one metric
    main = next((one for one in found if one.metric == answered), None)
    axes = content.ordered_axes(finished, report, main)
    spent = spent_by_stage(records, store)
    seconds = WALL if any(study.resources.of(one.stage).gpus_per_worker for one in spent) else CPU
    pareto = front(ranked) if ranked else Front([], "")
    tradeoff = content.tradeoff_chart(ranked, pareto, axes) if ranked else None
    charts = [chart for one in found if (chart := content.importance_chart(one))]
    repeated = sorted(replicates_of(finished, report.repeats))
    values = {
        "study": study,
        "counts": _counts(records, finished, rerun.num_missing),
        "answer": _answer(ranked, main, axes, seconds),
        "settings": content.settings_table(ranked, axes, list(study.search.objectives), seconds)
        if ranked
        else None,
        "meaning": _meanings(ranked, study),
        "resampled": ", ".join(repeated) or "nothing",
        "held_fixed": held_fixed(repeated) or "nothing",
        "single": _single_axes(finished, axes, repeated),
        "unvarying": content.unvarying(finished),
        "warnings": [*map(inline, [*few_replicates(records, report), *caution_remarks(records, report)])],
        "failures": [Markup("{}: {}").format(inline(head), error) for head, error in failures(records)],
        "pictures": list(_pictures(study, files)),
        "maps": content.heat_tables(finished, ranked.leakage, ranked.sign, axes) if ranked else [],
        "tradeoff": tradeoff,
        "front": content.front_table(ranked, pareto.chosen, axes) if ranked and pareto.chosen else None,
        "axes": content.axis_charts(finished, ranked.leakage, ranked.sign, report, axes) if ranked else [],
        "importance": [*zip(found, map(words.axis_line, found), strict=True)],
        "importance_charts": charts,
        "importance_table": _importance(files),
        "tables": [
            content.csv_table(f"{name}-csv", title, files[f"{name}.csv"])
            for name, title in TABLES.items()
            if f"{name}.csv" in files
        ],
        "spent": content.spent_table(spent, seconds) if spent else None,
        "spent_words": content.spent_words(spent, seconds),
        "yaml": study.yaml(),
        "command": rerun.command,
        "files": sorted(files),
    }
    return str(_environment().get_template(TEMPLATE).render(values)).encode()


def _answer(
    ranked: Ranking | None, main: Importance | None, axes: Sequence[str], seconds: tuple[str, str]
) -> list[str]:
    if ranked is None:
        return ["No trial finished that measured what leaks.", words.axis_line(main)]
    return [words.leak_line(ranked, axes), words.price_line(ranked, seconds), words.axis_line(main)]


def _counts(records: Sequence[TrialRecord], finished: Sequence[TrialRecord], num_missing: int) -> str:
    status = [record.status for record in records]
    missing = f"; {num_missing} points are not stored and not on this page" if num_missing else ""
    return (
        f"{len(records)} trials: {len(finished)} finished, {status.count('failed')} failed, "
        f"{status.count('pruned')} pruned{missing}"
    )


def _meanings(ranked: Ranking | None, study: Study) -> list[tuple[str, str]]:
    """Return the metrics of the settings with unit and direction."""
    names = [*([ranked.leakage, *ranked.recognition.values()] if ranked else []), *study.search.objectives]
    return [(name, MetricName.parse(name).describe()) for name in dict.fromkeys(names)]


def _single_axes(
    finished: Sequence[TrialRecord], axes: Sequence[str], repeated: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the swept axes that have one value, with it."""
    known = {axis: value for one in finished for axis, value in one.axes.items()}
    return [(axis, str(value)) for axis, value in known.items() if axis not in (*axes, *repeated)]


def _importance(files: Mapping[str, bytes]) -> Table | None:
    name = "importance.csv"
    if name not in files:
        return None
    return content.csv_table("importance-csv", "Shares of the variance", files[name], without=())


def _pictures(study: Study, files: Mapping[str, bytes]) -> Iterator[Picture]:
    """Yield the report's pictures, those that the page has room for."""
    left = LIMIT
    for name in sorted(files, key=lambda one: (one != "figure.png", one)):
        if name != "figure.png" and not re.fullmatch(r"(curve|histogram)-.*\.png", name):
            continue
        uri = embedded(files[name])
        if len(uri) > left:
            continue
        left -= len(uri)
        yield Picture(name, uri, _alt(study, name))


def _alt(study: Study, name: str) -> str:
    """Return what a picture shows in words."""
    report = study.report
    if name == "figure.png":
        fixed = ", ".join(f"{axis}={value}" for axis, value in report.where.items())
        rows = ", ".join(report.rows)
        below = f"one row for each value of {rows}" if rows else "one row"
        at = f"; {fixed}" if fixed else ""
        return f"Private images on top, below them their reconstructions, {below}{at}."
    kind, _, rest = name.removesuffix(".png").partition("-")
    for curve in report.curves:
        if kind == "curve" and curve.name == rest:
            lines = f"a line for each value of {curve.line}"
            return f"{curve.y} over {curve.x}, {lines}; numbers in curve-{rest}.csv."
    for one in report.histograms:
        if kind == "histogram" and one.name == rest:
            return (
                f"How {one.value} is distributed, by {one.success}, a panel for each value of {one.panels}."
            )
    return name


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["inline"] = inline
    found.filters["svg"] = svg
    return found


def inline(text: str) -> Markup:
    """Return a line of Markdown, without its bullet, as HTML: `code` and **strong**, all else escaped."""
    parts = re.split(r"`([^`]+)`", text.removeprefix("- "))  # words and code take turns: no ** inside code
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", str(escape(parts[at])))
    parts[1::2] = [f"<code>{escape(part)}</code>" for part in parts[1::2]]
    return Markup("".join(parts))


def svg(chart: Chart) -> Markup:
    """Return a chart's SVG, in which `charts` escapes every text."""
    return Markup(chart.svg)

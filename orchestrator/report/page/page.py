"""report.html: what a finished sweep answers, in one file that needs nothing else."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from orchestrator.config.installation import to_call
from orchestrator.config.study import Study
from orchestrator.metrics.names import MetricName
from orchestrator.report.against_forecast import forecast_words, kept_compared, total
from orchestrator.report.cautions import caution_remarks, failures, few_replicates
from orchestrator.report.importance import Importance
from orchestrator.report.page import content, words
from orchestrator.report.page.content import Chart, Table
from orchestrator.report.page.findings import COSTS, IMPORTANCE, Findings
from orchestrator.report.page.front import Front, front
from orchestrator.report.page.pictures import LIMIT, embedded
from orchestrator.report.page.ranking import Ranking
from orchestrator.report.page.spent import spent_by_stage
from orchestrator.report.sections import Sections
from orchestrator.report.settings import finished_trials, held_fixed, replicates_of
from orchestrator.sweep.records import TrialRecord

PAGE = "report.html"
TEMPLATE = "page.html.jinja"
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
class Context:
    """What a report has of its sweep beside the trials."""

    command: str = to_call("sweep", "study.yaml")
    """Runs it again; by default the resolved study that is beside the page."""

    num_missing: int = 0
    """Points that are in no record."""

    forecast: Mapping[str, Any] | None = None
    """What was kept of the forecast at its start; None without one."""


def report_page(
    study: Study,
    records: Sequence[TrialRecord],
    found: Findings,
    files: Mapping[str, bytes],
    sections: Sections,
    context: Context,
) -> bytes:
    """Return the page; a section that fails has a line in its place. `files`: the report's other files, some
    of which it shows."""
    finished = finished_trials(records)
    repeated = sorted(replicates_of(finished, study.report.repeats))
    values = {
        "study": study,
        "counts": _counts(records, finished, context.num_missing),
        "answer": found.answer,
        "resampled": ", ".join(repeated) or "nothing",
        "held_fixed": held_fixed(repeated) or "nothing",
        "single": _single_axes(finished, found.axes, repeated),
        "unvarying": content.unvarying(finished),
        "yaml": study.yaml(),
        "command": context.command,
        "files": sorted(files),
        **_warnings(study, records, sections),
        **_leakage(study, finished, found, sections),
        **_importance(found, files, sections),
        **_costs(records, found, context, sections),
        "pictures": sections.made("figures", "pictures", lambda: list(_pictures(study, files)), []),
        "tables": list(_tables(files, sections)),
        "faults": defaultdict(list, sections.faults),
    }
    return str(_environment().get_template(TEMPLATE).render(values)).encode()


def _warnings(study: Study, records: Sequence[TrialRecord], sections: Sections) -> dict[str, Any]:
    def lines() -> list[Markup]:
        remarks = [*few_replicates(records, study.report), *caution_remarks(records, study)]
        return [inline(line) for line in remarks]

    def failed() -> list[Markup]:
        return [Markup("{}: {}").format(inline(head), error) for head, error in failures(records)]

    return {
        "warnings": sections.made("warnings", "the warnings", lines, []),
        "failures": sections.made("warnings", "the list of failures", failed, []),
    }


def _leakage(
    study: Study, finished: Sequence[TrialRecord], found: Findings, sections: Sections
) -> dict[str, Any]:
    """Return the sections that are about the ranking's metric."""
    parts: dict[str, Any] = dict.fromkeys(("settings", "tradeoff", "front"))
    parts |= {"meaning": [], "maps": [], "axes": []}
    ranked, axes, objectives = found.ranked, found.axes, study.search.objectives
    if ranked is None:
        return parts
    metric, sign = ranked.leakage, ranked.sign
    made = sections.made
    parts["meaning"] = made("settings", "what its columns mean", lambda: _meanings(ranked, study), [])
    make_table = partial(content.settings_table, ranked, axes, list(objectives), found.seconds)
    parts["settings"] = made("settings", "the table of settings", make_table, None)
    pareto = made("tradeoff", "the Pareto front", lambda: front(ranked), Front([], ""))
    chart = partial(content.tradeoff_chart, ranked, pareto, axes)
    parts["tradeoff"] = made("tradeoff", "the chart", chart, None)
    if pareto.chosen:
        table = partial(content.front_table, ranked, pareto.chosen, axes)
        parts["front"] = made("tradeoff", "the table of the front", table, None)
    maps = partial(content.heat_tables, finished, metric, sign, axes)
    parts["maps"] = made("figures", "heat maps", maps, [])
    charts = partial(content.axis_charts, finished, metric, sign, study.report, axes)
    parts["axes"] = made("axes", "charts of axes", charts, [])
    return parts


def _importance(found: Findings, files: Mapping[str, bytes], sections: Sections) -> dict[str, Any]:
    def lines() -> list[tuple[Importance, str]]:
        return [*zip(found.importance, map(words.axis_line, found.importance), strict=True)]

    def charts() -> list[Chart]:
        return [chart for one in found.importance if (chart := content.importance_chart(one))]

    def table() -> Table | None:
        name = "importance.csv"
        title = "Shares of the variance"
        return content.csv_table("importance-csv", title, files[name], without=()) if name in files else None

    return {
        "importance": sections.made(IMPORTANCE, "words on axes", lines, []),
        "importance_charts": sections.made(IMPORTANCE, "charts of shares", charts, []),
        "importance_table": sections.made(IMPORTANCE, "the table of shares", table, None),
    }


def _costs(
    records: Sequence[TrialRecord], found: Findings, context: Context, sections: Sections
) -> dict[str, Any]:
    seconds, made = found.seconds, sections.made
    spent = made(COSTS, "the costs of stages", partial(spent_by_stage, records, found.artifacts), [])
    expected = made(COSTS, "the forecast", partial(kept_compared, context.forecast, found.artifacts), [])
    return {
        "spent": made(COSTS, "their table", partial(content.spent_table, spent, seconds), None)
        if spent
        else None,
        "spent_words": made(COSTS, "their sum", partial(content.spent_words, spent, seconds), ""),
        "expected_words": made(COSTS, "its words", partial(forecast_words, expected, seconds[1]), ""),
        "expected": made(COSTS, "its table", partial(content.forecast_grid, expected, seconds[1]), None)
        if total(expected).num_forecast
        else None,
    }


def _tables(files: Mapping[str, bytes], sections: Sections) -> Iterator[Table]:
    """Yield the report's tables that the page shows."""
    for name, title in TABLES.items():
        if f"{name}.csv" in files:
            make = partial(content.csv_table, f"{name}-csv", title, files[f"{name}.csv"])
            table = sections.made("tables", f"{name}.csv", make, None)
            if table is not None:
                yield table


def _counts(records: Sequence[TrialRecord], finished: Sequence[TrialRecord], num_missing: int) -> str:
    status = [record.status for record in records]
    trials = "1 trial" if len(records) == 1 else f"{len(records)} trials"
    missing = f"; {num_missing} points are not stored and not on this page" if num_missing else ""
    return (
        f"{trials}: {len(finished)} finished, {status.count('failed')} failed, "
        f"{status.count('pruned')} pruned{missing}"
    )


def _meanings(ranked: Ranking, study: Study) -> list[tuple[str, str]]:
    """Return the columns of the settings that are about metrics, with unit and direction."""
    names = dict.fromkeys((ranked.leakage, *study.search.objectives))
    judges = content.judge_columns(ranked)
    found = [(name, MetricName.parse(name).describe()) for name in names]
    return found + [(title, f"{name}, {MetricName.parse(name).describe()}") for title, name in judges.items()]


def _single_axes(
    finished: Sequence[TrialRecord], axes: Sequence[str], repeated: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the swept axes that have one value, with it."""
    known = {axis: value for one in finished for axis, value in one.axes.items()}
    return [(axis, str(value)) for axis, value in known.items() if axis not in (*axes, *repeated)]


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

"""Report files: tables as CSV, parquet and LaTeX, plots, heat maps and the image grid, from trial records.

Everything is a function of the records, so the same sweep gives the same bytes. Costs and times are left out
of the results table on purpose: they differ from run to run, as `costs.csv` does, which has nothing else.
"""

import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from orchestrator.config.report import Histogram, Report, RobustnessCurve
from orchestrator.config.study import Study
from orchestrator.metrics.bounds import ATTACK, IMAGES, bound_of
from orchestrator.metrics.names import CLASS, MetricName
from orchestrator.report.against_forecast import forecast_table, kept_compared, total
from orchestrator.report.bounds import bound_rows, bounds_table, without_label
from orchestrator.report.cautions import cautions
from orchestrator.report.comparison import comparison_table, orderings_table
from orchestrator.report.curves import costs_table, curve_table, draw_curve, draw_histogram, histogram_table
from orchestrator.report.delta import delta_table
from orchestrator.report.equal_utility import equal_table
from orchestrator.report.heatmaps import heat_maps
from orchestrator.report.held import caption, held_column, marks, without_empty
from orchestrator.report.image_grid import draw_grid
from orchestrator.report.importance import Searched, importance_table
from orchestrator.report.judges import judges_table, narrow
from orchestrator.report.means import DEFAULTS, mean_and_half
from orchestrator.report.page.findings import COSTS, IMPORTANCE, Findings, findings
from orchestrator.report.page.page import PAGE, Context, report_page
from orchestrator.report.pareto import pareto_front
from orchestrator.report.per_image import PerImage
from orchestrator.report.pictures import drawn
from orchestrator.report.sections import Sections
from orchestrator.report.settings import by_setting, finished_trials, present_values
from orchestrator.report.skill import (
    UNBEATEN,
    at_chance,
    best_lines,
    summary_metrics,
    unbeaten_column,
)
from orchestrator.report.statistics import WIDE, half_column
from orchestrator.report.variance import variance_table
from orchestrator.store.artifacts import Artifacts, ReadOnce
from orchestrator.sweep.adversary import BEYOND, HELD
from orchestrator.sweep.records import TrialRecord

logger = logging.getLogger(__name__)

DIGITS = 6  # significant digits of the CSV
NOTE = "note.md"  # what was swept, the best trial and what not to trust: MLflow's note of the sweep
MARKS = (HELD, BEYOND, UNBEATEN)  # columns of the summary that are there if some setting is marked
CONTEXT = Context()
TABLES, FIGURES = "tables", "figures"
Part = tuple[str, str, Callable[[], dict[str, bytes]]]
"""Section of the page, the part's name, and what makes its files."""
SHOWN_DIGITS = 4  # of LaTeX tables
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # at the start of a row it would be an option of the line break before
        "*": "{*}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def results_table(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return one row for each trial in the study's order: name, swept axes, status, metrics, error."""
    rows = []
    for record in sorted(records, key=lambda one: one.index):
        row: dict[str, object] = {"trial": record.name, **record.axes, "status": record.status}
        row |= held_column([record])
        row |= dict(record.metrics) if record.status == "finished" else {}
        row |= {"failed_stage": record.failed_stage, "error": record.error}
        rows.append(row)
    last = ["failed_stage", "error"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["trial", "status", *last])
    table = without_empty(table)
    return table[[name for name in table.columns if name not in last] + last]


def csv(table: pd.DataFrame) -> bytes:
    """Return the table as CSV with six significant digits."""
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n").encode()


def parquet(table: pd.DataFrame) -> bytes:
    """Return the table as parquet; axes with mixed types become text."""
    mixed = {
        name: str
        for name in table.columns
        if table[name].map(type).nunique() > 1 and table[name].dtype == object
    }
    buffer = io.BytesIO()
    table.astype(mixed).to_parquet(buffer, index=False)
    return buffer.getvalue()


def latex(table: pd.DataFrame) -> bytes:
    """Return a LaTeX tabular with booktabs rules, to be read by `input`; means and half intervals share a
    column."""
    halves = {half_column(name) for name in table.columns}
    names = [name for name in table.columns if name not in halves]
    sides = "".join("r" if pd.api.types.is_numeric_dtype(table[name]) else "l" for name in names)
    lines = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", _latex_row(map(_escape, names)), r"\midrule"]
    for row in table.to_dict("records"):
        lines.append(_latex_row(_latex_cell(row[name], row.get(half_column(name))) for name in names))
    if below := caption(names):
        lines += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{l}}{{{_escape(below)}}} \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]).encode()


def summary_table(
    records: Sequence[TrialRecord],
    metrics: Sequence[str],
    report: Report = DEFAULTS,
    images: PerImage | None = None,
) -> pd.DataFrame:
    """Return means over replicates and half of their 95 % interval, classes held fixed; one seed has none.

    A setting whose attack is no better than a yardstick, or a judge's floor, is marked, in a column that is
    there if one is; `images` has the values by class that the latter are compared by. Class inference has its
    ceiling and its floor as rows below the attacks'.
    """
    settings = by_setting(records, report.repeats)
    bounds = bound_rows(settings, partial(_bounds_among, metrics), None, report)
    rows: list[dict[str, object]] = []
    for setting, members in settings.items():
        row: dict[str, object] = {**dict(setting), IMAGES: ATTACK}
        row |= {"seeds": len(members)} | marks(members) | unbeaten_column(members, images, report)
        for metric in metrics:
            row[metric], row[half_column(metric)] = mean_and_half(members, metric, report=report)
        rows.append(row)
    rows += [dict.fromkeys(MARKS, "") | row for row in bounds]
    return without_label(without_empty(pd.DataFrame(rows), MARKS)) if rows else pd.DataFrame()


def _bounds_among(metrics: Sequence[str], bound: str) -> dict[str, str]:
    """Return those metrics of class inference that a bound has -> its metric."""
    return {name: metric for name, metric in bound_of(CLASS, bound).items() if name in metrics}


def with_reasons(summary: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the summary with the reason in the column of each metric that no finished trial has.

    Raise `Refused` for an unknown metric.
    """
    missing = [name for name in metrics if name in summary and summary[name].isna().all()]
    return summary.assign(**{name: _why_missing(name) for name in missing})


def report_files(
    study: Study,
    records: Sequence[TrialRecord],
    store: Artifacts,
    *,
    context: Context = CONTEXT,
    searched: Searched | None = None,
) -> dict[str, bytes]:
    """Return the report's files by path; `searched` is what a search's model says of its axes.

    A file or a section that cannot be made is left out, and `note.md` and the page have a line on it. Raise
    `Refused` if the study names an unknown metric.
    """
    store = ReadOnce(store.blobs)
    metrics, images, sections = summary_metrics(study, records), PerImage(store), Sections()
    files = {
        "results.csv": csv(results_table(records)),
        "results.parquet": parquet(results_table(records)),
        "study.yaml": study.yaml().encode(),
        **_both("summary", with_reasons(summary_table(records, metrics, study.report, images), metrics)),
    }
    found = findings(study, records, store, images, sections, searched)
    for section, part, make in (
        *_comparisons(study, records, images),
        *_curves(study, records, images, store),
        *_others(study, records, images, metrics),
        *_figures(study, records, store),
        *_found(found, context),
    ):
        nothing: dict[str, bytes] = {}
        files |= sections.made(section, part, make, nothing)
    files[NOTE] = b""  # written last: it has the page's faults too
    page = drawn(PAGE, report_page, study, records, found, files, sections, context)
    files |= {NOTE: note(study, records, found.answer, sections.lines).encode()}
    return files if page is None else files | {PAGE: page}


def _comparisons(study: Study, records: Sequence[TrialRecord], images: PerImage) -> Iterator[Part]:
    def judges() -> dict[str, bytes]:
        table = judges_table(records, images, study.report)
        wide = [column for column in table.columns if column not in narrow(list(table.columns))]
        return _both("judges", table, csv_only=wide) if len(table) else {}

    if study.report.printed:
        yield TABLES, "comparison.csv", lambda: _both("comparison", comparison_table(study, records))
    yield TABLES, "judges.csv", judges
    for name, is_asked, make in (
        ("orderings", study.report.orderings, orderings_table),
        ("delta", study.report.delta, delta_table),
    ):
        if is_asked:
            yield TABLES, f"{name}.csv", partial(_narrow, name, make, study, records, images)


def _narrow(name: str, make: Callable[..., pd.DataFrame], *given: Any) -> dict[str, bytes]:
    return _both(name, make(*given), csv_only=WIDE)


def _curves(
    study: Study, records: Sequence[TrialRecord], images: PerImage, store: Artifacts
) -> Iterator[Part]:
    def curve_files(curve: RobustnessCurve) -> dict[str, bytes]:
        table = curve_table(curve, records, images, study.report)
        return _drawn(f"curve-{curve.name}", table, partial(draw_curve, curve))

    def histogram_files(one: Histogram) -> dict[str, bytes]:
        table = histogram_table(one, records, images, study.report.repeats)
        return _drawn(f"histogram-{one.name}", table, partial(draw_histogram, one))

    for curve in study.report.curves:
        yield FIGURES, f"curve-{curve.name}", partial(curve_files, curve)
        if curve.reference is not None:
            name = f"equal-{curve.name}"
            yield (
                TABLES,
                f"{name}.csv",
                partial(_narrow, name, equal_table, curve, records, images, study.report),
            )
    for one in study.report.histograms:
        yield FIGURES, f"histogram-{one.name}", partial(histogram_files, one)
    if study.report.costs:
        make = partial(_narrow, "costs", costs_table, study.report.costs, records, store)
        yield TABLES, "costs.csv", make


def _others(
    study: Study, records: Sequence[TrialRecord], images: PerImage, metrics: Sequence[str]
) -> Iterator[Part]:
    def variance() -> dict[str, bytes]:
        table = variance_table(study.report, metrics, records, images)
        return _both("variance", table, csv_only=WIDE) if len(table) else {}

    def bounds() -> dict[str, bytes]:
        table = bounds_table(records, images, study.report)
        return _both("bounds", table) if len(table) else {}

    def warned() -> dict[str, bytes]:
        found = at_chance(records)
        return {"warnings.csv": csv(pd.DataFrame([asdict(one) for one in found]))} if found else {}

    def pareto() -> dict[str, bytes]:
        return {"pareto.csv": csv(results_table(pareto_front(records, study.search.objectives)))}

    yield TABLES, "variance.csv", variance
    yield TABLES, "bounds.csv", bounds
    yield TABLES, "warnings.csv", warned
    if len(study.search.objectives) > 1:
        yield TABLES, "pareto.csv", pareto


def _figures(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> Iterator[Part]:
    def figure() -> dict[str, bytes]:
        picture = drawn("figure.png", draw_grid, study, records, store)
        return {} if picture is None else {"figure.png": picture}

    if finished_trials(records):
        maps = partial(heat_maps, records, study.objective[0], study.report.repeats)
        yield FIGURES, "heat maps", maps
        if study.report.rows:
            yield FIGURES, "figure.png", figure


def _found(found: Findings, context: Context) -> Iterator[Part]:
    def importance() -> dict[str, bytes]:
        return {"importance.csv": csv(importance_table(found.importance))} if found.importance else {}

    def forecast() -> dict[str, bytes]:
        rows = kept_compared(context.forecast, found.artifacts)
        return _both("forecast", forecast_table(rows)) if total(rows).num_forecast else {}

    yield IMPORTANCE, "importance.csv", importance
    yield COSTS, "forecast.csv", forecast


def _drawn(name: str, table: pd.DataFrame, draw: Callable[[pd.DataFrame], bytes]) -> dict[str, bytes]:
    if table.empty:
        logger.warning('event=figure_left_out name=%s reason="no finished trial has what it shows"', name)
        return {}
    picture = drawn(f"{name}.png", draw, table)
    return {f"{name}.csv": csv(table)} | ({} if picture is None else {f"{name}.png": picture})


def _both(name: str, table: pd.DataFrame, *, csv_only: Sequence[str] = ()) -> dict[str, bytes]:
    files = {f"{name}.csv": csv(table)}
    shown = table.drop(columns=list(csv_only), errors="ignore")
    return files | ({f"{name}.tex": latex(shown)} if len(shown.columns) else {})


def _why_missing(metric: str) -> str:
    needs = MetricName.parse(metric).metric.needs
    return f"needs evaluation.networks.{needs}" if needs else "not measured"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(value: object, half: object) -> str:
    """Write a number in math mode, with half its interval; what is missing stays empty."""
    if not isinstance(value, float):
        return _escape(str(value))
    if math.isnan(value):
        return ""
    has_half = isinstance(half, float) and not math.isnan(half)
    text = _latex_number(value) + (rf" \pm {_latex_number(float(str(half)))}" if has_half else "")
    return f"${text}$"


def _latex_number(value: float) -> str:
    if math.isinf(value):
        return r"\infty" if value > 0 else r"-\infty"
    mantissa, _, exponent = f"{value:.{SHOWN_DIGITS}g}".partition("e")
    return mantissa + (rf" \cdot 10^{{{int(exponent)}}}" if exponent else "")


def _escape(text: str) -> str:
    return text.translate(ESCAPES)


def note(
    study: Study, records: Sequence[TrialRecord], answer: Sequence[str], faults: Sequence[str] = ()
) -> str:
    """Return Markdown for the parent run: the page's answer, what was swept, and what not to trust.

    The answer comes first: MLflow's page of a run shows the first few lines and hides the rest behind a link.
    `faults`: what could not be made of the report.
    """
    records = sorted(records, key=lambda one: one.index)
    lines = [f"{place}. {line}" for place, line in enumerate(answer, start=1)]
    lines += ["", f"**{study.study}**: {study.about}", "", "| axis | values |", "| --- | --- |"]
    axes = dict.fromkeys(axis for record in records for axis in record.axes)
    shown = {axis: dict.fromkeys(map(str, present_values(axis, records))) for axis in axes} or study.axes()
    lines += [f"| {axis} | {', '.join(map(str, values))} |" for axis, values in shown.items()]
    if best := best_lines(study, records):
        lines += ["", *best]
    lines += ["", *(f"- **not in this report**: {line}" for line in faults), *cautions(records, study)]
    return "\n".join([*lines, "", f"Objectives: `{json.dumps(study.search.objectives)}`"])

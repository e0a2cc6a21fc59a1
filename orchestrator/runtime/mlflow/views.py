"""Saved views and links for MLflow's pages, as plain JSON. Needs no server.

A saved view is the experiment tag `mlflow.sharedViewState.<id>`, an internal format of MLflow's pages as of
version 3.17. It is best effort: a page that does not know it shows its usual charts.
"""

import hashlib
import json
import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.config.base import Refused
from orchestrator.metrics.floors import OVER_FLOOR
from orchestrator.metrics.names import CLASS, PARTS, MetricName, is_by_others
from orchestrator.metrics.skill import skill_name
from orchestrator.sweep.records import SweepRecord, TrialRecord

Part = tuple[str, list[dict[str, Any]]]
"""Heading of a section and its charts."""

TAG_PREFIX = "mlflow.sharedViewState."
OURS = "inversion-"  # how keys of these views begin; others were saved by users
KNOWN_VERSIONS = ("3.17",)  # releases whose pages were looked at with these views
MAX_TAG = 20_000  # characters MLflow keeps in an experiment tag
MAX_VIEWS = 32  # of ours in an experiment: with 40 in all the pages refuse to save another one
WORKFLOW = "machine_learning"  # else the pages open on their side for language models
MAX_GROUPS = 12  # bars that a reader tells apart; a heat map shows more settings
MAX_BARS = 6  # charts of a view
MAX_PICTURED = 10  # trials whose pictures the pages show
MAX_CHARTS = 12  # of curves or pictures in a view
PICTURED = "inversion.pictured"  # place of a trial in the view `pictures`, with the reason
AUXILIARY = "auxiliary.kind"  # a setting of every trial
ACCURACIES = ("target/accuracy", "judge/accuracy")
DURATION = "attributes.`Duration`"


@dataclass(frozen=True)
class Shown:
    """What the trials of a sweep have values, curves and images under, and what its parent run has."""

    metrics: Sequence[str]  # final values
    curves: Sequence[str]  # values over epochs
    images: Sequence[str]  # keys of image grids
    maps: Sequence[str] = ()  # keys of the parent run's heat maps
    num_settings: int = 0  # that differ in more than replicates


@dataclass(frozen=True)
class View:
    """One saved view."""

    key: str
    name: str
    state: Mapping[str, Any]
    mode: str | None = "CHART"  # None opens as a table

    def tag(self, created_ms: int) -> tuple[str, str]:
        """Return the experiment tag's name and value; fixed times make a second writing change nothing."""
        state = json.dumps(self.state, separators=(",", ":"))
        envelope = {"name": self.name, "createdAt": created_ms, "updatedAt": created_ms, "state": state}
        return TAG_PREFIX + self.key, json.dumps(envelope, separators=(",", ":"))


def sweep_filter(sweep: SweepRecord, kind: str = "trial") -> str:
    """Return the search that matches the runs of one sweep: each `trial`, or the `sweep` as a whole."""
    return f"tags.`inversion.sweep` = \"{sweep.key}\" and tags.`inversion.kind` = '{kind}'"


def order_key(sweep: SweepRecord) -> str:
    """Return the column of the objective; pages sorted by it list trials flat, not under their parent."""
    return f"metrics.`{sweep.objective}`"


def views(sweep: SweepRecord, shown: Shown) -> list[View]:
    """Return the sweep's views that MLflow has room for: `table`, `means` where replicates are swept,
    `pictures` where there are some, and `trials`.
    """
    found = [_table(sweep, shown)]
    others = [axis for axis in swept(sweep) if axis not in sweep.replicates]
    if len(others) < len(swept(sweep)) and others:
        found.append(_means(sweep, shown, others))
    if shown.images:
        found.append(_pictures(sweep, shown))
    found.append(_trials(sweep, shown))
    return [view for view in found if len(view.tag(sweep.started_ms)[1]) <= MAX_TAG]


def outdated(tags: Mapping[str, str], kept: Collection[str], study: str) -> list[str]:
    """Return the names of the experiment tags to delete, the oldest of our views beyond `MAX_VIEWS`.

    `kept`: names of tags that stay. Views that users saved count as none of ours.
    """
    ours = {name: _created_ms(value) for name, value in tags.items() if _is_ours(name, value, study)}
    oldest = sorted(ours.keys() - set(kept), key=lambda name: (ours[name], name))
    return oldest[: max(0, len(ours.keys() | set(kept)) - MAX_VIEWS)]


def _is_ours(name: str, value: str, study: str) -> bool:
    if not name.startswith(TAG_PREFIX):
        return False
    of_earlier = (f'"name":"{study}: {kind}"' for kind in ("trials", "means"))
    return name.startswith(TAG_PREFIX + OURS) or any(one in value[: len(study) + 40] for one in of_earlier)


def _created_ms(value: str) -> int:
    try:
        return int(json.loads(value)["createdAt"])
    except (ValueError, KeyError, TypeError):
        return 0


def swept(sweep: SweepRecord) -> list[str]:
    """Return the axes with more than one value."""
    return [axis for axis, values in sweep.axes.items() if len(values) > 1]


def runs_fragment(experiment_id: str) -> str:
    """Return the part of an address after the server: an experiment's runs. The pages' own list of
    experiments leads to their side for language models."""
    return f"/#/experiments/{experiment_id}/runs?workflowType={WORKFLOW}"


def fragments(
    sweep: SweepRecord, experiment_id: str, parent_id: str, found: Sequence[View]
) -> dict[str, str]:
    """Return label -> the part of an address after the server: the answer, saved views, the sweep's own page.

    Each leads into the experiment, on the pages' side for trained models.
    """
    page, own = f"/#/experiments/{experiment_id}/runs?", f"/#/experiments/{experiment_id}/runs/{parent_id}"
    links = {"answer": f"{own}/artifacts/report/report.html?workflowType={WORKFLOW}"}
    for view in found:  # a search in the address would win over the saved view, so these links carry none
        mode = {} if view.mode is None else {"compareRunsMode": view.mode}
        query = {"workflowType": WORKFLOW} | mode | {"viewStateShareKey": view.key}
        links[view.name.removeprefix(f"{sweep.study}: ")] = page + urlencode(query, quote_via=quote)
    return links | {"report": f"{own}?workflowType={WORKFLOW}"}


def links_note(links: Mapping[str, str]) -> str:
    """Return Markdown with the links for the parent run's note, which is on one of these pages itself."""
    return " - ".join(f"[{label}]({link[1:]})" for label, link in links.items() if label != "report")


def pictured(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Return trial key -> its place among the pictures, with the reason: the trial that leaks most by the
    objective, the one that leaks least, the strongest of each further auxiliary kind, the next strongest.
    """
    valued = [
        trial
        for trial in trials
        if trial.status == "finished" and trial.images and math.isfinite(_value(sweep, trial))
    ]
    ordered = sorted(valued, key=lambda one: (_value(sweep, one), one.index), reverse=_leaks_up(sweep))
    found: dict[str, str] = {}
    reasons = [("strongest", trial) for trial in ordered[:1]] + [("weakest", trial) for trial in ordered[-1:]]
    reasons += [(str(trial.params.get(AUXILIARY, "")), trial) for trial in ordered]
    seen: set[str] = set()
    for reason, trial in reasons:
        kind = str(trial.params.get(AUXILIARY, ""))
        if trial.key in found or (reason == kind and kind in seen) or not reason:
            continue
        seen.add(kind)
        found[trial.key] = f"{len(found) + 1:02d} {reason}"
    rest = [trial for trial in ordered if trial.key not in found]
    found |= {trial.key: f"{len(found) + place:02d} next" for place, trial in enumerate(rest, start=1)}
    return dict(list(found.items())[:MAX_PICTURED])


def _value(sweep: SweepRecord, trial: TrialRecord) -> float:
    return trial.metrics.get(sweep.objective, math.nan)


def _leaks_up(sweep: SweepRecord) -> bool:
    """Return whether more of the objective is more leakage; of one that is no leakage, whether more is
    better."""
    try:
        leaks = MetricName.parse(sweep.objective).metric.leaks
    except Refused:
        return sweep.maximize
    return sweep.maximize if leaks not in ("up", "down") else leaks == "up"


def _key(sweep: SweepRecord, kind: str) -> str:
    return OURS + hashlib.sha256(f"{sweep.key}/{kind}".encode()).hexdigest()[:32]


def _table(sweep: SweepRecord, shown: Shown) -> View:
    wanted = dict.fromkeys([sweep.objective, *sweep.metrics, *ACCURACIES])
    columns = [name for name in wanted if name in shown.metrics]
    return _view(sweep, "table", [], columns=columns) if columns else _view(sweep, "table", [])


def _means(sweep: SweepRecord, shown: Shown, others: Sequence[str]) -> View:
    """Bars of up to `MAX_GROUPS` settings; of more, the heat maps of the parent run."""
    if shown.num_settings > MAX_GROUPS and shown.maps:
        parts = [("1. Means by two axes", [_images(name) for name in shown.maps[:MAX_CHARTS]])]
        return _view(sweep, "means", parts, kind="sweep")
    grouping = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": axis} for axis in others],
    }
    parts = [("1. Sweep", [_bar(name) for name in _first(sweep, shown.metrics)])]
    if shown.curves:
        parts.append(("2. Learning curves", [_line(name) for name in shown.curves[:MAX_CHARTS]]))
    return _view(sweep, "means", [*parts, *_judges(shown)], grouping=grouping)


def _pictures(sweep: SweepRecord, shown: Shown) -> View:
    """Pictures of the trials that are tagged for it; the pages show the rows of a table from the last to the
    first, hence the descending order."""
    parts = [("1. Reconstructions", [_images(name) for name in shown.images[:MAX_CHARTS]])]
    return _view(sweep, "pictures", parts, order=f"tags.`{PICTURED}`")


def _trials(sweep: SweepRecord, shown: Shown) -> View:
    """Parallel coordinates of every trial; bars and curves of the first in the order of the objective, as
    many as can be told apart."""
    parts = [("1. Sweep", [_parallel(sweep), *(_bar(name) for name in _first(sweep, shown.metrics))])]
    if shown.curves:
        parts.append(("2. Learning curves", [_line(name) for name in shown.curves[:MAX_CHARTS]]))
    view = _view(sweep, "trials", [*parts, *_judges(shown)], columns=shown.metrics)
    return replace(view, state={**view.state, "runsHiddenMode": "FIRST_20_RUNS"})


def _judges(shown: Shown) -> list[Part]:
    others = [name for name in shown.metrics if is_by_others(name)]
    return [("3. Judges", [_bar(name) for name in others[:MAX_CHARTS]])] if others else []


def _view(
    sweep: SweepRecord,
    name: str,
    parts: Sequence[Part],
    *,
    kind: str = "trial",
    columns: Sequence[str] = (),
    grouping: Mapping[str, Any] | None = None,
    order: str | None = None,
) -> View:
    """Return a view of charts in sections, or without any a table; `columns`: metrics beside the axes.

    Charts take the room of the list of runs, which a handle opens: beside it cards cut pictures, axes and
    names on a screen of 1280 pixels, and the list cuts names too.
    """
    charts, sections = _charts(sweep, name, parts)
    chosen = "" if order is None else f" and {order} LIKE '%'"
    axes = [f"params.`{axis}`" for axis in sweep.axes]
    place = [f"tags.`{PICTURED}`"] if order else []
    shown = [*place, *axes, *(f"metrics.`{metric}`" for metric in columns), *([] if parts else [DURATION])]
    state = {
        "searchFilter": sweep_filter(sweep, kind) + chosen,
        "orderByKey": order or order_key(sweep),
        "orderByAsc": order is None and not sweep.maximize,
        "selectedColumns": shown[:40],
        "runsHiddenMode": "SHOW_ALL",  # the pages' default hides every run after the tenth
        "runListHidden": bool(parts),
        "groupBy": grouping,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }
    return View(_key(sweep, name), f"{sweep.study}: {name}", state, "CHART" if parts else None)


def _charts(
    sweep: SweepRecord, view: str, parts: Sequence[Part]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return chart cards and the sections that hold them; the pages sort sections by name."""
    charts, sections = [], []
    for title, cards in parts:
        section = _uuid(sweep, f"{view}/{title}")
        sections.append({"uuid": section, "name": title, "display": True, "isReordered": False})
        charts += [
            card
            | {
                "uuid": _uuid(sweep, f"{view}/{title}/{place}"),
                "metricSectionId": section,
                "deleted": False,
                "isGenerated": False,
            }
            for place, card in enumerate(cards)
        ]
    return charts, sections


def _first(sweep: SweepRecord, metrics: Sequence[str]) -> list[str]:
    """Return the metrics that have bars: objective, skill, accuracies, and what the report names."""
    skills = [*(str(skill_name(part)) for part in PARTS), OVER_FLOOR, str(skill_name(CLASS))]
    wanted = dict.fromkeys([sweep.objective, *skills, *ACCURACIES, *sweep.metrics])
    return [name for name in wanted if name in metrics or name == sweep.objective][:MAX_BARS]


def _parallel(sweep: SweepRecord) -> dict[str, Any]:
    axes = swept(sweep) or list(sweep.axes)
    return {
        "type": "PARALLEL",
        "selectedParams": axes,
        "selectedMetrics": [sweep.objective],
        "showAllRuns": True,
        "runsCountToCompare": 1000,
    }


def _bar(metric: str) -> dict[str, Any]:
    return {
        "type": "BAR",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "runsCountToCompare": 100,
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "lineSmoothness": 0,
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "runsCountToCompare": 100,
    }


def _images(key: str) -> dict[str, Any]:
    return {
        "type": "IMAGE",
        "imageKeys": [key],
        "step": 0,
        "showRunParams": False,
        "displayName": key,
        "runsCountToCompare": 100,
    }


def _uuid(sweep: SweepRecord, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{sweep.key}/{name}"))

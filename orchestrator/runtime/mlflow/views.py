"""Saved views and links for MLflow's pages, as plain JSON. Needs no server.

A saved view is the experiment tag `mlflow.sharedViewState.<id>`, an internal format of MLflow's pages as of
version 3.17. It is best effort: a page that does not know it shows its usual charts.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.metrics.floors import OVER_FLOOR
from orchestrator.metrics.names import CLASS, PARTS, is_by_others
from orchestrator.metrics.skill import skill_name
from orchestrator.sweep.records import SweepRecord

TAG_PREFIX = "mlflow.sharedViewState."
KNOWN_VERSIONS = ("3.17",)  # releases whose pages were looked at with these views
MAX_TAG = 20_000  # characters MLflow keeps in an experiment tag
WORKFLOW = "machine_learning"  # else the pages open on their side for language models
MAX_CHARTS = 12  # of one kind in a view; the pages add charts of other metrics by themselves


@dataclass(frozen=True)
class Shown:
    """The names that the trials of a sweep have values, curves and images under."""

    metrics: Sequence[str]  # final values
    curves: Sequence[str]  # values over epochs
    images: Sequence[str]  # keys of image grids


@dataclass(frozen=True)
class View:
    """One saved view."""

    key: str
    name: str
    state: Mapping[str, Any]

    def tag(self, created_ms: int) -> tuple[str, str]:
        """Return the experiment tag's name and value; fixed times make a second writing change nothing."""
        state = json.dumps(self.state, separators=(",", ":"))
        envelope = {"name": self.name, "createdAt": created_ms, "updatedAt": created_ms, "state": state}
        return TAG_PREFIX + self.key, json.dumps(envelope, separators=(",", ":"))


def sweep_filter(sweep: SweepRecord) -> str:
    """Return the search that matches the trials of one sweep."""
    return f"tags.`inversion.sweep` = \"{sweep.key}\" and tags.`inversion.kind` = 'trial'"


def order_key(sweep: SweepRecord) -> str:
    """Return the column of the objective; pages sorted by it list trials flat, not under their parent."""
    return f"metrics.`{sweep.objective}`"


def views(sweep: SweepRecord, shown: Shown) -> list[View]:
    """Return the sweep's views: one of every trial, and where replicates are swept one that averages them."""
    found = [View(_key(sweep, "trials"), f"{sweep.study}: trials", _state(sweep, shown, None))]
    others = [axis for axis in swept(sweep) if axis not in sweep.replicates]
    if len(others) < len(swept(sweep)) and others:
        grouping = {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": axis} for axis in others],
        }
        found.append(View(_key(sweep, "means"), f"{sweep.study}: means", _state(sweep, shown, grouping)))
    return [view for view in found if len(view.tag(sweep.started_ms)[1]) <= MAX_TAG]


def swept(sweep: SweepRecord) -> list[str]:
    """Return the axes with more than one value."""
    return [axis for axis, values in sweep.axes.items() if len(values) > 1]


def fragments(
    sweep: SweepRecord, experiment_id: str, parent_id: str, found: Sequence[View]
) -> dict[str, str]:
    """Return label -> the part of an address after the server: the answer, saved views, table, the sweep's
    own page."""
    page, own = f"/#/experiments/{experiment_id}/runs?", f"/#/experiments/{experiment_id}/runs/{parent_id}"
    # A search in the address would win over the saved view, so these links carry none.
    links = {"answer": f"{own}/artifacts/report/report.html?workflowType={WORKFLOW}"} | {
        view.name.removeprefix(f"{sweep.study}: "): page
        + _query({"workflowType": WORKFLOW, "compareRunsMode": "CHART", "viewStateShareKey": view.key})
        for view in found
    }
    links["table"] = page + _query(
        {
            "workflowType": WORKFLOW,
            "searchFilter": sweep_filter(sweep),
            "orderByKey": order_key(sweep),
            "orderByAsc": str(not sweep.maximize).lower(),
        }
    )
    links["report"] = f"{own}?workflowType={WORKFLOW}"
    return links


def _query(values: Mapping[str, str]) -> str:
    return urlencode(values, quote_via=quote)


def _key(sweep: SweepRecord, kind: str) -> str:
    return hashlib.sha256(f"{sweep.key}/{kind}".encode()).hexdigest()[:32]


def _state(sweep: SweepRecord, shown: Shown, grouping: Mapping[str, Any] | None) -> dict[str, Any]:
    charts, sections = _charts(sweep, shown, grouped=grouping is not None)
    columns = [f"params.`{axis}`" for axis in sweep.axes] + [f"metrics.`{name}`" for name in shown.metrics]
    return {
        "searchFilter": sweep_filter(sweep),
        "orderByKey": order_key(sweep),
        "orderByAsc": not sweep.maximize,
        "selectedColumns": columns[:40],
        "runsHiddenMode": "SHOW_ALL",  # the pages' default hides every run after the tenth
        "groupBy": grouping,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def _charts(
    sweep: SweepRecord, shown: Shown, *, grouped: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return chart cards and the sections that hold them; the pages sort sections by name."""
    overview = [_parallel(sweep)] + [_bar(name) for name in _first(sweep.objective, shown.metrics)]
    parts: list[tuple[str, list[dict[str, Any]]]] = [("1. Sweep", overview)]
    if shown.images and not grouped:
        parts.append(("2. Reconstructions", [_images(name) for name in shown.images[:MAX_CHARTS]]))
    if shown.curves:
        parts.append(("3. Learning curves", [_line(name) for name in shown.curves[:MAX_CHARTS]]))
    if others := [name for name in shown.metrics if is_by_others(name)]:
        parts.append(("4. Judges", [_bar(name) for name in others[:MAX_CHARTS]]))
    charts, sections = [], []
    for title, cards in parts:
        section = _uuid(sweep, title)
        sections.append({"uuid": section, "name": title, "display": True, "isReordered": False})
        charts += [
            card
            | {
                "uuid": _uuid(sweep, f"{title}/{place}"),
                "metricSectionId": section,
                "deleted": False,
                "isGenerated": False,
            }
            for place, card in enumerate(cards)
        ]
    return charts, sections


def _first(objective: str, metrics: Sequence[str]) -> list[str]:
    skills = [*(str(skill_name(part)) for part in PARTS), OVER_FLOOR, str(skill_name(CLASS))]
    return list(dict.fromkeys([objective, *(name for name in skills if name in metrics), *metrics]))[
        :MAX_CHARTS
    ]


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

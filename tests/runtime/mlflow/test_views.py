"""Saved views and links as MLflow's pages read them."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.runtime.mlflow import views as module
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from orchestrator.runtime.mlflow.views import (
    MAX_VIEWS,
    Shown,
    View,
    fragments,
    outdated,
    pictured,
    sweep_filter,
    views,
)
from orchestrator.sweep.records import SweepRecord
from tests.runtime.mlflow.trackers import MlflowBench, tell
from tests.runtime.samples import OBJECTIVE, sample_sweep, sample_trials

SHOWN = Shown(
    metrics=["inversion/mse_test", "inversion/ssim_test"],
    curves=["inversion/validation_loss"],
    images=["inversion/test"],
)
MANY = Shown(
    metrics=[f"inversion/m_{number:03d}" for number in range(300)],
    curves=[f"inversion/c_{number:03d}" for number in range(300)],
    images=[f"inversion/i_{number:03d}" for number in range(300)],
)


def with_seeds() -> SweepRecord:
    """Return a sweep that also repeats every point over seeds."""
    sweep = sample_sweep()
    return replace(sweep, axes={**sweep.axes, "seed": [0, 1]}, replicates=["seed"])


def state(view: View) -> dict[str, Any]:
    """Return what the pages find in the view's tag."""
    name, text = view.tag(1234)
    assert name == f"mlflow.sharedViewState.{view.key}"
    envelope = json.loads(text)
    assert envelope.keys() == {"name", "createdAt", "updatedAt", "state"}
    assert envelope["createdAt"] == envelope["updatedAt"] == 1234
    found: dict[str, Any] = json.loads(envelope["state"])
    return found


def states(sweep: SweepRecord, shown: Shown) -> dict[str, dict[str, Any]]:
    """Return name -> what the pages find in the tag of each view of a sweep called `sample`."""
    return {view.name.removeprefix("sample: "): state(view) for view in views(sweep, shown)}


@pytest.mark.parametrize("shown", [SHOWN, MANY, Shown([], [], [])], ids=["usual", "many", "nothing"])
def test_a_view_is_a_small_envelope_that_never_changes(shown: Shown) -> None:
    found = views(with_seeds(), shown)
    pictures = ["sample: pictures"] if shown.images else []
    assert [view.name for view in found] == ["sample: table", "sample: means", *pictures, "sample: trials"]
    for view, again in zip(found, views(with_seeds(), shown), strict=True):
        assert view.tag(1234) == again.tag(1234)
        assert len(view.tag(1234)[1]) < 20_000
        told = state(view)
        is_chosen = view.name in pictures
        chosen = " and tags.`inversion.pictured` LIKE '%'" if is_chosen else ""
        assert told["searchFilter"] == sweep_filter(with_seeds()) + chosen
        order = "tags.`inversion.pictured`" if is_chosen else f"metrics.`{OBJECTIVE}`"
        assert (told["orderByKey"], told["orderByAsc"]) == (order, not is_chosen)
        sections = {section["uuid"] for section in told["compareRunSections"]}
        cards = told["compareRunCharts"]
        assert {card["metricSectionId"] for card in cards} == sections
        assert len({card["uuid"] for card in cards}) == len(cards)


def test_a_view_that_mlflow_would_cut_off_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAG", 500)
    assert views(with_seeds(), SHOWN) == []


def test_means_are_over_the_axes_that_the_report_averages_over() -> None:
    sweep = replace(with_seeds(), replicates=["auxiliary"])
    means = states(sweep, SHOWN)["means"]
    assert [one["groupByData"] for one in means["groupBy"]["groupByKeys"]] == ["m", "k", "budget", "seed"]
    assert list(states(replace(sweep, replicates=[]), SHOWN)) == ["table", "pictures", "trials"]


def test_means_of_many_settings_are_the_heat_maps_of_the_sweep() -> None:
    maps = ["means/m-k", "means/m-budget"]
    few, many = (
        states(with_seeds(), replace(SHOWN, maps=maps, num_settings=number))["means"] for number in (12, 13)
    )
    assert few["groupBy"] is not None
    assert {card["type"] for card in few["compareRunCharts"]} == {"BAR", "LINE"}
    assert many["groupBy"] is None
    assert [card["imageKeys"] for card in many["compareRunCharts"]] == [[name] for name in maps]
    assert many["searchFilter"] == sweep_filter(with_seeds(), "sweep")
    bars = states(with_seeds(), replace(SHOWN, num_settings=13))["means"]
    assert bars["groupBy"] is not None, "without a heat map bars are better than nothing"


def test_the_table_has_axes_accuracies_and_what_the_report_names() -> None:
    shown = replace(SHOWN, metrics=[*SHOWN.metrics, "attack/x", "judge/accuracy", "target/accuracy"])
    sweep = replace(with_seeds(), metrics=["inversion/ssim_test", "inversion/psnr_test"])
    table = states(sweep, shown)["table"]
    assert table["selectedColumns"] == [
        *(f"params.`{axis}`" for axis in ("m", "k", "auxiliary", "budget", "seed")),
        *(f"metrics.`{name}`" for name in (OBJECTIVE, "inversion/ssim_test")),
        *(f"metrics.`{name}`" for name in ("target/accuracy", "judge/accuracy")),
        "attributes.`Duration`",
    ]
    assert table["compareRunCharts"] == []


def test_the_first_pictures_are_of_the_strongest_the_weakest_and_each_auxiliary_kind() -> None:
    kinds = ["same", "same", "generic", "generic", "distinct", "same"]
    trials = [
        replace(trial, params={"auxiliary.kind": kind}, metrics={OBJECTIVE: error})
        for trial, kind, error in zip(
            sample_trials(6), kinds, [0.03, 0.01, 0.02, 0.05, 0.04, math.nan], strict=True
        )
    ]
    named = {trial.key: trial for trial in trials}

    def order(sweep: SweepRecord) -> dict[float, str]:
        found = pictured(sweep, trials[::-1])
        return {named[key].metrics[OBJECTIVE]: reason for key, reason in found.items()}

    wanted = {0.01: "01 strongest", 0.05: "02 weakest", 0.04: "03 distinct", 0.02: "04 next", 0.03: "05 next"}
    assert order(sample_sweep()) == wanted
    assert order(replace(sample_sweep(), maximize=True)) == wanted, "a larger error never leaks more"
    assert len(pictured(sample_sweep(), sample_trials(20))) == 10
    alike = [replace(trial, params={}) for trial in trials[:1]]
    assert list(pictured(sample_sweep(), alike).values()) == ["01 strongest"]
    assert pictured(sample_sweep(), [replace(trials[0], status="failed")]) == {}
    assert pictured(sample_sweep(), [replace(trials[0], images={})]) == {}


def test_only_our_oldest_views_beyond_the_limit_are_outdated() -> None:
    def tag(name: str, created: int, title: str) -> tuple[str, str]:
        return f"mlflow.sharedViewState.{name}", json.dumps(
            {"name": title, "createdAt": created, "state": ""}, separators=(",", ":")
        )

    ours = [tag(f"inversion-{number}", 1000 - number, "s: trials") for number in range(MAX_VIEWS)]
    others = [
        tag("cafe", 1, "my view"),
        ("mlflow.note.content", "a note"),
        tag("inversion-x", 0, "s: trials"),
    ]
    earlier = tag("0123abcd", 5, "s: means")
    known = dict([*ours, *others[:2], earlier])
    assert outdated(dict([*ours, *others[:2]]), [], "s") == []
    assert outdated(known, [], "s") == [earlier[0]]
    assert outdated(known, ["new"], "s") == [earlier[0], ours[-1][0]]
    assert outdated(known, [earlier[0]], "s") == [ours[-1][0]]


def test_views_show_what_was_swept() -> None:
    found = states(with_seeds(), SHOWN)
    trials, means = found["trials"], found["means"]
    assert trials["groupBy"] is None
    axes = ["m", "k", "auxiliary", "budget"]
    assert means["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": axis} for axis in axes],
    }
    kinds = {card["type"]: card for card in trials["compareRunCharts"]}
    assert kinds.keys() == {"PARALLEL", "BAR", "LINE"}
    assert trials["runsHiddenMode"] == "FIRST_20_RUNS", "hundreds of bars are no picture"
    assert {found[view]["runsHiddenMode"] for view in ("table", "means", "pictures")} == {"SHOW_ALL"}
    assert kinds["PARALLEL"]["selectedParams"] == [*axes, "seed"]
    assert kinds["PARALLEL"]["selectedMetrics"] == [OBJECTIVE]
    assert "IMAGE" not in {card["type"] for card in means["compareRunCharts"]}
    (picture,) = found["pictures"]["compareRunCharts"]
    assert picture["imageKeys"] == ["inversion/test"]
    hidden = {view for view, state in found.items() if state["runListHidden"]}
    assert hidden == {"means", "pictures", "trials"}, "beside the list of runs cards are too narrow"
    assert list(states(sample_sweep(), SHOWN)) == ["table", "pictures", "trials"]


def test_other_judges_have_a_section_of_their_own() -> None:
    others = ["attack.wide/accuracy_top1_test", "attack/recogniser_accepted_test", "class/false_positives"]
    shown = replace(
        SHOWN, metrics=[*SHOWN.metrics, "attack/accuracy_top1_test", "judge.wide/accuracy", *others]
    )
    trials = states(sample_sweep(), shown)["trials"]
    (section,) = [one["uuid"] for one in trials["compareRunSections"] if one["name"] == "3. Judges"]
    cards = [card for card in trials["compareRunCharts"] if card["metricSectionId"] == section]
    assert [card["metricKey"] for card in cards] == others
    sections = states(sample_sweep(), SHOWN)["trials"]["compareRunSections"]
    assert "3. Judges" not in [one["name"] for one in sections]


def test_two_sweeps_of_one_study_have_their_own_views() -> None:
    other = replace(sample_sweep(), key="f" * 64)
    assert not {v.key for v in views(sample_sweep(), SHOWN)} & {v.key for v in views(other, SHOWN)}


def address(link: str) -> tuple[str, Mapping[str, list[str]]]:
    """Return page and query of a link, whose page comes after the `#`."""
    fragment = urlsplit(link).fragment
    page, _, query = fragment.partition("?")
    return unquote(page), parse_qs(query)


def test_links_open_the_sweep_on_the_right_side_of_the_pages() -> None:
    sweep = with_seeds()
    found = views(sweep, SHOWN)
    links = {label: address(link) for label, link in fragments(sweep, "7", "abc", found).items()}
    assert list(links) == ["answer", "table", "means", "pictures", "trials", "report"]
    assert links["answer"][0] == "/experiments/7/runs/abc/artifacts/report/report.html"
    assert all(query["workflowType"] == ["machine_learning"] for _, query in links.values())
    assert links["report"][0] == "/experiments/7/runs/abc"
    assert "compareRunsMode" not in links["table"][1]
    for view, label in zip(found, ("table", "means", "pictures", "trials"), strict=True):
        assert links[label][0] == "/experiments/7/runs"
        assert links[label][1]["viewStateShareKey"] == [view.key]
        assert "searchFilter" not in links[label][1], "a search in the address overrides the view"


@pytest.mark.mlflow
def test_views_are_written_once_and_their_filter_finds_the_trials(
    mlflow_server: str, mlflow_folder: Path
) -> None:
    bench = MlflowBench(mlflow_server, mlflow_folder / "mlflow.db", mlflow_folder / "artifacts")
    client, trials = bench.client, sample_trials(2)
    tell(bench.tracker(), "viewed", trials)
    before = client.get_experiment_by_name("viewed")
    tell(bench.tracker(), "viewed", [*trials, *sample_trials(3)[2:]])
    after = client.get_experiment_by_name("viewed")
    assert after.tags == before.tags
    saved = [json.loads(text) for name, text in after.tags.items() if name.startswith(module.TAG_PREFIX)]
    (told,) = [json.loads(view["state"]) for view in saved if view["name"] == "viewed: table"]
    found = client.search_runs(
        [after.experiment_id], told["searchFilter"], order_by=[f"{told['orderByKey']} ASC"]
    )
    errors = [run.data.metrics[OBJECTIVE] for run in found]
    assert len(errors) == 3
    assert errors == sorted(errors)


@pytest.mark.mlflow
def test_views_that_cannot_be_written_only_warn(
    mlflow_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise MlflowException("tags are closed\nto everybody")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    lines = tell(MlflowTracker(mlflow_server), "viewless", sample_trials(1))
    assert lines[0] == "MLflow:"
    assert "event=views_not_written reason='tags are closed'" in caplog.messages
    client = MlflowClient(tracking_uri=mlflow_server)
    runs = client.search_runs([client.get_experiment_by_name("viewless").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}

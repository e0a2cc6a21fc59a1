"""Saved views and links as MLflow's pages read them."""

import json
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
from orchestrator.runtime.mlflow.views import Shown, View, fragments, sweep_filter, views
from orchestrator.sweep.records import SweepRecord
from tests.runtime.mlflow.trackers import MlflowBench, tell
from tests.runtime.samples import OBJECTIVE, sample_sweep, sample_trials

SHOWN = Shown(
    metrics=["inversion/mse_test", "inversion/ssim_test"],
    curves=["inversion/validation_loss"],
    images=["inversion/test"],
)
MANY = Shown(*([f"inversion/{kind}_{number:03d}" for number in range(300)] for kind in "mci"))


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


@pytest.mark.parametrize("shown", [SHOWN, MANY, Shown([], [], [])], ids=["usual", "many", "nothing"])
def test_a_view_is_a_small_envelope_that_never_changes(shown: Shown) -> None:
    found = views(with_seeds(), shown)
    assert [view.name for view in found] == ["sample: trials", "sample: means"]
    for view, again in zip(found, views(with_seeds(), shown), strict=True):
        assert view.tag(1234) == again.tag(1234)
        assert len(view.tag(1234)[1]) < 20_000
        told = state(view)
        assert told["searchFilter"] == sweep_filter(with_seeds())
        assert (told["orderByKey"], told["orderByAsc"]) == (f"metrics.`{OBJECTIVE}`", True)
        sections = {section["uuid"] for section in told["compareRunSections"]}
        cards = told["compareRunCharts"]
        assert {card["metricSectionId"] for card in cards} == sections
        assert len({card["uuid"] for card in cards}) == len(cards)


def test_a_view_that_mlflow_would_cut_off_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAG", 500)
    assert views(with_seeds(), SHOWN) == []


def test_means_are_over_the_axes_that_the_report_averages_over() -> None:
    sweep = replace(with_seeds(), replicates=["auxiliary"])
    means = state(views(sweep, SHOWN)[1])
    assert [one["groupByData"] for one in means["groupBy"]["groupByKeys"]] == ["m", "k", "budget", "seed"]
    assert len(views(replace(sweep, replicates=[]), SHOWN)) == 1


def test_views_show_what_was_swept() -> None:
    trials, means = (state(view) for view in views(with_seeds(), SHOWN))
    assert trials["groupBy"] is None
    axes = ["m", "k", "auxiliary", "budget"]
    assert means["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": axis} for axis in axes],
    }
    kinds = {card["type"]: card for card in trials["compareRunCharts"]}
    assert kinds.keys() == {"PARALLEL", "BAR", "IMAGE", "LINE"}
    assert kinds["PARALLEL"]["selectedParams"] == [*axes, "seed"]
    assert kinds["PARALLEL"]["selectedMetrics"] == [OBJECTIVE]
    assert kinds["IMAGE"]["imageKeys"] == ["inversion/test"]
    assert "IMAGE" not in {card["type"] for card in means["compareRunCharts"]}
    assert [view.name for view in views(sample_sweep(), SHOWN)] == ["sample: trials"]


def test_other_judges_have_a_section_of_their_own() -> None:
    others = ["attack.wide/accuracy_top1_test", "attack/recogniser_accepted_test", "class/false_positives"]
    shown = replace(
        SHOWN, metrics=[*SHOWN.metrics, "attack/accuracy_top1_test", "judge.wide/accuracy", *others]
    )
    trials = state(views(sample_sweep(), shown)[0])
    (section,) = [one["uuid"] for one in trials["compareRunSections"] if one["name"] == "4. Judges"]
    cards = [card for card in trials["compareRunCharts"] if card["metricSectionId"] == section]
    assert [card["metricKey"] for card in cards] == others
    sections = state(views(sample_sweep(), SHOWN)[0])["compareRunSections"]
    assert "4. Judges" not in [one["name"] for one in sections]


def test_two_sweeps_of_one_study_have_their_own_views() -> None:
    other = replace(sample_sweep(), key="f" * 64)
    assert not {v.key for v in views(sample_sweep(), SHOWN)} & {v.key for v in views(other, SHOWN)}


def address(link: str) -> tuple[str, Mapping[str, list[str]]]:
    """Return page and query of a link, whose page comes after the `#`."""
    fragment = urlsplit(link).fragment
    page, _, query = fragment.partition("?")
    return unquote(page), parse_qs(query)


@pytest.mark.parametrize(("maximize", "ascending"), [(True, "false"), (False, "true")])
def test_links_open_the_sweep_on_the_right_side_of_the_pages(maximize: bool, ascending: str) -> None:
    sweep = replace(with_seeds(), maximize=maximize)
    found = views(sweep, SHOWN)
    links = {label: address(link) for label, link in fragments(sweep, "7", "abc", found).items()}
    assert list(links) == ["answer", "trials", "means", "table", "report"]
    assert links["answer"][0] == "/experiments/7/runs/abc/artifacts/report/report.html"
    assert all(query["workflowType"] == ["machine_learning"] for _, query in links.values())
    assert links["report"][0] == "/experiments/7/runs/abc"
    assert {links[label][0] for label in ("trials", "means", "table")} == {"/experiments/7/runs"}
    table = links["table"][1]
    assert table["searchFilter"] == [sweep_filter(sweep)]
    assert (table["orderByKey"], table["orderByAsc"]) == ([f"metrics.`{OBJECTIVE}`"], [ascending])
    for view, label in zip(found, ("trials", "means"), strict=True):
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
    (text,) = [text for name, text in after.tags.items() if name.startswith(module.TAG_PREFIX)]
    told = json.loads(json.loads(text)["state"])
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

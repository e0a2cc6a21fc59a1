"""Forecast: what is stored of each kind of stage, and what the rates of stored stages say of the others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.forecast import PROCESS_BYTES, Forecast, Known, StageForecast, forecast
from orchestrator.api.forecast_record import ForecastListener, compared, read
from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Footprint, Location, describe
from orchestrator.datasets.shards import HELD_BYTES
from orchestrator.stages.graph import Planner, Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.points import expand
from orchestrator.sweep.records import SweepReport
from orchestrator.sweep.trial import Task
from tests import tiny

SETS = {"digits": Footprint(1000, 2**20, False)}
COUNTS = ImageCounts(Location(), {"digits": describe("digits", Location())})
KNOWN = Known(SETS, COUNTS)


def tasks(sweep: Any = None, changes: dict[str, Any] | None = None, device: str = "cpu") -> list[Task]:
    """Return the trials of a tiny study, by default four that have a target each."""
    planner = Planner({"digits": "0" * 64}, replace(tiny.PROFILE, device=device))
    points = expand(tiny.study(sweep or {"seed": [0, 1, 2, 3]}, changes))[0]
    return [Task(point, planner.plan(normalise(point.spec))) for point in points]


def publish(store: Artifacts, stage: Stage, seconds: float, images: float, key: str = "") -> None:
    """Publish a stage as having taken some CPU seconds."""
    artifact = Artifact(
        key=key or stage.key,
        stage=stage.name,
        version=stage.version,
        spec={**stage.specs, "weights": dict(stage.weights)},
        cost={"cpu_seconds": seconds, "images_seen": images},
        profile={**stage.profile, "torch": "2", "cpu": "AVX2"},
    )
    store.publish(artifact, {})


def seen(epochs: int, trial: Task) -> float:
    """Return how many images F's training sees."""
    spec = trial.point.spec
    count = COUNTS.private(spec.data, spec.target.classes, "train")
    return float(epochs * (count - round(count * 0.1)))


def rows(expected: Forecast) -> Mapping[str, StageForecast]:
    """Return stage -> its row."""
    return {row.stage: row for row in expected.stages}


def test_an_empty_store_gives_no_number(tmp_path: Path) -> None:
    expected = forecast(tasks(), Artifacts(DirectoryBlobs(tmp_path)), KNOWN)
    held = 1000 * 32**2 + 2**20  # the selected images in grey, and the set that they are of
    target = rows(expected)["target"]
    assert (target.distinct, target.stored, target.missing, target.unknown) == (4, 0, 4, 4)
    assert (target.cpu_seconds, target.low, target.high) == (None, None, None)
    assert (target.held_bytes, target.mapped_bytes, target.device_bytes) == (held, 0, 0)
    assert PROCESS_BYTES + held < target.host_bytes < PROCESS_BYTES + held + 2**22
    assert (expected.held_bytes, expected.mapped_bytes, expected.cpu_seconds) == (held, 0, None)
    assert expected.unknown["target"] == 4


def test_an_accelerator_holds_networks_and_the_images_of_a_training_up_to_a_limit(tmp_path: Path) -> None:
    host = rows(forecast(tasks(), Artifacts(DirectoryBlobs(tmp_path)), KNOWN))
    device = rows(forecast(tasks(device="cuda"), Artifacts(DirectoryBlobs(tmp_path)), KNOWN))
    target, networks = device["target"], host["target"].host_bytes - PROCESS_BYTES - host["target"].held_bytes
    assert target.device_bytes == networks + 1000 * 32**2  # the selected images alone
    assert target.host_bytes == PROCESS_BYTES + target.held_bytes
    assert 0 < device["evaluation"].device_bytes < device["evaluation"].held_bytes
    many = replace(KNOWN, sets={"digits": Footprint(10**7, 2**34, is_mapped=True)})
    large = rows(forecast(tasks(device="cuda"), Artifacts(DirectoryBlobs(tmp_path)), many))["target"]
    assert large.device_bytes == networks + 2 * HELD_BYTES < networks + large.held_bytes


def test_what_is_missing_takes_the_time_of_what_is_like_it(tmp_path: Path) -> None:
    planned, store = tasks(), Artifacts(DirectoryBlobs(tmp_path))
    publish(store, planned[0].stages["target"], 3.0, seen(1, planned[0]))
    expected = forecast(planned, store, KNOWN)
    target = rows(expected)["target"]
    assert (target.distinct, target.stored, target.missing, target.unknown) == (4, 1, 3, 0)
    assert target.cpu_seconds == pytest.approx(9.0)
    assert target.low is not None
    assert target.high is not None
    assert 4.5 < target.low < 8.0
    assert 10.0 < target.high < 18.0
    assert "target" not in expected.unknown
    assert {"inversion", "evaluation"} <= set(expected.unknown)
    assert expected.cpu_seconds is not None
    assert expected.device_hours == pytest.approx(expected.cpu_seconds / 3600)


def test_10000_epochs_take_a_thousand_times_as_long_as_10(tmp_path: Path) -> None:
    short, long = (
        tasks({"seed": [1]}, {"target.recipe.epochs": epochs, "judge.recipe.epochs": epochs})
        for epochs in (10, 10_000)
    )
    store = Artifacts(DirectoryBlobs(tmp_path))
    for trial in tasks({"seed": [0]}, {"target.recipe.epochs": 10, "judge.recipe.epochs": 10}):
        publish(store, trial.stages["target"], 3.0, seen(10, trial))
        count = COUNTS.every(trial.point.spec.data, "train")
        publish(store, trial.stages["judge"], 5.0, 10.0 * (count - round(0.1 * count)))
    few, many = (rows(forecast(planned, store, KNOWN)) for planned in (short, long))
    assert few["judge"].missing == 0  # it is stored
    assert few["target"].cpu_seconds == pytest.approx(3.0, rel=0.02)
    assert many["target"].cpu_seconds == pytest.approx(3000.0, rel=0.02)
    assert many["judge"].cpu_seconds == pytest.approx(5000.0, rel=0.02)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"threads": 2}, {"device": "cuda"}])
def test_another_profile_says_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    planned, store = tasks(), Artifacts(DirectoryBlobs(tmp_path))
    other = planned[0].stages["target"]
    artifact = Artifact(
        key="0" * 64,
        stage="target",
        version=other.version,
        spec=dict(other.specs),
        cost={"cpu_seconds": 3.0, "wall_seconds": 3.0, "images_seen": seen(1, planned[0])},
        profile={**other.profile, **changes},
    )
    store.publish(artifact, {})
    assert rows(forecast(planned, store, KNOWN))["target"].cpu_seconds is None


def test_settings_of_another_version_are_passed_over(tmp_path: Path) -> None:
    planned, store = tasks(), Artifacts(DirectoryBlobs(tmp_path))
    others: list[dict[str, Any]] = [{}, {"data": {"gone": 1}}, {"data": {"dataset": "digits"}, "target": 3}]
    for number, spec in enumerate(others):
        store.publish(Artifact(f"{number:064x}", "target", 1, spec, cost={"cpu_seconds": 9.0}), {})
    store.publish(Artifact("f" * 64, "unheard of", 1, {}, cost={"cpu_seconds": 9.0}), {})
    assert rows(forecast(planned, store, KNOWN))["target"].cpu_seconds is None


@pytest.mark.parametrize(
    "study",
    ["ami-prediction-size-faces", "ami-zero-policy", "tl-dmi-table-1", "tl-dmi-table-3", "tl-dmi-table-9"],
)
def test_a_plan_at_the_papers_scale_needs_no_data(study: str, tmp_path: Path) -> None:
    options = Options(study, [], None, tmp_path, None, None, None, False, None, 0.0, 32)
    opened = Sweep(options, plans=True)
    expected = opened.forecast(opened.first_tasks())
    assert opened.preflight.published
    assert all(
        row.held_bytes or row.mapped_bytes or row.stage == "reconstructions" for row in expected.stages
    )
    assert expected.cpu_seconds is None


def test_no_error_of_a_forecast_stops_a_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(tasks: Sequence[Task]) -> Forecast:
        raise KeyError("service")

    store = Artifacts(DirectoryBlobs(tmp_path))
    with Journal(store.blobs, "a" * 64) as journal:
        listener = ForecastListener(store, "a" * 64, journal, fails)
        listener.planned(tasks(), 3)
    assert "no forecast is kept of this sweep" in caplog.text
    assert "KeyError: 'service'" in caplog.text
    assert read(store.blobs, "a" * 64) is None


def test_a_forecast_is_compared_with_its_own_stages_that_were_run(tmp_path: Path) -> None:
    store, planned = Artifacts(DirectoryBlobs(tmp_path)), tasks()
    publish(store, planned[0].stages["target"], 3.0, seen(1, planned[0]))
    with Journal(store.blobs, "a" * 64) as journal:
        listener = ForecastListener(store, "a" * 64, journal, lambda asked: forecast(asked, store, KNOWN))
        listener.planned(planned, 3)
        for number in (1, 2):  # the third of three fails
            publish(store, planned[number].stages["target"], 4.5, seen(1, planned[number]))
        other = "f" * 64  # of a later batch
        publish(store, planned[0].stages["target"], 1000.0, seen(1, planned[0]), other)
        built = [planned[number].stages["target"].key for number in (1, 2)]
        journal.append("ended", trial="t", status="finished", built=[*built, other])
        counts = {"target": {"run": 2, "reused": 1}}
        (line,) = listener.finished(SweepReport({}, {}, "", 1, 0), counts)
    assert re.match(
        r"forecast: 6 \(\d\.\.\d+\) seconds, actual 9, a factor of 1.50, 2 of 5 stages run; ", line
    )
    assert "without a forecast: victims, predictions" in line
    kept = read(store.blobs, "a" * 64)
    assert kept is not None
    assert set(kept["actual"]) == set(built)
    assert compared({**kept, "actual": {}}) is None

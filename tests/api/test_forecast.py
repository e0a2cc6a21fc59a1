"""Forecast: what is stored of each kind of stage, and medians of what the store's stages cost."""

from pathlib import Path

from orchestrator.api.forecast import StageForecast, forecast
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Footprint
from orchestrator.stages.graph import Planner
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.trial import Task
from tests import tiny
from tests.jobs.test_printing import publish

SETS = {"digits": Footprint(1000, 2**20, False)}


def tasks() -> list[Task]:
    """Return four trials of the tiny study, each with a target of its own."""
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    return [
        Task(point, planner.plan(normalise(point.spec)))
        for point in expand(tiny.study({"seed": [0, 1, 2, 3]}))[0]
    ]


def test_an_empty_store_gives_no_costs(tmp_path: Path) -> None:
    expected = forecast(tasks(), Artifacts(DirectoryBlobs(tmp_path)), SETS)
    held = 1000 * 32**2 + 2**20  # the selected images in grey, and the set that they are of
    assert StageForecast("target", 4, 0, 4, held, 0, None) in expected.stages
    assert (expected.held_bytes, expected.mapped_bytes, expected.cpu_seconds) == (held, 0, None)


def test_what_is_missing_costs_the_median_of_its_kind(tmp_path: Path) -> None:
    planned, store = tasks(), Artifacts(DirectoryBlobs(tmp_path))
    publish(store, planned[0].stages["target"].key, "target", 3.0)
    for number, seconds in enumerate((1.0, 5.0, 90.0)):
        publish(store, f"{number:064x}", "inversion", seconds)
    expected = forecast(planned, store, SETS)
    costs = {row.stage: (row.distinct, row.stored, row.missing, row.cpu_seconds) for row in expected.stages}
    assert costs["target"] == (4, 1, 3, 9.0)
    assert costs["inversion"] == (4, 0, 4, 20.0)
    assert costs["evaluation"] == (4, 0, 4, None)
    assert expected.cpu_seconds == 29.0

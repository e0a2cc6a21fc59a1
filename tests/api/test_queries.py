"""Queries of a plan: services at one address share its budget and, where they ask alike, its answers."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.queries import Needed, needed_queries
from orchestrator.config.base import Refused
from orchestrator.config.service import Asking, Service
from orchestrator.datasets import Location, services
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.trial import Task
from tests.stages.test_program_target import planned
from tests.sweep.test_program_checks import DESCRIBED, by
from tests.sweep.test_validation import point


def needed(folder: Path, budget: int, *kinds: dict[str, Any]) -> list[Needed]:
    """Return what trials on services that are described like this ask, one trial of each."""
    blobs, tasks = DirectoryBlobs(folder / "data"), []
    for place, changes in enumerate(kinds):
        service = Service.model_validate({**DESCRIBED, **changes})
        services.stage(service, Asking(budget=budget), "service.yaml", blobs, f"s{place}")
        tasks.append(Task(point(), planned(by(f"s{place}"), Location(blobs))[1]))
    return list(needed_queries(tasks, Artifacts(DirectoryBlobs(folder / "store")), Location(blobs)))


def test_services_at_one_address_share_its_budget(tmp_path: Path) -> None:
    spelled = "https://HOST:443/classify"
    (one, other) = needed(tmp_path, 1000, {}, {"url": spelled, "encoding": "jpeg"})
    assert one.words.endswith(f"; stored in {other.folder}")
    assert one.images == other.images == one.requests > 0
    assert one.at_address == other.at_address == (2 * one.images, 2 * one.images)
    for each in (one, other):
        each.check()
    enough_for_one = one.requests + 1
    (one, other) = needed(tmp_path / "less", enough_for_one, {}, {"url": spelled, "encoding": "jpeg"})
    with pytest.raises(
        Refused, match=r"^target\.service=s0, with other services at its address, needs \d+ requests for"
    ):
        one.check()
    (alone,) = needed(tmp_path / "alone", enough_for_one, {})
    alone.check()


def test_services_that_ask_alike_ask_once(tmp_path: Path) -> None:
    (one, other) = needed(tmp_path, 1000, {}, {"response": {"pairs": "", "pair_label": "n"}})
    assert one.images > other.images == other.requests == 0

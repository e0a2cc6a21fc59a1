"""A group's worker, with a fake broker and no cluster: what it keeps on a device between two stages."""

import gc
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from torch import Tensor

from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray import worker
from orchestrator.runtime.ray.pools import Pool
from orchestrator.stages.graph import Stage, StageFailed
from tests import tiny

STAGES = list(tiny.stages(tiny.spec()).values())[:2]


class Broker:
    """Hands out stages and notes what happens; methods are called as an actor's are."""

    def __init__(self, stages: Sequence[Stage], events: list[Any]) -> None:
        self.stages, self.events = stages, events

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(type(self), f"on_{name}").__get__(self))

    def on_begin(self, group: str, pool: str) -> None:
        """Note nothing."""

    def on_arrive(self, group: str, node: str) -> None:
        """Note nothing."""

    def on_take(self, group: str, rank: int, position: int) -> dict[str, Any] | None:
        """Return the next stage as plain data."""
        self.events.append("take")
        if position == len(self.stages):
            return None
        return {one.name: getattr(self.stages[position], one.name) for one in fields(Stage)}

    def on_finish(self, group: str, key: str, failure: Mapping[str, str] | None, ran: bool) -> None:
        """Note a stage's end."""
        self.events.append(failure["message"] if failure else "finished")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for Ray and CUDA in this process; return the list of what happens."""
    happened: list[Any] = []
    alone = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: alone)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node"))
    monkeypatch.setattr(worker, "_listen", lambda broker, group: lambda: False)
    monkeypatch.setattr(worker, "_log_progress", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: happened.append("emptied"))
    return happened


def serve(gpus: float, events: list[Any], folder: Path) -> None:
    """Work through the stages as the single worker of a group."""
    worker.serve(
        group="group",
        pool=Pool(gpus_per_worker=gpus),
        broker=Broker(STAGES, events),
        locations=Locations(str(folder)),
        checkpoint_seconds=60.0,
    )


@pytest.mark.parametrize(("gpus", "does_empty"), [(0.0, False), (0.25, True), (1.0, False)])
def test_a_worker_with_a_share_of_a_device_hands_memory_back_after_each_stage(
    gpus: float, does_empty: bool, events: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.runner, "run", lambda *parts: None)
    serve(gpus, events, tmp_path)
    each = ["take", "finished", *["emptied"] * does_empty]
    assert events == [*each, *each, "take"]


def test_a_failed_stage_keeps_no_tensor_until_the_next_is_taken(
    events: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Tensor]] = []

    def fail(*parts: Any) -> None:
        images = torch.zeros(3)
        kept.append(weakref.ref(images))
        try:
            raise RuntimeError("out of memory")
        except RuntimeError as error:
            raise StageFailed("judge", "out of memory") from error

    def emptied() -> None:
        events.append("emptied" if all(one() is None for one in kept) else "still kept")

    monkeypatch.setattr(worker.runner, "run", fail)
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    gc.disable()  # what is dropped here is dropped by the worker
    try:
        serve(0.5, events, tmp_path)
    finally:
        gc.enable()
    assert events == ["take", "out of memory", "emptied", "take", "out of memory", "emptied", "take"]

"""The stage `optimization`: resumed, it leaves the bytes of an uninterrupted search."""

from pathlib import Path

import pytest

from orchestrator.attacks import sharded_search
from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.world import World
from tests import tiny


def left(stages: dict[str, Stage], folder: Path, world: World) -> Artifact:
    """Build what `optimization` needs and it, this one in a world of its own; return what it left."""
    runner.use_profile(tiny.PROFILE.threads)
    store = Artifacts(DirectoryBlobs(folder))
    for name in ("pretrain", "target", "victims", "optimization"):
        if store.find(stages[name].key) is None:
            runner.run(stages[name], world if name == "optimization" else World(), store, Location())
    artifact = store.find(stages["optimization"].key)
    assert artifact is not None
    return artifact


@pytest.mark.parametrize("defense", [{"mid": {"weight": 0.0}}, {}], ids=["noise", "none"])
def test_a_resumed_search_leaves_the_same_bytes(
    defense: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MID's head draws noise at every forward pass; its checkpoint holds the generator."""
    monkeypatch.setattr(sharded_search, "CHUNK", 8)
    attack = {"name": "optimization", "steps": 3, "noise": 0.0}
    stages = tiny.stages(tiny.spec({"attack": attack, "target.defense": defense}))
    whole = left(stages, tmp_path / "whole", World())
    stopping = World(report=lambda metrics: metrics.get("images", 0) < 16, checkpoint_seconds=0.0)
    with pytest.raises(StageFailed, match="stopped after 16 of 32 images"):
        left(stages, tmp_path / "parts", stopping)
    resumed = left(stages, tmp_path / "parts", World())
    assert resumed.files == whole.files
    assert resumed.metrics == whole.metrics

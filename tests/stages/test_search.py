"""The stage `optimization`: resumed, it leaves the bytes of an uninterrupted search."""

import gc
import io
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from orchestrator.attacks import brepmi, latent, sharded_search, vmi
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, load
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import auxiliary_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.stages import runner, search
from orchestrator.stages.graph import Stage, StageFailed, dataset_names, plan
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import Point
from orchestrator.sweep.validation import Preflight
from orchestrator.threat import WhiteBox
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny


def left(stages: dict[str, Stage], folder: Path, world: World, location: Location | None = None) -> Artifact:
    """Build what `optimization` needs and it, this one in a world of its own; return what it left."""
    use_profile(tiny.PROFILE.threads)
    store = Artifacts(DirectoryBlobs(folder))
    for name in ("pretrain", "target", "victims", "prior", "optimization"):
        if name in stages and store.find(stages[name].key) is None:
            runner.run(
                stages[name], world if name == "optimization" else World(), store, location or Location()
            )
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


@pytest.mark.parametrize("name", ["gmi", "brepmi", "vmi", "kedmi"])
def test_a_search_of_a_prior_resumes_inside_its_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is finished when it stops; the head's noise is that of the draws that would have followed."""
    for module in (latent, brepmi, vmi):
        monkeypatch.setattr(module, "SEGMENT", 2)
    settings: dict[str, dict[str, Any]] = {
        "gmi": {"steps": 7},
        "brepmi": {"batch": 8, "budget": 300},
        "vmi": {"steps": 7, "samples": 2, "couplings": 1, "width": 4},
        "kedmi": {"steps": 7, "candidates": "released"},
    }
    loss = "kedmi" if name == "kedmi" else "hinge"
    changes = {
        "attack": {"name": name, **settings[name]},
        "prior": {"loss": loss, "model": {"name": "gmi", "width": 0.02}, "epochs": 1},
        "target.defense": {"mid": {"weight": 0.0}},
        "evaluation": {"task": "class-inference", "candidates": 2},
    }
    stages = tiny.stages(tiny.spec(changes))
    whole = left(stages, tmp_path / "whole", World())
    reports = iter([True])
    stopping = World(report=lambda metrics: next(reports, False), checkpoint_seconds=0.0)
    number = 3 if name in ("vmi", "kedmi") else 6  # their candidates are draws of one search
    with pytest.raises(StageFailed, match=f"stopped after 0 of {number} images"):
        left(stages, tmp_path / "parts", stopping)
    resumed = left(stages, tmp_path / "parts", World())
    assert resumed.files == whole.files
    assert resumed.metrics == whole.metrics


def test_queries_of_some_classes_are_all_that_the_target_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each candidate has a pool of its own, which serves however many classes are attacked."""
    boxes: list[WhiteBox] = []

    def boxed(network: nn.Module) -> WhiteBox:
        boxes.append(WhiteBox(network))
        return boxes[-1]

    monkeypatch.setattr(search, "WhiteBox", boxed)
    changes = {
        "attack": {"name": "ppa", "steps": 1, "starts": 2, "pool": 5, "views": 3},
        "prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1},
        "evaluation": {"task": "class-inference", "classes": [0, 2], "candidates": 2},
    }
    metrics = left(tiny.stages(tiny.spec(changes)), tmp_path, World()).metrics
    assert metrics["attack/queries"] == boxes[0].num_queries == 2 * (2 * 5) + 4 * 2 * (1 + 1 + 3)


@pytest.mark.parametrize(
    ("attack", "loss", "queries"),
    [
        ({"name": "vmi", "samples": 4, "family": "gaussian"}, "hinge", 2 * (3 * 4) + 2 * 3),
        ({"name": "kedmi", "candidates": "released"}, "kedmi", 2 * 3 + 2 * 3),
        (
            {"name": "ppa", "candidates": "released", "pool": 7, "starts": 4, "views": 5},
            "hinge",
            2 * 7 + 2 * 4 * (3 + 1 + 5),
        ),
    ],
    ids=["vmi", "kedmi", "ppa"],
)
def test_candidates_of_one_search_take_it_once_for_a_class(
    attack: dict[str, Any], loss: str, queries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the first candidate come first; queries are those of the searches and of the images drawn."""
    monkeypatch.setattr(vmi, "NUMBERS", 1)  # a row at a time
    changes = {
        "attack": {"steps": 3, **attack},
        "prior": {"loss": loss, "model": {"name": "gmi", "width": 0.02}, "epochs": 1},
        "evaluation": {"task": "class-inference", "classes": [0, 2], "candidates": 3},
    }
    several = left(tiny.stages(tiny.spec(changes)), tmp_path, World())
    assert several.metrics["attack/queries"] == queries
    assert several.metrics["optimization/steps"] == 3
    one = left(tiny.stages(tiny.spec({**changes, "evaluation.candidates": 1})), tmp_path, World())
    store = Artifacts(DirectoryBlobs(tmp_path))
    images, first = (
        np.load(io.BytesIO(store.read(artifact, "reconstructions_class.npy"))) for artifact in (several, one)
    )
    assert len(images) == 6
    assert np.array_equal(images[:2], first)
    assert len(np.unique(images.reshape(6, -1), axis=0)) == 6


def test_a_pool_is_let_go_when_its_candidate_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of rows has all classes of its candidates; a search that no chunk needs again is not kept."""
    monkeypatch.setattr(sharded_search, "CHUNK", 2)
    made: list[weakref.ref[object]] = []
    alive: list[int] = []
    plain = search.search

    def noted(*arguments: Any, **named: Any) -> Any:
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        one = plain(*arguments, **named)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(search, "search", noted)
    changes = {
        "attack": {"name": "ppa", "steps": 1, "starts": 1, "pool": 5},
        "prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1},
        "evaluation": {"task": "class-inference", "classes": [0, 2], "candidates": 4},
    }
    left(tiny.stages(tiny.spec(changes)), tmp_path, World())
    assert len(made) == 4
    assert max(alive) <= 1


@pytest.mark.parametrize("kedmi", [False, True])
def test_a_prior_of_the_private_set_staged_without_classes_is_refused(kedmi: bool, tmp_path: Path) -> None:
    """Its names are of no class: only pixels tell. The key of the search is that of any other set. Plans
    refuse it too, where they can read the set: here the stage meets it unplanned."""
    digits = load("digits", Location())
    source = array_source("npz", digits.images[:200], digits.labels[:200], "abc", "0" * 64).unlabelled()
    publish(source, Options(unlabelled=True), DirectoryBlobs(tmp_path / "data"), "again")
    location = Location(DirectoryBlobs(tmp_path / "data"))
    name = "kedmi" if kedmi else "gmi"
    model = {"name": "gmi", "width": 0.02}
    changes = {
        "attack": {"name": name, "steps": 1},
        "prior": {"model": model, "epochs": 1, "loss": "kedmi" if kedmi else "hinge"},
        "evaluation.task": "class-inference",
    }
    trial = Preflight(location).resolve(Point(0, {}, tiny.spec(changes))).spec
    assert trial.prior
    trial = trial.but(prior=trial.prior.but(dataset="again"))
    digests = {one: load(one, location).description.digest for one in dataset_names(trial).values()}
    stages = plan(normalise(trial), digests, tiny.PROFILE)
    assert stages["optimization"].compared == {"prior": {"name": "again", "digest": digests["again"]}}
    assert replace(stages["optimization"], compared={}).key == stages["optimization"].key
    text = (
        r"prior\.dataset=again promises images unknown to the target, but \d+ of 200 equal one of its train"
    )
    with pytest.raises(StageFailed, match=text):
        left(stages, tmp_path / "store", World(), location)


def test_a_descent_from_the_mean_of_the_auxiliary_set_begins_there(tmp_path: Path) -> None:
    """Steps too short to move leave the start; the adversary's yardsticks are those of its images."""
    attack = {"name": "mia", "start": "auxiliary-mean", "steps": 1, "learning_rate": 1e-12}
    trial = tiny.spec({"attack": attack, "evaluation.task": "class-inference"})
    metrics = tiny.run(trial, tmp_path)
    store = Artifacts(DirectoryBlobs(tmp_path))
    artifact = store.find(tiny.stages(trial)["optimization"].key)
    assert artifact is not None
    made = np.load(io.BytesIO(store.read(artifact, "reconstructions_class.npy")))
    digits = load("digits", Location())
    own = auxiliary_images(digits, None, trial.data, 3, trial.auxiliary).images[:].numpy()
    assert np.array_equal(made, np.repeat(own.mean(axis=0).round()[None], 3, axis=0))
    assert {"class/yardstick_label_mse", "class/yardstick_random_mse"} <= metrics.keys()
    assert "class/yardstick_grey_mse" not in metrics
    assert metrics["attack/queries"] == 6.0

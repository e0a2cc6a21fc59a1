"""The stage `prior_quality`: when it is planned, and which images it compares."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from orchestrator.attacks import conditional_prior
from orchestrator.attacks.conditional_prior import chosen
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, load, weights
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import prior_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.metrics.perceptual import features_of, inception_network
from orchestrator.stages import prior_quality, runner
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.kernels import use_profile
from orchestrator.training.pairs import hold_out
from orchestrator.training.world import World
from tests import tiny
from tests.stages.test_pretrain import planned

NAMED = {"evaluation.networks": {"inception": "inception"}}
GENERAL: dict[str, Any] = {
    "data.dataset": "few",
    "target.classes": 2,
    "target.pretrain": None,
    "target.budget": "full",
    "evaluation.task": "class-inference",
    "attack": {"name": "gmi"},
    "prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1, "seed": 6},
}
CONDITIONAL: dict[str, Any] = {
    **GENERAL,
    "attack": {"name": "plg-mi"},
    "prior": {"loss": "plg", "model": {"name": "plg", "width": 0.02}, "epochs": 1, "images_per_class": 27},
}


@pytest.fixture(scope="module")
def public() -> dict[str, Tensor]:
    """Return random weights of Inception-v3."""
    torch.manual_seed(0)
    return torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory, public: dict[str, Tensor]) -> Location:
    """Return a data location with these weights and a few digits."""
    blobs, digits = DirectoryBlobs(tmp_path_factory.mktemp("data")), load("digits", Location())
    source = array_source("npz", digits.images[:], digits.labels, digits.class_names, "0" * 64)
    publish(source, Options(per_class=8), blobs, "few")
    weights.stage(public, "random", blobs, "inception")
    return Location(blobs)


@pytest.mark.parametrize("changes", [GENERAL, CONDITIONAL], ids=["general", "conditional"])
def test_it_is_planned_where_the_network_is_named_and_no_other_key_knows(
    changes: dict[str, Any], location: Location
) -> None:
    plain, full = (planned(tiny.spec({**changes, **more}), location) for more in ({}, NAMED))
    assert set(full) - set(plain) == {"prior_quality"}
    assert [name for name in plain if plain[name].key != full[name].key] == ["evaluation"]
    assert full["prior_quality"].key not in {need for stage in full.values() for need in stage.needs.values()}
    without = tiny.spec({**GENERAL, **NAMED, "attack": {"name": "mia"}, "prior": None})
    assert "prior_quality" not in planned(without, location)


def compared(
    changes: dict[str, Any], location: Location, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """Build the stage; return both sets of features. Inception's distance of 2048 numbers takes seconds, and
    has tests of its own."""
    seen: list[Tensor] = []

    def distance(real: Tensor, found: Tensor) -> float:
        seen.extend((real, found))
        return 1.5

    monkeypatch.setattr(prior_quality, "frechet_distance", distance)
    use_profile(1)
    store, stages = Artifacts(DirectoryBlobs(folder)), planned(tiny.spec({**changes, **NAMED}), location)
    for name in ("target", "prior", "prior_quality"):
        runner.run(stages[name], World(), store, location)
    artifact = store.find(stages["prior_quality"].key)
    assert artifact is not None
    assert artifact.metrics == {"prior_quality/generated_fid": 1.5}
    return seen


def seen_by(public: dict[str, Tensor], images: Tensor) -> Tensor:
    return features_of(inception_network(public), images, 299, torch.device("cpu"), normalise="symmetric")


def test_as_many_images_are_generated_as_were_held_out(
    location: Location, public: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, found = compared(GENERAL, location, tmp_path, monkeypatch)
    trial = normalise(tiny.spec(GENERAL))
    assert trial.prior is not None
    images = prior_images(load("few", location), trial.data, trial.prior)
    held_out = images[hold_out(len(images), 0.05, trial.prior.seed)[1]]
    torch.testing.assert_close(real, seen_by(public, held_out), atol=1e-3, rtol=1e-3)
    assert found.shape == real.shape
    assert not torch.allclose(found, real)


RANDOM = {**CONDITIONAL, "target.defense": {"mid": {}}}


@pytest.mark.parametrize(
    "changes", [CONDITIONAL, RANDOM], ids=["target without noise", "target that draws noise"]
)
def test_a_conditional_priors_images_are_those_of_no_class_that_it_was_trained_on(
    changes: dict[str, Any], location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[Tensor] = []

    def choice(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
        trained_on.append(chosen(scores, number)[0])
        return chosen(scores, number)

    monkeypatch.setattr(conditional_prior, "chosen", choice)  # as the prior's training calls it
    monkeypatch.setattr(prior_quality, "public_features", lambda inputs, name, part: part)
    real, found = compared(changes, location, tmp_path, monkeypatch)
    trial = normalise(tiny.spec(changes))
    assert trial.prior is not None
    images = prior_images(load("few", location), trial.data, trial.prior)
    (places,) = trained_on
    kept, held_out = (places[part].tolist() for part in hold_out(54, 0.05, trial.prior.seed))
    unseen = [place for place in held_out if place not in kept]
    assert len(held_out) == 3
    assert len(unseen) > 0
    torch.testing.assert_close(real, images[unseen])
    assert found.shape == real.shape

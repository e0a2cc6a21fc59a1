"""Spans the plan and the stages: a prior that others trained is searched without a stage `prior`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config import TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.study import StudyError
from orchestrator.datasets import Dataset, Location, verify, weights
from orchestrator.models.dcgan import Dcgan
from orchestrator.models.framing import Framed
from orchestrator.stages import runner
from orchestrator.stages.graph import Profile, Stage, plan
from orchestrator.stages.io import Inputs
from orchestrator.stages.networks import stored_generator
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.validation import Preflight
from orchestrator.training.world import World
from tests import tiny
from tests.models.stylegans import SIDE, small

DIGESTS = {"digits": "d" * 64, "weights/faces": "f" * 64, "weights/other": "a" * 64}
BROUGHT: dict[str, Any] = {
    "prior": {"weights": "faces", "crop": 0.75},
    "evaluation.task": "class-inference",
    "attack": {"name": "gmi", "prior_weight": 0.0, "steps": 2},
}


def spec(changes: dict[str, Any] | None = None) -> TrialSpec:
    return tiny.spec({**BROUGHT, **(changes or {})})


def planned(changes: dict[str, Any] | None = None) -> dict[str, Stage]:
    return plan(normalise(spec(changes)), DIGESTS, Profile())


def test_no_stage_trains_it_and_its_digest_is_in_the_keys() -> None:
    stages = planned()
    assert "prior" not in stages
    for name in ("optimization", "retrieval"):
        assert stages[name].weights == {"prior": {"name": "faces", "digest": "f" * 64}}
        other = planned({"prior.weights": "other"})[name]
        assert stages[name].key != other.key
        assert stages[name].key != planned({"prior.crop": 1.0})[name].key
    assert "prior" not in stages["optimization"].needs


def test_settings_of_a_training_change_nothing() -> None:
    changed = planned({"prior.epochs": 3, "prior.dataset": "letters", "prior.seed": 9})
    assert changed["optimization"].key == planned()["optimization"].key


def no_images(name: str) -> Dataset:
    raise AssertionError(name)


def test_its_images_are_cropped_grey_and_of_the_trials_side() -> None:
    trial = normalise(spec())
    assert trial.prior is not None
    inputs = Inputs(World(), no_images, lambda role, name: b"", weights=lambda role: small().state_dict())
    found = stored_generator(inputs, trial.data, trial.prior)
    wanted = Framed(small(), SIDE, channels=1, image_size=trial.data.image_size, crop=0.75)
    latents = torch.randn(2, found.latent_size)
    assert torch.equal(found(latents), wanted(latents))
    assert not found.training


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (
            {"name": "gmi"},
            r"prior\.weights=faces has no critic, which attack\.prior_weight above 0 reads; set "
            r"attack\.prior_weight=0 or train a prior",
        ),
        (
            {"name": "kedmi"},
            r"prior\.weights=faces was trained elsewhere, and attack\.name=kedmi searches prior\.loss=kedmi",
        ),
        ({"name": "plg-mi"}, r"attack\.name=plg-mi searches prior\.loss=plg; train that prior"),
    ],
)
def test_attacks_that_need_more_than_a_generator_are_refused(attack: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        spec({"attack": attack})


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return a data location with generators and weights that are none."""
    blobs = DirectoryBlobs(tmp_path_factory.mktemp("data"))
    torch.manual_seed(0)
    pairs = {
        "faces": small().state_dict(),
        "grey": Dcgan(channels=1, counts=(4,), latent_size=3).state_dict(),
        "two": Dcgan(channels=2, counts=(4,), latent_size=3).state_dict(),
        "other": {"fc": torch.zeros(1)},
    }
    for name, state in pairs.items():
        weights.stage(state, "test", blobs, name)
    return Location(blobs)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other", r"^prior\.weights=other is no generator of a known kind \(stylegan2, dcgan\)"),
        ("two", r"^prior\.weights=two makes images of 2 channels, which are neither grey nor RGB"),
        ("absent", r"^prior\.weights=absent is unknown; staged at "),
    ],
)
def test_weights_are_checked_before_anything_starts(name: str, text: str, location: Location) -> None:
    (point,) = expand(tiny.study({"seed": [0]}, {**BROUGHT, "prior.weights": name}))[0]
    with pytest.raises(StudyError, match=text):
        Preflight(location).resolve(point)


ATTACKS: tuple[dict[str, Any], ...] = (
    {"name": "gmi", "prior_weight": 0.0, "steps": 2},
    {"name": "ppa", "pool": 6, "starts": 2, "steps": 2, "views": 2},
    {"name": "mirror", "pool": 6, "starts": 2, "steps": 2},
    {"name": "brepmi", "points": 2, "patience": 1, "batch": 16, "budget": 40},
)


@pytest.mark.parametrize("weights_of", ["faces", "grey"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one["name"])
def test_attacks_search_it(attack: dict[str, Any], weights_of: str, location: Location, store: Path) -> None:
    trial = normalise(spec({"prior.weights": weights_of, "attack": attack}))
    assert location.blobs is not None
    key = weights.key_of(weights_of)
    digits, generator = verify("digits", Location()), weights.describe(weights_of, location)
    digests = {"digits": digits.digest, key: generator.digest}
    artifacts = Artifacts(DirectoryBlobs(store))
    stages = plan(trial, digests, tiny.PROFILE)
    for name in ("pretrain", "target", "judge", "optimization", "retrieval"):
        if name in stages and artifacts.find(stages[name].key) is None:
            runner.run(stages[name], World(), artifacts, location)
    made = artifacts.find(stages["optimization"].key)
    assert made is not None
    assert "reconstructions_class.npy" in made.files


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials share."""
    return tmp_path_factory.mktemp("store")

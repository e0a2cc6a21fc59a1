"""The stage `prior`: what it is trained on, what it leaves, which trials share it, loading it again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from orchestrator.config import TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, load
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import prior_images, public_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.stages import runner
from orchestrator.stages.graph import Profile, Stage, plan
from orchestrator.stages.io import Inputs
from orchestrator.stages.networks import CHOSEN, generated, new_adversaries, stored_critic, stored_generator
from orchestrator.stages.prior import spread
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.kernels import use_profile
from orchestrator.training.pairs import hold_out
from orchestrator.training.world import World
from tests import tiny

PRIOR: dict[str, Any] = {"model": {"name": "gmi", "width": 0.02}, "epochs": 2, "seed": 6}
DIGESTS = {"digits": "d" * 64, "faces": "f" * 64, "letters": "l" * 64}


def spec(changes: dict[str, Any] | None = None) -> TrialSpec:
    """Return the tiny trial of GMI with a prior of the public digits."""
    start = {"prior": PRIOR, "attack": {"name": "gmi"}, "evaluation.task": "class-inference"}
    return tiny.spec({**start, **(changes or {})})


def planned(changes: dict[str, Any] | None = None) -> dict[str, Stage]:
    return plan(normalise(spec(changes)), DIGESTS, Profile())


NAMED = {"prior.dataset": "faces"}


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"target.classes": 2}, {}),
        ({"target.seed": 9}, {}),
        ({"target.defense": {"mid": {}}}, {}),
        ({"attack.seed": 9}, {}),
        ({"release.truncation": 2}, {}),
        ({"prior.penalty": 1.0}, {}),  # of the other loss
        ({"data.class_seed": 9}, NAMED),
        ({"data.split": "even"}, NAMED),
        ({"data.class_pool": 4}, NAMED),
    ],
    ids=tiny.in_order,
)
def test_a_prior_serves_all_trials_on_its_public_images(
    changes: dict[str, Any], start: dict[str, Any]
) -> None:
    assert planned({**start, **changes})["prior"].key == planned(start)["prior"].key


def test_other_private_sets_share_the_prior_of_a_named_set() -> None:
    keys = {planned({**NAMED, "data.dataset": name})["prior"].key for name in ("digits", "letters")}
    assert len(keys) == 1
    assert planned(NAMED)["prior"].datasets == {"prior": {"name": "faces", "digest": "f" * 64}}


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"prior.seed": 9}, {}),
        ({"prior.loss": "wgan-gp"}, {}),
        ({"prior.penalty": 1.0}, {"prior.loss": "wgan-gp"}),
        ({"prior.dataset": "faces"}, {}),
        ({"data.class_seed": 9}, {}),
        ({"data.class_pool": 4}, {}),
        ({"data.image_size": 64}, NAMED),
        ({"data.channels": 3}, NAMED),
        ({"data.normalisation": "per-position"}, NAMED),
    ],
    ids=tiny.in_order,
)
def test_other_images_or_settings_are_another_prior(changes: dict[str, Any], start: dict[str, Any]) -> None:
    assert planned({**start, **changes})["prior"].key != planned(start)["prior"].key


KEDMI = {"prior.loss": "kedmi", "attack": {"name": "kedmi"}}
PLG = {"prior.loss": "plg", "prior.model": {"name": "plg"}, "attack": {"name": "plg-mi"}}


@pytest.mark.parametrize("attack", [KEDMI, PLG], ids=["kedmi", "plg"])
def test_a_prior_that_learns_from_a_target_is_another_for_each(attack: dict[str, Any]) -> None:
    stages = planned({**NAMED, **attack})
    assert stages["prior"].needs == {"target": stages["target"].key}
    assert planned(NAMED)["prior"].needs == {}
    others: list[dict[str, Any]] = [{"target.seed": 9}, {"target.defense": {"mid": {}}}]
    for changes in (*others, {"data.class_seed": 9}):
        assert planned({**NAMED, **attack, **changes})["prior"].key != stages["prior"].key
    for other in ({"attack.seed": 9}, {"release.truncation": 2}, {"judge.seed": 9}):
        assert planned({**NAMED, **attack, **other})["prior"].key == stages["prior"].key


def test_a_trial_that_searches_no_prior_has_no_stage_of_it() -> None:
    mia: dict[str, Any] = {"attack": {"name": "mia"}}
    assert planned(mia).keys() == planned({**mia, "prior": None}).keys()
    assert "prior" not in planned(mia)
    assert planned(mia)["evaluation"].key == planned({**mia, "prior": None})["evaluation"].key
    assert "prior" not in tiny.spec().plain


def built(trial: TrialSpec, location: Location, folder: Path) -> tuple[Artifact, Inputs]:
    """Train the prior of a trial and what it needs; return what it leaves and inputs that read it."""
    use_profile(1)
    store = Artifacts(DirectoryBlobs(folder))
    digests = {name: load(name, location).description.digest for name in _names(trial)}
    stages = plan(normalise(trial), digests, tiny.PROFILE)
    stage = stages["prior"]
    needed = ("pretrain", "target", "prior") if stage.needs else ("prior",)
    for name in needed:
        runner.run(stages[name], World(), store, location)
    artifact = store.find(stage.key)
    assert artifact is not None
    found = artifact
    inputs = Inputs(World(), lambda name: load(name, location), lambda role, file: store.read(found, file))
    return artifact, inputs


def _names(trial: TrialSpec) -> set[str]:
    assert trial.prior is not None
    return {trial.data.dataset, trial.prior.dataset or trial.data.dataset}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Inputs]:
    """Return what the stage leaves of the public digits."""
    return built(spec(), Location(), tmp_path_factory.mktemp("prior"))


def test_what_it_leaves(left: tuple[Artifact, Inputs]) -> None:
    artifact, inputs = left
    assert set(artifact.files) == {
        "critic.safetensors",
        "curves.json",
        "generator.safetensors",
        "prior_samples.png",
    }
    public = public_images(load("digits", Location()), spec().data)
    assert artifact.metrics["prior/images"] == len(public)
    assert set(artifact.metrics) == {
        "prior/images",
        "prior/spread",
        "prior/validation_fake",
        "prior/validation_real",
    }
    curves = json.loads(inputs.read("prior", "curves.json"))
    assert set(curves) == {"prior/train_loss", "prior/validation_fake", "prior/validation_real"}
    assert {len(values) for values in curves.values()} == {2}
    assert inputs.read("prior", "prior_samples.png").startswith(b"\x89PNG")


def test_it_is_read_back_as_it_was_trained(left: tuple[Artifact, Inputs]) -> None:
    trial = normalise(spec())
    assert trial.prior is not None
    generator = stored_generator(left[1], trial.data, trial.prior)
    critic = stored_critic(left[1], trial.data, trial.prior)
    untrained = new_adversaries(trial.prior, trial.data).average
    latents = torch.randn(4, generator.latent_size, generator=torch.Generator().manual_seed(0))
    images = generator(latents)
    assert images.shape == (4, 1, 32, 32)
    torch.testing.assert_close(images[:2], generator(latents[:2]))  # by fixed statistics
    assert (images - untrained.eval()(latents)).abs().max() > 0.01
    assert critic(images).shape == (4,)
    for network in (generator, critic):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_prior_of_a_set_without_classes(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    source = array_source("npz", images, np.zeros(30, np.int64), "abc", "0" * 64).unlabelled()
    publish(source, Options(unlabelled=True), DirectoryBlobs(tmp_path), "faces")
    location, trial = Location(DirectoryBlobs(tmp_path)), spec(NAMED)
    assert trial.prior is not None
    everything = {image.transpose(2, 0, 1).tobytes() for image in images}
    chosen = prior_images(load("faces", location), normalise(trial).public_data, trial.prior)
    assert {image.numpy().tobytes() for image in chosen[:]} == everything
    artifact, _ = built(trial, location, tmp_path / "store")
    assert artifact.metrics["prior/images"] == 30.0


def test_kedmis_prior_learns_the_targets_classes(tmp_path: Path) -> None:
    trial = normalise(spec({**KEDMI, "prior.teacher_mode": "train"}))
    artifact, inputs = built(trial, Location(), tmp_path)
    assert set(artifact.metrics) == {
        "prior/images",
        "prior/queries",
        "prior/spread",
        "prior/validation_fake",
        "prior/validation_real",
    }
    assert trial.prior is not None
    num_images, epochs = artifact.metrics["prior/images"], trial.prior.epochs
    held_out = round(num_images / 20)
    assert artifact.metrics["prior/queries"] == num_images + epochs * (num_images - held_out)
    assert CHOSEN not in artifact.files
    images = stored_generator(inputs, trial.data, trial.prior)(torch.randn(4, 100))
    critic = stored_critic(inputs, trial.data, trial.prior, trial.target.classes)
    assert critic(images).shape == (4, trial.target.classes)


def test_a_conditional_prior_learns_images_of_each_of_the_targets_classes(tmp_path: Path) -> None:
    """Three classes of 6 images: 17 are trained on in batches of 8, 8 and 1, of which no worker takes the
    last; each second batch of three epochs is followed by a generator's step."""
    model = {"name": "plg", "width": 0.02}
    settings = {"epochs": 3, "batch_size": 8, "critic_steps": 2, "images_per_class": 6}
    trial = normalise(
        spec({"prior": {"loss": "plg", "model": model, **settings}, "attack": {"name": "plg-mi"}})
    )
    artifact, inputs = built(trial, Location(), tmp_path)
    assert trial.prior is not None
    assert artifact.metrics["prior/queries"] == artifact.metrics["prior/images"] + 3 * 8
    pairs = load_tensors(inputs.read("prior", CHOSEN))
    assert pairs["classes"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert pairs["held_out"].tolist() == hold_out(18, 0.05, trial.prior.seed)[1].tolist()
    assert all(len(set(places.tolist())) == 6 for places in pairs["places"].split(6))
    assert pairs["places"].max() < artifact.metrics["prior/images"]
    generator = stored_generator(inputs, trial.data, trial.prior, trial.target.classes)
    latents, classes = torch.randn(3, 128), torch.tensor([2, 0, 2])
    images = generated(generator, trial.prior, latents, classes, torch.device("cpu"))
    assert images.shape == (3, 1, 32, 32)
    torch.testing.assert_close(images, generator(latents, classes), atol=1e-5, rtol=0.0)
    critic = stored_critic(inputs, trial.data, trial.prior, trial.target.classes)
    assert critic(images, classes).shape == (3,)


def test_the_spread_by_hand() -> None:
    """Of 0 and 255 in half of the pixels: variances 1/4 and 0."""
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    images[1, 0, 0] = 255
    assert spread(images) == pytest.approx(0.125**0.5)

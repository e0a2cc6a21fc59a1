"""Spans modules: all stages: which images and scores each one sees, and the files that it publishes."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from orchestrator.config import TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, load, selection, shards
from orchestrator.datasets.selection import auxiliary_images, judge_images, target_images
from orchestrator.defenses.private import epsilon
from orchestrator.models.build import build_classifier
from orchestrator.stages import runner
from orchestrator.stages.graph import StageFailed
from orchestrator.stages.io import Outputs
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.loop import predict
from orchestrator.training.pairs import hold_out
from orchestrator.training.world import World
from tests import tiny

TRIAL = tiny.spec()


class Kept:
    """A store with the tiny trial in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Artifacts(DirectoryBlobs(folder))

    def artifact(self, stage: str, trial: TrialSpec = TRIAL) -> Artifact:
        """Return what a stage left, building the trial if need be."""
        tiny.run(trial, self.folder)
        found = self.store.find(tiny.stages(trial)[stage].key)
        assert found is not None
        return found

    def array(self, stage: str, name: str, trial: TrialSpec = TRIAL) -> np.ndarray:
        """Return an array that a stage left."""
        data = self.store.read(self.artifact(stage, trial), name)
        return np.load(io.BytesIO(data), allow_pickle=False)

    def target(self, trial: TrialSpec = TRIAL) -> Any:
        """Return the trained target."""
        network = build_classifier(
            trial.target.model, classes=trial.target.classes, channels=1, image_size=32
        )
        data = self.store.read(self.artifact("target", trial), "model.safetensors")
        network.load_state_dict(load_tensors(data))
        return network


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return a store that the tests of this file share."""
    return Kept(tmp_path_factory.mktemp("stages"))


def test_what_each_stage_leaves(kept: Kept) -> None:
    files = {name: sorted(kept.artifact(name).files) for name in tiny.stages(TRIAL)}
    trained = ["curves.json", "model.safetensors"]
    parts = ("test", "train")
    assert files == {
        "pretrain": trained,
        "target": ["accuracy_test.npy", *trained],
        "judge": ["curves.json", "features_train.npy", "labels_train.npy", "model.safetensors"],
        "predictions": ["scores.npy"],
        "victims": ["scores_test.npy", "scores_train.npy"],
        "inversion": ["curves.json", "inverter.safetensors"],
        "reconstructions": [f"reconstructions_{part}.npy" for part in parts],
        "retrieval": [f"per_image_{part}.npy" for part in parts],
        "yardsticks": [f"per_image_{part}.npy" for part in parts],
        "evaluation": sorted(
            [f"grid_{part}.png" for part in parts]
            + [f"{what}_{part}.npy" for what in ("per_image", "reconstructions", "victims") for part in parts]
        ),
    }


def test_curves_have_a_value_for_each_epoch(kept: Kept) -> None:
    for stage, names in (("target", {"loss", "accuracy"}), ("inversion", {"loss"})):
        curves = json.loads(kept.store.read(kept.artifact(stage), "curves.json"))
        assert set(curves) == {f"{stage}/train_loss", *(f"{stage}/validation_{name}" for name in names)}
        assert all(len(values) == 1 for values in curves.values())


def test_manifests_say_what_was_computed_from_what(kept: Kept) -> None:
    artifact, planned = kept.artifact("evaluation"), tiny.stages(TRIAL)
    stages = {"target": "target", "victims": "victims", "judge": "judge", "attack": "inversion"}
    assert artifact.inputs == {role: planned[name].key for role, name in stages.items()}
    assert artifact.spec["release"] == TRIAL.release.model_dump(mode="json")
    assert set(artifact.spec["datasets"]) == {"private"}
    assert artifact.profile["threads"] == 1
    assert artifact.profile["torch"] == torch.__version__
    assert artifact.cost["images_seen"] == 32
    assert artifact.cost["wall_seconds"] > 0


def test_full_scores_are_stored_whatever_is_released(kept: Kept) -> None:
    scores = kept.array("predictions", "scores.npy")
    assert (scores.dtype, scores.shape) == (np.float32, (64, 3))
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-6)
    assert (scores > 0).sum(axis=1).min() == 3  # m=1 is released, all three are kept
    images = auxiliary_images(load("digits", Location()), None, TRIAL.data, 3, TRIAL.auxiliary).images
    expected = predict(kept.target(), images, torch.device("cpu")).softmax(1)
    assert np.array_equal(scores, expected.numpy())


def test_images_read_a_batch_at_a_time_change_no_byte(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "HELD_BYTES", 0)
    monkeypatch.setattr(selection, "MOST_KEPT_BYTES", 0)
    other = Kept(tmp_path)
    for stage in tiny.stages(TRIAL):
        held, read = kept.artifact(stage), other.artifact(stage)
        assert (read.files, read.metrics) == (held.files, held.metrics), stage


def test_victims_are_the_targets_own_images_without_those_held_out(kept: Kept) -> None:
    digits = load("digits", Location())
    train = target_images(digits, TRIAL.data, 3, "train")
    fitted, held_out = hold_out(len(train), 0.1, TRIAL.target.seed)
    test = target_images(digits, TRIAL.data, 3, "evaluation")
    known = {
        part: {image.numpy().tobytes() for image in images[:]}
        for part, images in (
            ("train", train.images[fitted]),
            ("held out", train.images[held_out]),
            ("test", test.images),
        )
    }
    for part in ("train", "test"):
        shown = [image.tobytes() for image in kept.array("evaluation", f"victims_{part}.npy")]
        assert len(shown) == TRIAL.evaluation.grid
        assert set(shown) <= known[part]
        assert not set(shown) & known["held out"]
    assert kept.array("victims", "scores_train.npy").shape == (16, 3)


def test_the_judge_learns_every_class_from_other_weights(kept: Kept) -> None:
    data = kept.store.read(kept.artifact("judge"), "model.safetensors")
    assert load_tensors(data)["head.3.weight"].shape[0] == 10
    judge = build_classifier(TRIAL.judge.model, classes=10, channels=1, image_size=32)
    judge.load_state_dict(load_tensors(data))
    test = judge_images(load("digits", Location()), TRIAL.data, "evaluation")
    accuracy = (
        (predict(judge, test.images, torch.device("cpu")).argmax(1) == test.labels).float().mean().item()
    )
    assert kept.artifact("judge").metrics["judge/accuracy"] == pytest.approx(accuracy)


def test_epsilon_is_that_of_every_batch_of_every_epoch(kept: Kept) -> None:
    defense = {"dp": {"noise_multiplier": 2.0}}
    recipe = {**tiny.RECIPE, "epochs": 3}
    trial = tiny.spec({"target.budget": "full", "target.defense": defense, "target.recipe": recipe})
    images = target_images(load("digits", Location()), trial.data, 3, "train")
    fitted, _ = hold_out(len(images), 0.1, trial.target.seed)
    dp, batches = trial.target.defense.dp, math.ceil(len(fitted) / 64)
    assert dp is not None
    assert batches > 1
    expected = epsilon(dp, 64 / len(fitted), 3 * batches)
    assert kept.artifact("target", trial).metrics["target/epsilon"] == pytest.approx(expected)


def test_the_target_accuracy_is_that_of_its_own_test_images(kept: Kept) -> None:
    test = target_images(load("digits", Location()), TRIAL.data, 3, "evaluation")
    logits = predict(kept.target(), test.images, torch.device("cpu"))
    accuracy = (logits.argmax(1) == test.labels).float().mean().item()
    assert kept.artifact("target").metrics["target/accuracy"] == pytest.approx(accuracy)


def test_reconstruction_error_is_that_of_the_stored_images(kept: Kept) -> None:
    trial = tiny.spec({"evaluation.images": 4, "evaluation.grid": 4})
    victims, guesses = (
        kept.array("evaluation", f"{name}_test.npy", trial).astype(float) / 255
        for name in ("victims", "reconstructions")
    )
    error = ((victims - guesses) ** 2).mean()
    metrics = kept.artifact("evaluation", trial).metrics
    assert metrics["inversion/mse_test"] == pytest.approx(error, abs=2e-3)  # stored images are rounded


def test_budgets_count_what_private_data_may_change(kept: Kept) -> None:
    metrics = kept.artifact("target").metrics
    network = kept.target()
    total = sum(parameter.numel() for parameter in network.parameters())
    frozen = sum(parameter.numel() for parameter in network.get_submodule("blocks.0").parameters())
    assert metrics["target/theta_t_millions"] == total / 1e6
    assert metrics["target/theta_c_millions"] == (total - frozen) / 1e6


def test_top5_is_left_out_where_there_are_fewer_classes(kept: Kept) -> None:
    assert "attack/accuracy_top5_test" in kept.artifact("evaluation").metrics  # ten classes to judge among


def test_an_error_names_its_stage_and_leaves_nothing(tmp_path: Path) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    stage = tiny.stages(tiny.spec({"judge.recipe": {"validation_fraction": 0.9999}}))["judge"]
    with pytest.raises(StageFailed) as caught:
        runner.run(stage, World(), store, Location())
    assert (caught.value.stage, caught.value.kind) == ("judge", "error")
    assert caught.value.message.startswith(
        "ValueError: 0 images are left to train on 1 workers after holding out 899 of 899"
    )
    assert store.keys() == []


def test_a_manifest_names_the_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H200 at {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)
    monkeypatch.setattr(runner, "_computed", lambda stage, inputs: (Outputs({"a": b"1"}, {}), {}))
    store = Artifacts(DirectoryBlobs(tmp_path))
    judge, target = (tiny.stages(TRIAL)[name] for name in ("judge", "target"))
    runner.run(judge, World(device=torch.device("cuda", 1)), store, Location())
    runner.run(target, World(), store, Location())
    on_device, on_cpu = (store.find(stage.key) for stage in (judge, target))
    assert on_device is not None
    assert on_cpu is not None
    expected = {"accelerator": "NVIDIA H200 at cuda:1", "capability": "9.0", "cudnn": "92600"}
    assert on_device.profile == on_cpu.profile | expected
    assert {"torch", "cpu"} <= on_cpu.profile.keys()


def test_a_missing_input_asks_for_the_trial_again(tmp_path: Path) -> None:
    stage = tiny.stages(TRIAL)["predictions"]
    with pytest.raises(StageFailed, match=r"input target .* is not stored") as caught:
        runner.run(stage, World(), Artifacts(DirectoryBlobs(tmp_path)), Location())
    assert caught.value.kind == "corrupt"


def test_a_data_set_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    digests = {"digits": "0" * 64}
    stage = tiny.plan(normalise(TRIAL), digests, tiny.PROFILE)["judge"]
    with pytest.raises(StageFailed, match=r"data set digits changed since .* start the sweep again"):
        runner.run(stage, World(), Artifacts(DirectoryBlobs(tmp_path)), Location())


def test_a_finished_stage_leaves_no_checkpoint(kept: Kept) -> None:
    tiny.run(TRIAL, kept.folder)
    assert kept.store.blobs.names("checkpoints/") == []


def test_every_planned_stage_has_its_function() -> None:
    for stage in tiny.stages(TRIAL).values():
        _, specs = runner.load_stage(stage)
        assert set(specs) == set(stage.specs)

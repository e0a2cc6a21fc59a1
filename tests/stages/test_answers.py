"""The stage `answers`: F's scores of every public image, and the mean feature of some of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import public_images
from orchestrator.stages import answers, runner
from orchestrator.stages.answers import asked
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.threat import FeatureBox
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny
from tests.attacks.priors import Parted


def spec(**changes: object) -> object:
    """Return the tiny trial of LOMMA-G with one small student."""
    student = {"model": tiny.DIGIT, "recipe": tiny.RECIPE, "seed": 5}
    attack = {"name": "lomma-g", "identity": {"students": {"one": student}}}
    return tiny.spec({"prior": {}, "attack": attack, "evaluation.task": "class-inference", **changes})


def box() -> FeatureBox:
    """Return a target of 2x2 images whose features are the pixels and whose logits are the first and 0."""
    linear = nn.Linear(4, 2)
    linear.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0] * 4]))
    linear.bias = nn.Parameter(torch.zeros(2))
    return FeatureBox(Parted(nn.Sequential(nn.Flatten(), linear)))


IMAGES = (torch.arange(7 * 4, dtype=torch.uint8) * 9).view(7, 1, 2, 2)


def test_every_image_is_asked_for_once_and_features_are_averaged() -> None:
    target = box()
    scores, mean = asked(target, IMAGES, batch_size=3)
    pixels = IMAGES.flatten(1).double() / 255
    assert target.num_queries == 7
    torch.testing.assert_close(scores[:, 0], pixels[:, 0].sigmoid().float())
    torch.testing.assert_close(mean, pixels.mean(dim=0).float())
    assert (scores.dtype, mean.dtype) == (torch.float32, torch.float32)


def test_a_seeded_part_is_averaged_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "AVERAGED", 3)
    means: list[Tensor] = [asked(box(), IMAGES, batch_size=size)[1] for size in (1, 4, 7)]
    chosen = answers._chosen(7)
    assert int(chosen.sum()) == 3
    assert chosen.tolist() != [True] * 3 + [False] * 4
    for mean in means:
        torch.testing.assert_close(mean, (IMAGES.flatten(1)[chosen].double() / 255).mean(dim=0).float())


def test_the_stage_asks_the_target_for_the_priors_images(tmp_path: Path) -> None:
    stages = tiny.stages(spec())  # type: ignore[arg-type]
    store = Artifacts(DirectoryBlobs(tmp_path))
    use_profile(tiny.PROFILE.threads)
    for name in ("pretrain", "target", "answers", "student.one"):
        runner.run(stages[name], World(), store, Location())
    left = store.find(stages["answers"].key)
    assert left is not None
    public = public_images(load("digits", Location()), tiny.spec().data).images
    assert left.metrics == {"answers/images": len(public), "answers/queries": len(public)}
    scores = np.load(io.BytesIO(store.read(left, "scores.npy")))
    assert scores.shape == (len(public), 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-5)
    mean = np.load(io.BytesIO(store.read(left, "mean_features.npy")))
    assert mean.ndim == 1
    student = store.find(stages["student.one"].key)
    assert student is not None
    assert set(student.metrics) == {
        "student/validation_loss",
        "student/validation_agreement",
        "student/best_epoch",
    }

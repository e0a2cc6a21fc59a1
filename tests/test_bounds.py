"""Spans modules: bounds of an inverter's error on MNIST: full scores beat the class's mean image.

The mean image of the right class has a squared error of 0.043 at 32x32 (10,000 images, bilinear); here it is
computed from the images at hand.
"""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from jobs import stage_data
from orchestrator.config.normalise import normalise
from orchestrator.config.study import Study
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import target_images
from orchestrator.stages import runner
from orchestrator.stages.graph import Profile, plan
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.validation import Preflight
from orchestrator.training.kernels import use_profile
from orchestrator.training.pairs import as_unit
from orchestrator.training.world import World

NET = {"name": "ami-digit", "width": 0.125}
F_RECIPE = {"epochs": 6, "batch_size": 32, "learning_rate": 0.002}
BASE = {
    "data": {"dataset": "mnist-few", "split": "half"},
    "target": {"classes": 10, "model": NET, "recipe": F_RECIPE},
    "auxiliary": {"kind": "same-test"},
    "attack": {"model": NET, "recipe": {"epochs": 12, "batch_size": 32, "learning_rate": 0.003}},
    "judge": {"model": NET, "recipe": {**F_RECIPE, "epochs": 1}},  # read by no assertion
    "evaluation": {"images": 1000},
}


@pytest.fixture(scope="module")
def location(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Stage 400 digits of each class."""
    folder = tmp_path_factory.mktemp("mnist")
    source = f"mnist:{shared_data / 'MNIST'}"
    flags = ["--name", "mnist-few", "--size", "32", "--per-class", "400"]
    done = CliRunner().invoke(stage_data.app, [source, str(folder), *flags])
    assert done.exit_code == 0, done.output
    return Location(DirectoryBlobs(folder))


def test_full_scores_beat_the_class_mean_and_one_score_comes_close(
    location: Location, tmp_path: Path
) -> None:
    study = Study.model_validate(
        {"study": "bounds", "base": BASE, "sweep": {"release.truncation": [1, None]}}
    )
    use_profile(1)
    preflight, store = Preflight(location), Artifacts(DirectoryBlobs(tmp_path))
    errors = []
    for point in preflight.resolve_all(expand(study)[0]):
        for stage in plan(normalise(point.spec), preflight.digests, Profile()).values():
            if store.find(stage.key) is None:
                runner.run(stage, World(), store, location)
        artifact = store.find(stage.key)
        assert artifact is not None
        errors.append(artifact.metrics["inversion/mse_train"])  # the adversary's own are the test images
    data = point.spec.data
    train, test = (target_images(load("mnist-few", location), data, 10, p) for p in ("train", "evaluation"))
    means = torch.stack([as_unit(test.images[test.labels == label]).mean(0) for label in range(10)])
    bound = (as_unit(train.images[:]) - means[train.labels]).square().mean().item()
    assert bound == pytest.approx(0.043, abs=0.003)
    one, full = errors
    assert full < 0.9 * bound
    assert abs(one - bound) < 0.1 * bound

"""Public networks measure attack images where their weights are staged, and change nothing else."""

import io
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load, weights
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import target_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.metrics.features import frechet_distance, knn_distance
from orchestrator.metrics.names import METRICS
from orchestrator.metrics.perceptual import features_of, inception_network, lpips_network, nearest_lpips
from orchestrator.models.inception_resnet import InceptionResnetV1, facenet
from orchestrator.stages import runner
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.kernels import use_profile
from orchestrator.training.pairs import as_unit
from orchestrator.training.world import World
from tests import tiny
from tests.stages.test_pretrain import planned

MEASURES = {
    "inception": ("fid", "precision", "recall", "density", "coverage"),
    "facenet": ("delta_facenet",),
    "vgg": ("lpips_vgg",),
    "alex": ("lpips_alex",),
}
# F's training images are the references: few enough here to pass through every network.
FEW: dict[str, Any] = {
    "data.dataset": "few",
    "target.classes": 2,
    "target.pretrain": None,
    "target.budget": "full",
    "auxiliary.size": 4,
    "evaluation.images": 7,
}


def body(name: str) -> dict[str, Tensor]:
    """Return the weights of torchvision's convolutions, as large as activations stay."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(weights=None).features.state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        f"features.{layer}": (2 / tensor[0].numel()) ** 0.5 * torch.randn(tensor.shape, generator=generator)
        for layer, tensor in shapes.items()
    }


@pytest.fixture(scope="module")
def public() -> dict[str, dict[str, Tensor]]:
    """Return random weights of every network, named as in the public files."""
    torch.manual_seed(0)
    inception = torchvision.models.inception_v3(weights=None, init_weights=False)
    return {
        "inception": inception.state_dict(),
        "facenet": InceptionResnetV1().state_dict(),
        "vgg": body("vgg16"),
        "alex": body("alexnet"),
    }


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory, public: dict[str, dict[str, Tensor]]) -> Location:
    """Return a data location with these weights and a few digits: the networks take seconds for a hundred."""
    blobs, digits = DirectoryBlobs(tmp_path_factory.mktemp("data")), load("digits", Location())
    source = array_source("npz", digits.images[:], digits.labels, digits.class_names, "0" * 64)
    publish(source, Options(per_class=8), blobs, "few")
    for name, state in public.items():
        weights.stage(state, "random", blobs, name)
    return Location(blobs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Return a store that the trials of this file share."""
    return Artifacts(DirectoryBlobs(tmp_path_factory.mktemp("runs")))


def trial(task: str, networks: tuple[str, ...]) -> TrialSpec:
    """Return a tiny trial over few images, measured by networks."""
    named = {"evaluation.networks": {name: name for name in networks}, "evaluation.task": task}
    return tiny.spec({**FEW, **named})


def evaluated(trial: TrialSpec, location: Location, store: Artifacts) -> Artifact:
    """Build what is missing of a trial; return what its evaluation left."""
    use_profile(1)
    stages = planned(trial, location)
    for stage in stages.values():
        if store.find(stage.key) is None:
            runner.run(stage, World(), store, location)
    artifact = store.find(stages["evaluation"].key)
    assert artifact is not None
    return artifact


def array(store: Artifacts, artifact: Artifact, name: str) -> np.ndarray:
    return np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False)


TASKS = {
    "reconstruction": (("train", "test"), "attack/{}_{}", tuple(MEASURES)),
    "class-inference": (("class",), "class/{}", ("inception", "facenet", "alex")),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_network_adds_its_measures_and_changes_nothing_else(
    task: str, location: Location, store: Artifacts
) -> None:
    parts, name, networks = TASKS[task]
    plain, full = (evaluated(trial(task, names), location, store) for names in ((), networks))
    added = {name.format(one, part) for network in networks for one in MEASURES[network] for part in parts}
    # Up to three images of a class have no manifold that could cover anything: not known.
    added -= {"attack/recall_test", "class/recall"}
    assert set(full.metrics) - set(plain.metrics) == added
    assert {one: full.metrics[one] for one in plain.metrics} == plain.metrics
    assert all(np.isfinite(full.metrics[one]) for one in added)
    assert set(full.files) == set(plain.files)
    new = [one for network in networks if network != "inception" for one in MEASURES[network]]
    for part in parts:
        before, after = (array(store, one, f"per_image_{part}.npy") for one in (plain, full))
        fields = list(before.dtype.names or ())
        assert list(after.dtype.names or ()) == fields + new
        assert all(np.array_equal(before[field], after[field]) for field in fields)
        for file in (f"grid_{part}.png", f"reconstructions_{part}.npy", f"victims_{part}.npy"):
            assert full.files[file].sha256 == plain.files[file].sha256


def test_the_table_of_metrics_says_which_network_each_needs() -> None:
    needs = {name: metric.needs for name, metric in METRICS.items() if metric.of != "stage" and metric.needs}
    assert needs == {one: network for network, names in MEASURES.items() for one in names}


def test_only_the_evaluation_is_another_one(location: Location) -> None:
    plain, full = (planned(trial("reconstruction", names), location) for names in ((), tuple(MEASURES)))
    assert [name for name in plain if plain[name].key != full[name].key] == ["evaluation"]
    assert full["evaluation"].weights.keys() == MEASURES.keys()


def test_the_measures_are_those_of_the_stored_images(
    location: Location, store: Artifacts, public: dict[str, dict[str, Tensor]]
) -> None:
    spec = trial("reconstruction", tuple(MEASURES))
    artifact = evaluated(spec, location, store)
    known = target_images(load("few", location), spec.data, 2, "train")
    reconstructions = as_unit(torch.from_numpy(array(store, artifact, "reconstructions_test.npy")))
    rows = array(store, artifact, "per_image_test.npy")
    labels, device = torch.from_numpy(rows["label"]).long(), torch.device("cpu")
    pictures = (reconstructions, labels, known.images, known.labels)
    for kind in ("vgg", "alex"):
        found = nearest_lpips(lpips_network(kind, public[kind]), *pictures)
        assert rows[f"lpips_{kind}"] == pytest.approx(found.numpy(), rel=0.02)  # stored in 8 bits
    network = facenet(public["facenet"])
    ours, theirs = (
        features_of(network, images, 160, device, normalise="facenet")
        for images in (reconstructions, known.images)
    )
    assert rows["delta_facenet"] == pytest.approx(
        knn_distance(ours, labels, theirs, known.labels).numpy(), rel=0.02
    )
    network = inception_network(public["inception"])
    ours, theirs = (
        features_of(network, images, 299, device, normalise="symmetric")
        for images in (reconstructions, known.images)
    )
    seen = torch.isin(known.labels, labels)
    assert artifact.metrics["attack/fid_test"] == pytest.approx(
        frechet_distance(theirs[seen], ours), rel=0.02
    )

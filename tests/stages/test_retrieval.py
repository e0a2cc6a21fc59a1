"""Stage `retrieval`: ranks of own images and classes, photographs, starts: derived again from the store."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from orchestrator.config import TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.selection import ImageSet, auxiliary_images, private_classes, target_images
from orchestrator.models.build import build_classifier, build_generator
from orchestrator.models.classifier import Classifier
from orchestrator.stages.graph import IMAGES
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.pairs import hold_out
from orchestrator.training.seeds import derive_seed
from tests import tiny

SEARCH = {"attack": {"name": "optimization", "steps": 2, "start": 0.2}}
MIA = {"name": "mia", "steps": 2}
CLASSES: dict[str, Any] = {"evaluation.task": "class-inference", "evaluation.classes": [2, 0]}
DIGITS = load("digits", Location())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("retrieval")


def stored(folder: Path, trial: TrialSpec, stage: str, name: str) -> bytes:
    """Return a file that a stage of a trial left."""
    tiny.run(trial, folder)
    store = Artifacts(DirectoryBlobs(folder))
    artifact = store.find(tiny.stages(trial)[stage].key)
    assert artifact is not None
    return store.read(artifact, name)


def array(folder: Path, trial: TrialSpec, stage: str, name: str) -> np.ndarray:
    """Return an array that a stage of a trial left."""
    return np.load(io.BytesIO(stored(folder, trial, stage, name)), allow_pickle=False)


def judge(folder: Path, trial: TrialSpec) -> Classifier:
    """Return the trained evaluation model."""
    network: Classifier = build_classifier(trial.judge.model, classes=10, channels=1, image_size=32)
    network.load_state_dict(load_tensors(stored(folder, trial, "judge", "model.safetensors")))
    return network.eval()


def seen(network: Classifier, images: torch.Tensor) -> np.ndarray:
    """Return the evaluation model's features of images, uint8 or in [0, 1], float64 (N, d)."""
    unit = images / 255.0 if images.dtype == torch.uint8 else images
    with torch.inference_mode():
        return network.blocks(unit).flatten(1).double().numpy()


def ranked(network: Classifier, images: torch.Tensor, wanted: list[int]) -> list[int]:
    """Return the rank of each image's class in the evaluation model's scores."""
    unit = images / 255.0 if images.dtype == torch.uint8 else images
    with torch.inference_mode():
        order = network(unit).argsort(1, descending=True).tolist()
    return [row.index(label) + 1 for row, label in zip(order, wanted, strict=True)]


def held(images: Images) -> torch.Tensor:
    """Return images that are in memory: the set is small."""
    assert isinstance(images, torch.Tensor)
    return images


def gallery(trial: TrialSpec, part: str) -> tuple[ImageSet, torch.Tensor]:
    """Return the images of a part that are attacked, or could be, and which of them are."""
    images = target_images(DIGITS, trial.data, 3, "train" if part == "train" else "evaluation")
    if part == "train":
        members = hold_out(len(images), 0.1, trial.target.seed)[0]
        images = ImageSet(images.images[members], images.labels[members], 3)
    generator = torch.Generator().manual_seed(derive_seed("evaluation", trial.evaluation.seed))
    return images, torch.randperm(len(images), generator=generator)[: trial.evaluation.images]


@pytest.mark.parametrize("changes", [{}, SEARCH], ids=["inverter", "search"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_own_images_are_ranked_among_those_of_their_class(
    folder: Path, changes: dict[str, Any], part: str
) -> None:
    trial = tiny.spec(changes)
    rows = array(folder, trial, "retrieval", f"per_image_{part}.npy")
    stage = next(name for name in IMAGES if name in tiny.stages(trial))
    made = torch.from_numpy(array(folder, trial, stage, f"reconstructions_{part}.npy"))
    private, own = gallery(trial, part)
    network, labels = judge(folder, trial), private.labels.numpy()
    assert rows["label"].tolist() == labels[own].tolist()
    pixels, queries = (one.flatten(1).double().numpy() / 255 for one in (held(private.images), made))
    features, asked = seen(network, held(private.images)), seen(network, made)
    for row, place in enumerate(own.tolist()):
        members = np.flatnonzero(labels == labels[place])
        assert rows["retrieval_chance"][row] == pytest.approx(1 / len(members))
        for name, (query, known) in {
            "retrieval": (queries[row], pixels),
            "retrieval_feature": (asked[row], features),
        }.items():
            distances = ((known[members] - query) ** 2).sum(axis=1)
            rank = 1 + (distances < distances[members == place][0] * (1 - 1e-6)).sum()
            found = rows[f"{name}_rank"][row]
            assert found == pytest.approx(rank, abs=0.51), name  # features of ones that are equally near
            assert rows[f"{name}_nearer"][row] == pytest.approx((found - 1) / (len(members) - 1), rel=1e-5)
            assert (rows[f"{name}_top1"][row] > 0) == (found < 2)
    wanted = np.array(private_classes(DIGITS, trial.data, 3))[labels[own]].tolist()
    assert rows["class_rank"].tolist() == ranked(network, made, wanted)
    metrics = tiny.run(trial, folder)
    for name in ("retrieval_nearer", "retrieval_feature_rank", "class_rank", "ceiling_class_rank"):
        assert metrics[f"attack/{name}_{part}"] == pytest.approx(rows[name].mean(dtype=np.float64), rel=1e-6)
    top1, chance = (metrics[f"attack/retrieval_{name}_{part}"] for name in ("top1", "chance"))
    over = metrics[f"attack/retrieval_over_chance_{part}"]
    assert over == pytest.approx((top1 - chance) / (1 - chance))


def test_the_ceiling_are_photographs_nobody_was_trained_on(folder: Path) -> None:
    """Of the part test the attacked photographs themselves, whose acceptance the judge's accuracy repeats."""
    trial = tiny.spec()
    network, (private, own) = judge(folder, trial), gallery(trial, "test")
    rows = array(folder, trial, "retrieval", "per_image_test.npy")
    wanted = np.array(private_classes(DIGITS, trial.data, 3))[private.labels[own].numpy()].tolist()
    ranks = ranked(network, private.images[own], wanted)
    assert rows["ceiling_class_rank"].tolist() == ranks
    assert rows["ceiling_accepted"].tolist() == [rank == 1 for rank in ranks]
    names = np.array(private_classes(DIGITS, trial.data, 3))[private.labels.numpy()].tolist()
    every: np.ndarray = np.asarray(ranked(network, held(private.images), names))
    train = array(folder, trial, "retrieval", "per_image_train.npy")
    for label in range(3):
        possible = every[private.labels.numpy() == label]
        assert set(train["ceiling_class_rank"][train["label"] == label]) <= set(possible)


@pytest.mark.parametrize(
    ("changes", "level"),
    [({}, None), (SEARCH, 0.2), ({**CLASSES, "attack": MIA}, 0.0)],
    ids=["inverter", "search", "mia"],
)
def test_the_floor_is_what_the_attack_starts_from(
    folder: Path, changes: dict[str, Any], level: float | None
) -> None:
    trial = tiny.spec(changes)
    part = "class" if "evaluation.task" in changes else "test"
    rows = array(folder, trial, "retrieval", f"per_image_{part}.npy")
    if level is None:
        own = auxiliary_images(DIGITS, None, trial.data, 3, trial.auxiliary).images
        start = (held(own).double().mean(0) / 255).float()
    else:
        start = torch.full((1, 32, 32), level)
    wanted = np.array(private_classes(DIGITS, trial.data, 3))[rows["label"]].tolist()
    expected = ranked(judge(folder, trial), start.expand(len(rows), 1, 32, 32), wanted)
    assert rows["floor_class_rank"].tolist() == expected
    assert rows["floor_accepted"].tolist() == [rank == 1 for rank in expected]


def test_classes_have_ranks_and_no_own_image(folder: Path) -> None:
    trial = tiny.spec({**CLASSES, "attack": MIA})
    rows = array(folder, trial, "retrieval", "per_image_class.npy")
    assert rows["label"].tolist() == [2, 0]
    assert not [name for name in rows.dtype.names or () if name.startswith("retrieval")]
    metrics = tiny.run(trial, folder)
    assert metrics["class/class_rank"] == pytest.approx(rows["class_rank"].mean())
    top1 = array(folder, trial, "evaluation", "per_image_class.npy")["judge_top1"]
    assert (rows["class_rank"] == 1).tolist() == (top1 == 1).tolist()


def test_a_search_of_latents_starts_from_images_of_its_prior(folder: Path) -> None:
    prior = {"model": {"name": "gmi", "width": 0.02}, "epochs": 1}
    attack = {"name": "gmi", "steps": 1, "seed": 5}
    trial = tiny.spec({**CLASSES, "attack": attack, "prior": prior})
    rows = array(folder, trial, "retrieval", "per_image_class.npy")
    assert trial.prior is not None
    generator = build_generator(trial.prior, classes=0, channels=1, image_size=32)
    generator.load_state_dict(load_tensors(stored(folder, trial, "prior", "generator.safetensors")))
    drawn = torch.Generator().manual_seed(derive_seed("floor", 5))
    latents = torch.randn(256, generator.latent_size, generator=drawn)[:2]
    with torch.inference_mode():
        starts = generator.eval()(latents)
    wanted = np.array(private_classes(DIGITS, trial.data, 3))[rows["label"]].tolist()
    assert rows["floor_class_rank"].tolist() == ranked(judge(folder, trial), starts, wanted)

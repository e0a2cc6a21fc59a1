"""Pretraining: public weights loaded bit for bit, checked on images, refused where they do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from orchestrator.config import Data, Model, Recipe, TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, load, verify, weights
from orchestrator.datasets.selection import ImageSet, whole
from orchestrator.models.build import build_classifier
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed, dataset_names, plan, weight_names
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.validation import Preflight
from orchestrator.training.kernels import use_profile
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import World
from tests import tiny
from tests.sweep.test_validation import copy_of_digits, point

State = dict[str, Tensor]
PUBLIC = {"target.pretrain": {"weights": "net", "dataset": "digits"}}
UNCHECKED = {"target.pretrain": {"weights": "net"}}


def network(classes: int, model: dict[str, Any] | None = None, image_size: int = 32) -> Any:
    """Return an untrained classifier of grey images."""
    spec = Model.model_validate(model or tiny.DIGIT)
    build = lambda: build_classifier(spec, classes=classes, channels=1, image_size=image_size)  # noqa: E731
    return seeded(build, 9)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    """Return all digits with their labels."""
    return whole(load("digits", Location()), Data(dataset="digits"))


@pytest.fixture(scope="module")
def trained(digits: ImageSet) -> State:
    """Return the weights of a classifier of all ten digits."""
    torch.set_num_threads(1)
    model, recipe = network(10), Recipe(epochs=3, batch_size=64, learning_rate=0.01)
    fit(model, Pairs(digits.images, digits.labels), classification(), recipe, 0, World())
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


@pytest.fixture
def location(tmp_path: Path, trained: State) -> Location:
    """Return a data location at which these weights are staged."""
    return staged(tmp_path / "data", net=trained)


def staged(folder: Path, **states: State) -> Location:
    """Return a data location at which weights are staged under their names."""
    blobs = DirectoryBlobs(folder)
    for name, state in states.items():
        weights.stage(state, "test", blobs, name)
    return Location(blobs)


def planned(trial: TrialSpec, location: Location) -> dict[str, Stage]:
    """Return the planned stages of a trial over data sets and weights of a location."""
    digests = {name: verify(name, location).digest for name in dataset_names(trial).values()}
    for name in weight_names(trial).values():
        digests[weights.key_of(name)] = weights.describe(name, location).digest
    return plan(normalise(trial), digests, tiny.PROFILE)


def built(trial: TrialSpec, location: Location, folder: Path, *names: str) -> Artifacts:
    """Build some stages of a trial, or all."""
    use_profile(1)
    store = Artifacts(DirectoryBlobs(folder))
    for name, stage in planned(trial, location).items():
        if (not names or name in names) and store.find(stage.key) is None:
            runner.run(stage, World(), store, location)
    return store


def left(store: Artifacts, stage: Stage) -> tuple[State, dict[str, float]]:
    """Return the weights and the metrics that a stage left."""
    artifact = store.find(stage.key)
    assert artifact is not None
    return load_tensors(store.read(artifact, "model.safetensors")), dict(artifact.metrics)


def test_the_targets_body_is_the_staged_one_bit_for_bit(
    location: Location, trained: State, tmp_path: Path
) -> None:
    trial = tiny.spec({**PUBLIC, "target.budget": "block2", "target.freeze": "weights+statistics"})
    store, stages = built(trial, location, tmp_path, "pretrain", "target"), planned(trial, location)
    public, _ = left(store, stages["pretrain"])
    target, _ = left(store, stages["target"])
    assert public.keys() == trained.keys()
    assert all(torch.equal(public[name], trained[name]) for name in trained)
    frozen = [name for name in target if name.startswith(("blocks.0.", "blocks.1."))]
    assert len(frozen) == 14
    assert all(torch.equal(target[name], trained[name]) for name in frozen)
    assert not torch.equal(target["blocks.2.0.weight"], trained["blocks.2.0.weight"])


def test_their_accuracy_is_that_of_their_own_head(
    location: Location, trained: State, digits: ImageSet, tmp_path: Path
) -> None:
    trial = tiny.spec(PUBLIC)
    store = built(trial, location, tmp_path, "pretrain")
    _, metrics = left(store, planned(trial, location)["pretrain"])
    model = network(10)
    model.load_state_dict(trained)
    is_right = predict(model, digits.images, torch.device("cpu")).argmax(1) == digits.labels
    assert metrics == {"pretrain/accuracy": pytest.approx(is_right.double().mean().item())}
    assert metrics["pretrain/accuracy"] > 0.7  # that of one class is 0.1


def test_without_a_labelled_set_nothing_is_measured(
    location: Location, trained: State, tmp_path: Path
) -> None:
    trial = tiny.spec(UNCHECKED)
    store = built(trial, location, tmp_path, "pretrain")
    public, metrics = left(store, planned(trial, location)["pretrain"])
    assert metrics == {}
    body = [name for name in trained if name.startswith("blocks.")]
    assert all(torch.equal(public[name], trained[name]) for name in body)


def test_a_trial_of_public_weights_goes_through_every_stage(location: Location, tmp_path: Path) -> None:
    trial = tiny.spec(PUBLIC)
    metrics = {}
    for folder in ("one", "other"):
        store = built(trial, location, tmp_path / folder)
        artifacts = [store.find(stage.key) for stage in planned(trial, location).values()]
        metrics[folder] = [artifact.metrics for artifact in artifacts if artifact]
        assert len(metrics[folder]) == len(planned(trial, location))
    assert metrics["one"] == metrics["other"]


def test_a_librarys_names_fill_the_network_and_what_they_lack_keeps_its_first_values(tmp_path: Path) -> None:
    vgg = {"name": "vgg16", "width": 0.02}
    ours = network(2, vgg, 64).state_dict()
    theirs = {
        f"module.{name.replace('blocks.', 'features.')}": tensor
        for name, tensor in ours.items()
        if name.startswith("blocks.") and "norm" not in name
    }
    theirs["module.classifier.0.weight"] = torch.ones(4096, 2)
    location = staged(tmp_path / "data", net=theirs)
    trial = tiny.spec({**UNCHECKED, "data.image_size": 64, "target.model": vgg, "target.budget": "conv2_1"})
    public, _ = left(built(trial, location, tmp_path, "pretrain"), planned(trial, location)["pretrain"])
    for name in (name for name in ours if name.startswith("blocks.") and "norm" not in name):
        assert torch.equal(public[name], ours[name]), name
    assert torch.equal(public["blocks.norm.weight"], torch.ones_like(public["blocks.norm.weight"]))


@pytest.mark.parametrize(
    "pretrain", [{"weights": "net", "dataset": "digits"}, {"recipe": tiny.RECIPE}], ids=["weights", "trained"]
)
def test_too_low_an_accuracy_fails_before_the_target_is_trained(
    pretrain: dict[str, Any], location: Location, tmp_path: Path
) -> None:
    trial = tiny.spec({"target.pretrain": {**pretrain, "minimum_accuracy": 0.999}})
    with pytest.raises(StageFailed) as caught:
        built(trial, location, tmp_path / "runs")
    assert caught.value.stage == "pretrain"
    reached = caught.value.message.split()[6].rstrip(",")
    assert caught.value.message == (
        f"ValueError: target.pretrain reaches an accuracy of {reached}, below target.pretrain."
        "minimum_accuracy=0.999; check the weights and the scaling of images, or lower it."
    )
    assert 0 < float(reached) < 0.999
    assert Artifacts(DirectoryBlobs(tmp_path / "runs")).keys() == []
    low = tiny.spec({"target.pretrain": {**pretrain, "minimum_accuracy": float(reached) - 0.001}})
    built(low, location, tmp_path / "runs", "pretrain")


def test_how_weights_would_be_trained_here_changes_no_key(location: Location) -> None:
    def keys(changes: dict[str, Any]) -> dict[str, str]:
        trial = tiny.spec({"target.pretrain": {"weights": "net", **changes}})
        return {name: stage.key for name, stage in planned(trial, location).items()}

    plain = keys({})
    assert keys({"recipe": tiny.RECIPE, "seed": 5}) == plain
    checked = keys({"dataset": "digits"})
    assert {name for name in plain if checked[name] == plain[name]} == {"judge"}


def test_another_set_is_pretrained_on_once_for_all_private_sets(tmp_path: Path) -> None:
    copy_of_digits(tmp_path / "data", "copy")
    location = Location(DirectoryBlobs(tmp_path / "data"))

    def key(changes: dict[str, Any], pretrain: dict[str, Any]) -> str:
        trial = tiny.spec({**changes, "target.pretrain": {"recipe": tiny.RECIPE, **pretrain}})
        return planned(trial, location)["pretrain"].key

    named: dict[str, Any] = {"dataset": "digits"}
    copied, split = {"data.dataset": "copy"}, {"data.class_seed": 3}
    assert key(copied, named) == key(split, named) == key({}, named)
    assert len({key({}, {}), key(split, {}), key({}, named)}) == 3
    assert len({key({}, named), key({"data.image_size": 28}, named), key({}, {"dataset": "copy"})}) == 3
    trial = tiny.spec({**copied, "target.pretrain": {"recipe": tiny.RECIPE, **named}})
    store = built(trial, location, tmp_path / "runs", "pretrain")
    assert store.keys() == [key({}, named)]


def test_other_weights_of_the_same_name_are_another_key_and_refused_by_an_old_plan(
    location: Location, trained: State, tmp_path: Path
) -> None:
    trial = tiny.spec(UNCHECKED)
    old = planned(trial, location)["pretrain"]
    other = staged(tmp_path / "other", net={name: tensor + 1 for name, tensor in trained.items()})
    assert planned(trial, other)["pretrain"].key != old.key
    store = Artifacts(DirectoryBlobs(tmp_path / "runs"))
    told = r"weights net changed since the sweep was planned \(want .{12}, got .{12}\); start the sweep again"
    with pytest.raises(StageFailed, match=told):
        runner.run(old, World(), store, other)
    assert store.keys() == []


def refusal(location: Location, changes: dict[str, Any]) -> str:
    """Return why the tiny trial with dotted paths changed cannot run."""
    with pytest.raises(StudyError) as caught:
        Preflight(location).resolve(point(changes))
    return str(caught.value)


def test_weights_that_cannot_serve_are_told_before_anything_runs(location: Location, tmp_path: Path) -> None:
    assert location.blobs is not None
    other = staged(
        tmp_path / "data",
        five=network(5).state_dict(),
        narrow={n: t[:9] if n.startswith("head.1.") else t for n, t in network(10).state_dict().items()},
        headless={name: t for name, t in network(2).state_dict().items() if name.startswith("blocks.")},
        vgg=network(10, {"name": "vgg16", "width": 0.02}, 64).state_dict(),
        wide=network(10, {"name": "ami-digit", "width": 0.05}).state_dict(),
    )
    public = "target.pretrain.weights"
    unknown = (
        f"is unknown; staged at {location.blobs.uri} are five, headless, narrow, net, vgg, wide; correct the "
        "name or stage the weights with python -m jobs.stage_weights."
    )
    way_out = "choose weights of the same architecture."
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target.pretrain": {"weights": "nett"}}, f"{public}=nett {unknown}"),
        ({"evaluation.networks": {"vgg": "nett"}}, f"evaluation.networks.vgg=nett {unknown}"),
        (
            {"target.pretrain": {"weights": "vgg"}},
            f"{public}=vgg do not fit AmiClassifier: 18 tensors are missing (first: blocks.0.0.weight), 96 "
            f"unknown (first: blocks.0.bias); {way_out}",
        ),
        (
            {"target.pretrain": {"weights": "wide"}},
            f"{public}=wide do not fit AmiClassifier: 18 of another shape (first: blocks.0.0.weight has (6, "
            f"1, 3, 3), wants (4, 1, 3, 3)); {way_out}",
        ),
        (
            {**UNCHECKED, "data.channels": 3},
            f"{public}=net do not fit AmiClassifier: 1 of another shape (first: blocks.0.0.weight has (4, 1, "
            f"3, 3), wants (4, 3, 3, 3)); {way_out}",
        ),
        (
            {"target.pretrain": {"weights": "five", "dataset": "digits"}},
            f"{public}=five tell 5 classes, but target.pretrain.dataset=digits, which is to check them, "
            "has 10; name a set with as many, or null to check nothing.",
        ),
        (
            {"target.pretrain": {"weights": "narrow", "dataset": "digits"}},
            f"{public}=narrow have another head, but target.pretrain.dataset=digits, which is to check them, "
            "has 10; name a set with as many, or null to check nothing.",
        ),
        (
            {"target.pretrain": {"weights": "headless", "dataset": "digits"}},
            f"{public}=headless have no head, but target.pretrain.dataset=digits, which is to check them, "
            "has 10; name a set with as many, or null to check nothing.",
        ),
    ]
    for changes, text in cases:
        assert refusal(other, changes) == text
    assert refusal(Location(), UNCHECKED) == (
        f"{public}=net is unknown: weights are staged at a data location; name it with --data."
    )


def test_weights_that_serve_are_accepted_with_their_digest(location: Location) -> None:
    preflight = Preflight(location)
    for changes in (PUBLIC, UNCHECKED):
        preflight.resolve(point(changes))
    assert preflight.digests["weights/net"] == weights.describe("net", location).digest


def test_weights_and_sets_stand_side_by_side(location: Location, tmp_path: Path) -> None:
    copy_of_digits(tmp_path / "data", "net")  # a data set of the same name
    preflight = Preflight(location)
    preflight.resolve(point({**UNCHECKED, "data.dataset": "net"}))
    assert preflight.digests["weights/net"] != preflight.digests["net"]
    told = refusal(location, {"data.dataset": "weights"})
    assert told.endswith("are net; correct the name or stage the set with python -m jobs.stage_data.")


def test_judges_start_from_public_weights(location: Location, trained: State, tmp_path: Path) -> None:
    """With steps of next to nothing they keep the body; one of them starts at random."""
    still = {**tiny.RECIPE, "learning_rate": 1e-9}
    judge = {"model": tiny.DIGIT, "recipe": still, "seed": 42, "weights": "net"}
    further = {"near": {**judge, "seed": 43}, "random": {**judge, "seed": 44, "weights": None}}
    trial = tiny.spec({"judge": judge, "judges": {"classifiers": further}})
    labels = ("judge", "judge.near", "judge.random")
    store, stages = built(trial, location, tmp_path, *labels), planned(trial, location)
    for label in labels:
        state, _ = left(store, stages[label])
        kernels = [name for name in state if name.endswith("weight") and state[name].ndim == 4]
        assert len(kernels) > 2
        near = [torch.allclose(state[name], trained[name], atol=1e-6) for name in kernels]
        assert near == [label != "judge.random"] * len(kernels)
        head = next(name for name in state if name.startswith("head") and name.endswith("weight"))
        assert not torch.allclose(state[head], trained[head], atol=1e-3)


def test_weights_that_no_judge_can_start_from_are_refused(location: Location) -> None:
    wide = {"model": {"name": "ami-digit", "width": 0.05}, "seed": 43, "weights": "net"}
    changes: dict[str, Any]
    for changes, text in (
        (
            {"judges": {"classifiers": {"wide": wide}}},
            "^judges.classifiers.wide.weights=net do not fit AmiClassifier: ",
        ),
        ({"judge.weights": "absent"}, "^judge.weights=absent is unknown; staged at "),
        (
            {"judges": {"classifiers": {"wide": {**wide, "weights": "absent"}}}},
            "^judges.classifiers.wide.weights=absent is unknown; staged at ",
        ),
    ):
        preflight = Preflight(location)
        for _ in range(2):  # what was refused is not taken for checked
            with pytest.raises(StudyError, match=text):
                preflight.resolve(point(changes))

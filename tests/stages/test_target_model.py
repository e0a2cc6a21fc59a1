"""The target F: frozen layers keep every bit, reused activations change nothing, epochs are kept."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.config import Recipe, TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import target_images
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze
from orchestrator.stages import runner
from orchestrator.stages import target as target_stage
from orchestrator.stages.graph import StageFailed
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training import optimizers
from orchestrator.training.kernels import use_profile
from orchestrator.training.loop import predict
from orchestrator.training.world import World
from tests import tiny
from tests.training.test_loop import noting

State = dict[str, Tensor]
RECIPE = {**tiny.RECIPE, "epochs": 2, "weight_decay": 0.01}
VGG = {"data.image_size": 64, "target.model": {"name": "vgg16", "width": 0.02}}
CASES: dict[str, dict[str, Any]] = {
    "ami-digit": {"target.budget": "block2"},
    "vgg16": {**VGG, "target.budget": "conv3_3"},
    "vgg16 scaled": {**VGG, "target.budget": "conv5_3", "target.model.scaling": "imagenet"},
}
FIXED = {"target.freeze": "weights+statistics"}


def trial(changes: Mapping[str, Any]) -> TrialSpec:
    """Return a tiny trial whose target trains for two epochs, with dotted paths changed."""
    return tiny.spec({"target.recipe": RECIPE, **changes})


class Store:
    """What victims of trials have left."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = Artifacts(DirectoryBlobs(folder))

    def left(self, spec: TrialSpec, stage: str = "target", world: World | None = None) -> Artifact:
        """Return what a stage of the target leaves, after building those before it."""
        use_profile(1)
        stages = tiny.stages(spec)
        for name in ("pretrain", "target", "snapshot"):
            if name in stages and self.artifacts.find(stages[name].key) is None:
                runner.run(stages[name], world or World(), self.artifacts, Location())
            if name == stage:
                break
        found = self.artifacts.find(stages[stage].key)
        assert found is not None
        return found

    def state(self, spec: TrialSpec, stage: str = "target", file: str = "model.safetensors") -> State:
        """Return weights that a stage of the target leaves."""
        return load_tensors(self.artifacts.read(self.left(spec, stage), file))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store that the tests of this file share."""
    return Store(tmp_path_factory.mktemp("victims"))


def network(spec: TrialSpec) -> Classifier:
    """Return the target's network with first weights."""
    data, target = spec.data, spec.target
    return build_classifier(target.model, classes=3, channels=data.channels, image_size=data.image_size)


def parts(spec: TrialSpec, state: State) -> tuple[State, State]:
    """Split what the blocks hold into frozen and trained."""
    model = network(spec)
    frozen = freeze(model, spec.target.budget).blocks
    names = [f"blocks.{name}." for name, _ in model.blocks.named_children()]
    begins = tuple(names[place] for place in frozen)
    blocks = {name: tensor for name, tensor in state.items() if name.startswith("blocks.")}
    is_frozen = {name: name.startswith(begins) for name in blocks}
    return {n: t for n, t in blocks.items() if is_frozen[n]}, {
        n: t for n, t in blocks.items() if not is_frozen[n]
    }


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize("mode", ["weights", "weights+statistics"])
@pytest.mark.parametrize("case", CASES)
def test_frozen_blocks_keep_what_they_should_bit_for_bit(case: str, mode: str, store: Store) -> None:
    spec = trial({**CASES[case], "target.freeze": mode})
    public = store.state(spec, "pretrain")
    frozen, trained = parts(spec, store.state(spec))
    assert frozen
    assert trained
    for name, tensor in frozen.items():
        keeps = mode == "weights+statistics" or not is_statistic(name)
        assert torch.equal(tensor, public[name]) is keeps, name
    weights = [name for name in trained if name.endswith("weight")]
    assert weights
    assert not any(torch.equal(trained[name], public[name]) for name in weights)


def test_the_set_of_first_layers_leaves_the_middle_alone(store: Store) -> None:
    spec = trial({**VGG, **FIXED, "target.budget": "first"})
    public = store.state(spec, "pretrain")
    frozen, trained = parts(spec, store.state(spec))
    model = network(spec)
    first, middle = model.layer_groups
    names = [f"blocks.{name}." for name, _ in model.blocks.named_children()]
    assert {name for name in frozen if name.startswith(tuple(names[first:middle]))} == set(frozen)
    assert all(torch.equal(tensor, public[name]) for name, tensor in frozen.items())
    for places in (names[:first], names[middle:]):
        weights = [name for name in trained if name.startswith(tuple(places)) and name.endswith("weight")]
        assert weights
        assert not any(torch.equal(trained[name], public[name]) for name in weights)


def test_a_target_without_last_skips_starts_from_the_whole_public_network(store: Store) -> None:
    """All but the removed projection is there, and it loads again for the stage that reads it."""
    narrow = {"name": "facenet64", "width": 0.02}
    spec = trial({"target.model": narrow, "target.budget": "unit20", **FIXED})
    public = store.state(spec, "pretrain")
    spec = trial(
        {"target.model": narrow, "target.budget": "unit20", **FIXED, "target.defense": {"rolss": True}}
    )
    state = store.state(spec)
    assert set(public) - set(state) == {name for name in public if name.startswith("blocks.unit21.shortcut.")}
    assert set(state) < set(public)
    frozen, _ = parts(spec, state)
    assert frozen
    assert all(torch.equal(tensor, public[name]) for name, tensor in frozen.items())
    plan = tiny.stages(spec)
    runner.run(plan["victims"], World(), store.artifacts, Location())
    assert store.artifacts.find(plan["victims"].key) is not None
    counts = store.left(spec).metrics
    assert (
        counts["target/theta_t_millions"]
        == sum(tensor.numel() for name, tensor in state.items() if not is_statistic(name)) / 1e6
    )


REUSED: dict[str, dict[str, Any]] = {
    **{name: {**changes, **FIXED} for name, changes in CASES.items()},
    "chosen on test images": {**CASES["ami-digit"], **FIXED, "target.selection": "test"},
    "sgd": {**CASES["ami-digit"], **FIXED, "target.recipe.optimizer": "sgd"},
    "mid": {**CASES["ami-digit"], **FIXED, "target.defense": {"mid": {}}},
    "smoothing": {**CASES["ami-digit"], **FIXED, "target.defense": {"smoothing": {}}},
    "dp": {**CASES["ami-digit"], **FIXED, "target.defense": {"dp": {}}},
    "loft": {**CASES["ami-digit"], **FIXED, "target.defense": {"loft": {"rank": 2}}},
}


@pytest.mark.parametrize("case", REUSED)
def test_reused_activations_train_the_same_weights(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = trial(REUSED[case])
    with caplog.at_level(logging.INFO):
        reused = Store(tmp_path / "reused").state(spec)
        assert f"event=activations_reused cut={spec.target.budget} images=" in caplog.text
        caplog.clear()
        monkeypatch.setattr(target_stage, "ACTIVATION_BYTES", 0)
        computed = Store(tmp_path / "computed").state(spec)
        assert "activations_reused" not in caplog.text
    assert reused.keys() == computed.keys()
    for name, tensor in computed.items():
        # Measured: the same bits. A CPU may round a convolution otherwise for another number of images.
        assert torch.allclose(tensor, reused[name], rtol=0, atol=1e-5), name


@pytest.mark.parametrize(
    "changes",
    [
        {"target.recipe": {**RECIPE, "augmentation": "flip"}},
        {"target.defense": {"bido": {}}},
        {"target.freeze": "weights"},
        {"target.budget": "first"},
        {"target.budget": "middle"},
        {"target.budget": "full"},
    ],
    ids=str,
)
def test_nothing_is_reused_where_it_could_change(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = trial({"target.budget": "block2", **FIXED, **changes})
    budget = spec.target.budget
    if budget == "middle":
        assert freeze(network(spec), "middle").prefix == 1  # it may be: nothing comes before what is frozen
    with caplog.at_level(logging.INFO):
        Store(tmp_path).left(spec)
    assert ("activations_reused" in caplog.text) is (budget == "middle")


@pytest.mark.parametrize("budget", ["full", "block2", "first", "last"])
def test_the_optimizer_holds_what_is_trained_and_nothing_else(
    budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[tuple[int, ...]]] = []

    def noted(parameters: list[nn.Parameter], recipe: Recipe) -> Optimizer:
        assert all(parameter.requires_grad for parameter in parameters)
        held.append([tuple(parameter.shape) for parameter in parameters])
        return new_optimizer(parameters, recipe)

    new_optimizer = optimizers.new_optimizer
    monkeypatch.setattr(optimizers, "new_optimizer", noted)
    spec = trial({"target.budget": budget, **FIXED})
    artifact = Store(tmp_path).left(spec)
    model = network(spec)
    freeze(model, budget)
    wanted = [tuple(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]
    assert held[-1] == wanted  # the first was that of the public training
    counted = sum(torch.Size(shape).numel() for shape in wanted)
    assert artifact.metrics["target/theta_c_millions"] == counted / 1e6


LATER: dict[str, Any] = {
    "target.recipe": {**RECIPE, "epochs": 4},
    "target.snapshots": [1, 3, 4],
    "target.selection": "last",
}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("changes", [{}, {**FIXED}], ids=["all layers", "reused"])
def test_a_snapshot_is_the_target_after_its_epoch(changes: dict[str, Any], store: Store) -> None:
    spec = trial({**LATER, **changes})
    assert sorted(name for name in store.left(spec).files if name.startswith("snapshot")) == [
        "snapshot-00001.safetensors",
        "snapshot-00003.safetensors",
        "snapshot-00004.safetensors",
    ]
    last = store.state(spec)
    assert same(store.state(spec, file="snapshot-00004.safetensors"), last)
    for epochs in (1, 3):  # as if training had ended then
        shorter = trial(
            {**changes, "target.recipe": {**RECIPE, "epochs": epochs}, "target.selection": "last"}
        )
        kept = store.state(spec, file=f"snapshot-{epochs:05d}.safetensors")
        assert same(kept, store.state(shorter))
        assert not same(kept, last)


@pytest.mark.parametrize("epoch", [1, 4])
def test_the_snapshot_stage_measures_these_weights(epoch: int, store: Store) -> None:
    spec = trial({**LATER, "target.snapshot": epoch})
    kept = store.state(spec, file=f"snapshot-{epoch:05d}.safetensors")
    assert same(store.state(spec, "snapshot"), kept)
    model = network(spec)
    model.load_state_dict(kept)
    test = target_images(load("digits", Location()), spec.data, 3, "evaluation")
    is_right = predict(model, test.images, torch.device("cpu")).argmax(1) == test.labels
    accuracy = store.left(spec, "snapshot").metrics["target/accuracy"]
    assert accuracy == pytest.approx(is_right.double().mean().item())
    assert (accuracy == store.left(spec).metrics["target/accuracy"]) is (epoch == 4)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("mode", ["weights", "weights+statistics"])
def test_interrupted_it_keeps_its_snapshots_and_ends_with_the_same_bytes(
    mode: str, epoch: int, store: Store, tmp_path: Path
) -> None:
    spec = trial({**LATER, "target.freeze": mode, "target.selection": "held-out"})
    whole, other = store.left(spec), Store(tmp_path)
    other.left(spec, "pretrain")
    stopping = World(report=lambda metrics: metrics["epoch"] < epoch, checkpoint_seconds=0.0)
    with pytest.raises(StageFailed, match=f"stopped after epoch {epoch} of 4"):
        other.left(spec, world=stopping)
    assert other.artifacts.blobs.names("checkpoints/")
    seen: list[float] = []
    resumed = other.left(spec, world=World(report=noting(seen)))
    assert seen == list(range(epoch + 1, 5))
    assert resumed.files == whole.files  # names, sizes and digests, snapshots included
    assert resumed.metrics == whole.metrics
    assert not other.artifacts.blobs.names("checkpoints/")


def test_a_neighbours_checkpoint_is_dropped(store: Store, tmp_path: Path) -> None:
    """Two targets that differ in the seed alone have checkpoints of the same names and shapes."""
    ours, theirs = trial(LATER), trial({**LATER, "target.seed": 1})
    other = Store(tmp_path)
    stopping = World(report=lambda metrics: metrics["epoch"] < 2, checkpoint_seconds=0.0)
    for spec in (ours, theirs):
        other.left(spec, "pretrain")
        with pytest.raises(StageFailed, match="stopped after epoch 2 of 4"):
            other.left(spec, world=stopping)
    mine, neighbours = (
        f"checkpoints/{tiny.stages(spec)['target'].key}.safetensors" for spec in (ours, theirs)
    )
    state = other.artifacts.blobs.get(neighbours)
    assert state is not None
    other.artifacts.blobs.put(mine, state)
    seen: list[float] = []
    resumed = other.left(ours, world=World(report=noting(seen)))
    assert seen == [1, 2, 3, 4]
    assert resumed.files == store.left(ours).files

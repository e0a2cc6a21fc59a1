"""Budgets: the blocks they freeze, the parameters they leave, and frozen statistics."""

from typing import Literal

import pytest
import torch

from orchestrator import config
from orchestrator.models.budgets import Frozen
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze, trainable_parameters

Mode = Literal["weights", "weights+statistics"]
MODES: tuple[Mode, ...] = ("weights", "weights+statistics")
DIGIT = config.Model(name="ami-digit")


def small() -> Classifier:
    model = config.Model(name="ami-digit", width=0.125)
    return build_classifier(model, classes=3, channels=1, image_size=32)


def train_a_step(network: Classifier) -> None:
    network.train()
    optimiser = torch.optim.SGD(trainable_parameters(network), lr=0.5, weight_decay=0.1)
    network(torch.rand(8, 1, 32, 32)).logsumexp(dim=1).sum().backward()
    optimiser.step()


def test_cut_points_run_from_early_to_late() -> None:
    assert small().cut_points == {"block1": 1, "block2": 2, "block3": 3}


def test_budgets_count_trainable_parameters() -> None:
    with torch.device("meta"):
        counts = {
            cut: freeze(build_classifier(DIGIT, classes=10, channels=1, image_size=32), cut)
            for cut in ("full", "block1", "block2", "block3")
        }
    total = 1_888_560
    block1 = 128 * 9 + 128 + 2 * 128
    block2 = 128 * 256 * 9 + 256 + 2 * 256
    assert counts["full"] == Frozen("full", range(0), total, total)
    assert counts["block1"] == Frozen("block1", range(1), total - block1, total)
    assert counts["block2"] == Frozen("block2", range(2), total - block1 - block2, total)
    assert counts["block3"].trainable == 8192 * 50 + 50 + 50 * 10 + 10


def test_layer_sets_train_their_own_and_the_last_layers() -> None:
    trained = {}
    for name in ("first", "middle", "last"):
        network = small()
        freeze(network, name)
        trained[name] = [
            place
            for place, block in enumerate(network.blocks)
            if all(p.requires_grad for p in block.parameters())
        ]
        assert all(parameter.requires_grad for parameter in network.head.parameters())
    assert trained == {"first": [0, 2], "middle": [1, 2], "last": [2]}


@pytest.mark.parametrize("mode", MODES)
def test_frozen_weights_do_not_move(mode: Mode) -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, "block2", mode)
    train_a_step(network)
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    trained = {
        name for name, _ in network.named_parameters() if not name.startswith(("blocks.0", "blocks.1"))
    }
    assert moved == trained


def test_statistics_move_under_weights_and_stay_under_weights_and_statistics() -> None:
    moved = {}
    for mode in MODES:
        network = small()
        before = {name: value.clone() for name, value in network.named_buffers()}
        freeze(network, "block2", mode)
        train_a_step(network)
        after = dict(network.named_buffers())
        moved[mode] = {name for name in before if not torch.equal(before[name], after[name])}
    buffers = {"running_mean", "running_var", "num_batches_tracked"}
    assert moved["weights"] == {f"blocks.{i}.1.{buffer}" for i in range(3) for buffer in buffers}
    assert moved["weights+statistics"] == {f"blocks.2.1.{buffer}" for buffer in buffers}


def test_frozen_statistics_normalise_training_batches_too() -> None:
    network = small()
    frozen_part = network.get_submodule("blocks.0")
    images = torch.rand(4, 1, 32, 32)
    expected = frozen_part.eval()(images)
    freeze(network, "block1", "weights+statistics")
    network.train()
    assert torch.equal(frozen_part(images), expected)
    assert network.blocks[1].training


def test_freezing_keeps_the_state_and_its_names() -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, "block3", "weights+statistics")
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    network.load_state_dict(small().state_dict(), strict=True)


def test_unknown_cut_lists_the_known() -> None:
    expected = r"target.budget=block9 is no cut point .* choose full, block1, block2, block3, a layer set"
    with pytest.raises(ValueError, match=expected):
        freeze(small(), "block9")

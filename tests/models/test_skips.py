"""RoLSS: blocks without their skip connections by hand, what is left of a network, and its public weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config.base import Model, Refused
from orchestrator.config.budget import FULL
from orchestrator.models import outline
from orchestrator.models.budgets import budget_counts, counted
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze, outline_of
from orchestrator.models.skips import leave_out_last_skips

SHAPES: dict[str, Any] = {"classes": 7, "channels": 3, "image_size": 32}
NARROW = Model(name="facenet64", width=0.05)


def network(model: Model = NARROW) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(model, **SHAPES).eval()


def without_skips(model: Model = NARROW) -> Classifier:
    built = network(model)
    leave_out_last_skips(built)
    return built


def residual_branch(block: nn.Module, maps: Tensor) -> Tensor:
    """Return what a block of torchvision's ResNet-18 computes beside its skip, before the last ReLU."""
    parts = dict(block.named_children())
    return parts["bn2"](parts["conv2"](parts["bn1"](parts["conv1"](maps)).relu()))


def test_a_resnets_last_stage_is_its_residual_branches() -> None:
    whole, left = network(Model(name="resnet18")), without_skips(Model(name="resnet18"))
    images = torch.rand(2, 3, 32, 32)
    for place, (before, after) in enumerate(zip(whole.blocks, left.blocks, strict=True)):
        if place in whole.last_stage:
            assert torch.equal(after(images), residual_branch(before, images).relu())
        else:
            assert torch.equal(after(images), before(images))
        images = after(images)
    assert [name for name, _ in whole.blocks.named_children()][6:] == [
        *("layer2_0", "layer2_1", "layer3_0", "layer3_1", "layer4_0", "layer4_1", "avgpool", "flatten")
    ]
    assert whole.last_stage == range(10, 12)


def test_an_ir_units_output_is_its_residual_branch() -> None:
    whole, left = network(), without_skips()
    maps = torch.rand(2, 13, 4, 4)  # 256 channels at this width
    for place in whole.last_stage:
        unit = whole.blocks[place]
        wanted = unit.get_submodule("residual")(maps)
        assert torch.equal(left.blocks[place](maps), wanted)
        assert not torch.equal(unit(maps), wanted)
        maps = wanted
    assert list(whole.last_stage) == [22, 23, 24]  # behind the input and units 0-20


@pytest.mark.parametrize(
    ("model", "lost"),
    [
        (Model(name="resnet18"), 256 * 512 + 2 * 512),
        (Model(name="resnet34"), 256 * 512 + 2 * 512),
        (Model(name="resnet50"), 1024 * 2048 + 2 * 2048),
        (Model(name="resnet101", scaling="signed"), 1024 * 2048 + 2 * 2048),
        (Model(name="ir152"), 256 * 512 + 2 * 512),
        (NARROW, 13 * 26 + 2 * 26),
        (Model(name="facenet64", width=0.001), 0),  # four channels everywhere: nothing to project
    ],
    ids=str,
)
def test_its_outline_lacks_the_projection_of_the_last_stage(model: Model, lost: int) -> None:
    with torch.device("meta"):
        left = build_classifier(model, **SHAPES)
        leave_out_last_skips(left)
    found, whole = outline(model, last_skips=False, **SHAPES), outline(model, **SHAPES)
    assert found == outline_of(left)
    before, after = budget_counts(whole), budget_counts(found)
    assert before["full"] - after["full"] == lost
    assert found.cut_points == whole.cut_points
    assert list(before.values())[-1] == list(after.values())[-1]  # nothing of the last stage trains
    assert counted(model, FULL, last_skips=False, **SHAPES).total == after["full"]


def test_public_weights_fit_what_is_left() -> None:
    """The names are those of the whole network but the projection's, and a budget freezes the same blocks."""
    whole, left = network(), without_skips()
    names = {name for name in whole.state_dict() if not name.startswith("blocks.unit21.shortcut.")}
    assert set(left.state_dict()) == names < set(whole.state_dict())
    public = {name: tensor for name, tensor in whole.state_dict().items() if name in names}
    left.load_state_dict(public, strict=True)
    assert freeze(left, "unit20").blocks == freeze(whole, "unit20").blocks
    loss = left.train()(torch.rand(4, 3, 32, 32)).square().sum()
    loss.backward()
    assert all(one.grad is not None for one in left.parameters() if one.requires_grad)


def test_a_network_without_residual_blocks_is_refused() -> None:
    rule = "target.defense.rolss=true leaves out residual sums, but target.model.name=vgg16 has none that it "
    with pytest.raises(Refused, match=rule):
        outline(Model(name="vgg16"), last_skips=False, **SHAPES)

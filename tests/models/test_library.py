"""Libraries' networks keep their parameters and outputs when they are taken apart."""

import re
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from orchestrator.models.budgets import budget_counts
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze, outline_of
from orchestrator.models.library import (
    DenseNet121,
    DenseNet161,
    DenseNet169,
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetLite0,
    InceptionV3,
    MaxVitT,
    ResNeSt101,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from orchestrator.models.public import renamed

SIZES: dict[type[Classifier], int] = {
    ResNet18: 64,
    ResNet34: 64,
    ResNet50: 64,
    ResNet101: 64,
    ResNet152: 64,
    DenseNet121: 64,
    DenseNet161: 64,
    DenseNet169: 64,
    ResNeSt101: 64,
    MaxVitT: 224,
    EfficientNetB0: 64,
    EfficientNetB1: 64,
    EfficientNetB2: 64,
    EfficientNetLite0: 64,
    InceptionV3: 299,
}


def meta(build: type[Classifier], classes: int = 1000) -> Classifier:
    with torch.device("meta"):
        return build(classes=classes, channels=3, image_size=SIZES[build], width=1.0)


@pytest.mark.parametrize(
    ("build", "classes", "cut", "millions"),
    [
        (ResNet18, 1000, "full", 11.690),
        (ResNet18, 1000, "layer3", 8.907),
        (ResNet34, 1000, "full", 21.798),
        (ResNet50, 8631, "full", 41.193),
        (ResNet50, 8631, "layer3", 32.650),
        (ResNet101, 530, "full", 43.586),
        (ResNet101, 530, "layer3", 16.051),
        (ResNeSt101, 1000, "full", 48.275),
        (ResNeSt101, 1000, "layer3_14", 27.937),
        (MaxVitT, 1000, "full", 30.920),
        (MaxVitT, 1000, "block2", 18.306),
        (EfficientNetB0, 1000, "full", 5.289),
        (EfficientNetB1, 1000, "full", 7.794),
        (EfficientNetB2, 1000, "full", 9.110),
        (EfficientNetLite0, 1000, "full", 4.652),
        (ResNet152, 1000, "full", 60.193),
        (DenseNet121, 1000, "full", 7.979),
        (DenseNet161, 1000, "full", 28.681),
        (DenseNet169, 1000, "full", 14.149),
        (InceptionV3, 1000, "full", 23.835),
    ],
)
def test_cuts_leave_the_counted_parameters(
    build: type[Classifier], classes: int, cut: str, millions: float
) -> None:
    assert round(budget_counts(outline_of(meta(build, classes)))[cut] / 1e6, 3) == millions


STAGES = ["stem", "layer1", "layer2", "layer3", "layer4"]
CONVOLUTIONS = [f"Conv2d_{place}" for place in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
MIXTURES = [
    f"Mixed_{stage}{place}" for stage, places in ((5, "bcd"), (6, "abcde"), (7, "abc")) for place in places
]
UNITS = [
    f"layer{stage}_{unit}" for stage, units in enumerate((3, 4, 23, 3), start=1) for unit in range(units)
]


@pytest.mark.parametrize(
    ("build", "cuts"),
    [
        (ResNet18, STAGES),
        (ResNet34, STAGES),
        (ResNet50, STAGES),
        (ResNet101, STAGES),
        (ResNeSt101, ["stem", *UNITS]),
        (MaxVitT, ["stem", "block0", "block1", "block2", "block3"]),
        (EfficientNetB0, ["stem", *(f"stage{place}" for place in range(1, 8)), "top"]),
        (EfficientNetLite0, ["stem", *(f"stage{place}" for place in range(1, 8)), "top"]),
        (DenseNet121, ["stem", *(f"block{place}" for place in range(1, 5))]),
        (InceptionV3, [*CONVOLUTIONS, *MIXTURES]),
    ],
)
def test_every_cut_freezes_more_than_the_one_before(build: type[Classifier], cuts: list[str]) -> None:
    counts = budget_counts(outline_of(meta(build)))
    assert list(counts) == ["full", *cuts]
    assert list(counts.values()) == sorted(set(counts.values()), reverse=True)


@pytest.mark.parametrize("build", SIZES)
def test_layer_sets_split_the_network(build: type[Classifier]) -> None:
    first, middle = meta(build).layer_groups
    trainable = {budget: freeze(meta(build), budget).trainable for budget in ("first", "middle", "last")}
    assert 0 < first < middle
    assert 0 < trainable["last"] < min(trainable["first"], trainable["middle"])


def inception() -> nn.Module:
    return torchvision.models.inception_v3(weights=None, num_classes=7, init_weights=False)


LIBRARIES: list[tuple[type[Classifier], Callable[[], nn.Module], int]] = [
    (ResNet18, lambda: torchvision.models.resnet18(num_classes=7), 64),
    (ResNeSt101, lambda: timm.create_model("resnest101e", num_classes=7), 64),
    (MaxVitT, lambda: torchvision.models.maxvit_t(num_classes=7), 224),
    (EfficientNetB0, lambda: torchvision.models.efficientnet_b0(num_classes=7), 64),
    (EfficientNetLite0, lambda: timm.create_model("tf_efficientnet_lite0", num_classes=7), 64),
    (DenseNet121, lambda: torchvision.models.densenet121(num_classes=7), 64),
    (InceptionV3, inception, 107),
]


@pytest.mark.parametrize(("build", "library", "image_size"), LIBRARIES)
def test_chain_computes_what_the_library_does(
    build: type[Classifier], library: Callable[[], nn.Module], image_size: int
) -> None:
    torch.manual_seed(0)
    original = library().eval()
    _randomise(original)
    network = build(classes=7, channels=3, image_size=image_size, width=1.0).eval()
    network.load_state_dict(renamed(network, original.state_dict()), strict=True)
    images = torch.rand(2, 3, image_size, image_size)
    with torch.no_grad():
        expected = original(images)
        logits, hidden = network.with_hidden(images)
        features = network.features(images)
    assert expected.isfinite().all()
    assert (expected[0] - expected[1]).abs().max() > 0.001 * expected.abs().max()
    assert torch.equal(logits, expected)
    assert torch.equal(network.head(features), expected)
    assert features.shape == (2, network.num_features)
    assert len(hidden) == len(network.hidden_taps)


def _randomise(network: nn.Module) -> None:
    """A library may start residual branches at 0, or convolutions so small that norms leave nothing of the
    image: either would hide a wrong order of units."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.dim() == 4:
            nn.init.kaiming_normal_(tensor)


def test_hidden_representations_may_enter_the_loss_of_training() -> None:
    network = ResNet18(classes=3, channels=3, image_size=32, width=1.0)
    logits, hidden = network.with_hidden(torch.rand(3, 3, 32, 32))
    (logits.sum() + sum(one.square().sum() for one in hidden)).backward()
    assert [tuple(one.shape[1:]) for one in hidden] == [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("build", [ResNet18, ResNeSt101, EfficientNetB0, InceptionV3])
def test_grey_images_enter_one_channel(build: type[Classifier]) -> None:
    network = build(classes=3, channels=1, image_size=96, width=1.0).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 96, 96)).shape == (1, 3)


def test_fewer_channels_are_drawn_as_the_library_draws_three() -> None:
    first = ResNet18(classes=3, channels=1, image_size=32, width=1.0).blocks[0]
    assert isinstance(first, nn.Conv2d)
    assert first.weight.shape == (64, 1, 7, 7)
    assert first.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


AT_LEAST = "data.image_size={} must be at least {} for {}; resize the images to {} or more."


@pytest.mark.parametrize(
    ("build", "image_size", "message"),
    [
        (ResNet50, 31, AT_LEAST.format(31, 32, "resnet50", 32)),
        (ResNeSt101, 8, AT_LEAST.format(8, 32, "resnest101", 32)),
        (InceptionV3, 64, AT_LEAST.format(64, 75, "inception_v3", 75)),
        (
            MaxVitT,
            64,
            "data.image_size=64 must be 224 for maxvit_t, whose attention windows are made for it; "
            "resize the images to 224.",
        ),
    ],
)
def test_other_sizes_are_refused(build: type[Classifier], image_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(classes=3, channels=3, image_size=image_size, width=1.0)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (ResNet18, "resnet18"),
        (ResNet101, "resnet101"),
        (ResNeSt101, "resnest101"),
        (MaxVitT, "maxvit_t"),
        (DenseNet161, "densenet161"),
        (EfficientNetLite0, "efficientnet_lite0"),
        (InceptionV3, "inception_v3"),
    ],
)
def test_other_widths_are_refused(build: type[Classifier], name: str) -> None:
    message = (
        f"model.width=0.5 must be 1 for {name}, whose layers a library fixes; "
        "choose vgg16 or ir152 for smaller networks."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(classes=3, channels=3, image_size=224, width=0.5)

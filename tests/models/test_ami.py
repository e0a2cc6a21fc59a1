"""The networks are those of the AMI paper: parameter counts, layers, and their order."""

import pytest
import torch
from torch import nn

from orchestrator import config
from orchestrator.models.build import build_classifier, build_inverter

SIZES = {"ami-digit": 32, "ami-face": 64}


def classifier(name: str, classes: int, width: float = 1.0, channels: int = 1) -> nn.Module:
    model = config.Model(name=name, width=width)
    return build_classifier(model, classes=classes, channels=channels, image_size=SIZES[name])


def inverter(name: str, classes: int, width: float = 1.0, channels: int = 1) -> nn.Module:
    model = config.Model(name=name, width=width)
    return build_inverter(model, classes=classes, channels=channels, image_size=SIZES[name])


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("ami-face", 530, 51.03),
        ("ami-face", 100, 14.44),
        ("ami-face", 50, 10.31),
        ("ami-face", 10, 7.02),
        ("ami-digit", 10, 1.89),
    ],
)
def test_classifiers_have_the_counted_parameters(name: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(count(classifier(name, classes)) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [("ami-face", 530, 19.70), ("ami-face", 10, 11.18), ("ami-digit", 10, 2.71)],
)
def test_inverters_have_the_counted_parameters(name: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(count(inverter(name, classes)) / 1e6, 2) == millions


def convolution(outputs: int, inputs: int) -> list[tuple[int, ...]]:
    return [(outputs, inputs, 3, 3), *[(outputs,)] * 5, ()]  # bias and batch norm; last its counter


def transposed(inputs: int, outputs: int) -> list[tuple[int, ...]]:
    return [(inputs, outputs, 4, 4), *[(outputs,)] * 5, ()]


@pytest.mark.parametrize(
    ("network", "printed"),
    [
        (
            "face classifier",
            [
                *convolution(128, 1),
                *convolution(256, 128),
                *convolution(512, 256),
                *convolution(1024, 512),
                *[(2650, 16384), (2650,), (530, 2650), (530,)],
            ],
        ),
        (
            "digit classifier",
            [
                *convolution(128, 1),
                *convolution(256, 128),
                *convolution(512, 256),
                *[(50, 8192), (50,), (10, 50), (10,)],
            ],
        ),
        (
            "face inverter",
            [
                *transposed(530, 1024),
                *transposed(1024, 512),
                *transposed(512, 256),
                *transposed(256, 128),
                *[(128, 1, 4, 4), (1,)],
            ],
        ),
        (
            "digit inverter",
            [*transposed(10, 512), *transposed(512, 256), *transposed(256, 128), *[(128, 1, 4, 4), (1,)]],
        ),
    ],
)
def test_state_follows_the_printed_layers_in_order(network: str, printed: list[tuple[int, ...]]) -> None:
    """Weights released in layer order load by position."""
    size, kind = network.split()
    build = classifier if kind == "classifier" else inverter
    with torch.device("meta"):
        state = build(f"ami-{size}", 530 if size == "face" else 10).state_dict()
    assert [tuple(tensor.shape) for tensor in state.values()] == printed


def leaves(network: nn.Module) -> list[str]:
    return [type(module).__name__ for module in network.modules() if not list(module.children())]


def test_classifier_pools_before_the_activation_and_has_a_linear_bottleneck() -> None:
    block = ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    head = ["Flatten", "Linear", "Dropout", "Linear"]
    assert leaves(classifier("ami-digit", 10, 0.125)) == 3 * block + head
    assert leaves(classifier("ami-face", 10, 0.125)) == 4 * block + head


def test_inverter_layers_are_tanh_but_the_last() -> None:
    network = inverter("ami-face", 10, 0.125)
    activations = [type(m).__name__ for m in network.modules() if isinstance(m, nn.Tanh | nn.Sigmoid)]
    assert activations == ["Tanh"] * 4 + ["Sigmoid"]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_inverter_undoes_the_shape_of_the_classifier(name: str, channels: int) -> None:
    images = torch.rand(2, channels, SIZES[name], SIZES[name])
    logits = classifier(name, 7, 0.125, channels)(images)
    assert logits.shape == (2, 7)
    rebuilt = inverter(name, 7, 0.125, channels)(logits)
    assert rebuilt.shape == images.shape
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1


def test_width_scales_channels_down_to_four_and_leaves_the_bottleneck() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in classifier("ami-digit", 10, 0.02).state_dict().items()
    }
    assert shapes["blocks.0.0.weight"] == (4, 1, 3, 3)  # 128 * 0.02 = 2.56, raised to 4
    assert shapes["blocks.1.0.weight"] == (5, 4, 3, 3)
    assert shapes["head.1.weight"] == (50, 10 * 4 * 4)

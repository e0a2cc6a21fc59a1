"""Public weights arrive under our names, whole, or not at all."""

import re
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from orchestrator.models.ami import AmiClassifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.ir import FaceNet, FaceNet64, Ir152
from orchestrator.models.library import EfficientNetB1, InceptionV3, MaxVitT, ResNeSt101, ResNet50
from orchestrator.models.public import renamed
from orchestrator.models.vgg import Vgg16

State = dict[str, Tensor]


def build(network: type[Classifier], image_size: int, channels: int = 3, classes: int = 10) -> Classifier:
    with torch.device("meta"):
        return network(classes=classes, channels=channels, image_size=image_size, width=1.0)


def library(name: str) -> State:
    with torch.device("meta"):
        if name == "resnest101e":
            return dict(timm.create_model(name).state_dict())
        extra = {"init_weights": False} if name == "inception_v3" else {}
        return dict(torchvision.models.get_model(name, weights=None, **extra).state_dict())


def backbone(stages: tuple[int, ...], side: int) -> State:
    """The names and shapes of a public IR backbone."""
    shapes = dict(_layers("input_layer", [("conv", (64, 3, 3, 3)), ("norm", (64,)), ("prelu", (64,))]))
    inputs, place = 64, 0
    for units, outputs in zip(stages, (64, 128, 256, 512), strict=True):
        for _ in range(units):
            if inputs != outputs:
                shortcut = [("conv", (outputs, inputs, 1, 1)), ("norm", (outputs,))]
                shapes |= _layers(f"body.{place}.shortcut_layer", shortcut)
            residual = [
                ("norm", (inputs,)),
                ("conv", (outputs, inputs, 3, 3)),
                ("prelu", (outputs,)),
                ("conv", (outputs, outputs, 3, 3)),
                ("norm", (outputs,)),
            ]
            shapes |= _layers(f"body.{place}.res_layer", residual)
            inputs, place = outputs, place + 1
    dropout, flatten, features = ("none", ()), ("none", ()), 512 * side * side
    embedding = [("norm", (512,)), dropout, flatten, ("linear", (512, features)), ("norm", (512,))]
    shapes |= _layers("output_layer", embedding)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _layers(path: str, layers: list[tuple[str, tuple[int, ...]]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for place, (kind, shape) in enumerate(layers):
        if kind in {"conv", "prelu", "linear"}:
            yield f"{path}.{place}.weight", shape
        if kind == "linear":
            yield f"{path}.{place}.bias", shape[:1]
        if kind == "norm":
            for tensor in ("weight", "bias", "running_mean", "running_var"):
                yield f"{path}.{place}.{tensor}", shape
            yield f"{path}.{place}.num_batches_tracked", ()


def blocks(network: Classifier, without: str = "nothing") -> set[str]:
    return {name for name in network.state_dict() if not name.startswith(("head.", without))}


def body(mapped: State) -> set[str]:
    return {name for name in mapped if not name.startswith("head.")}


@pytest.mark.parametrize(
    ("network", "image_size", "name"),
    [
        (ResNet50, 64, "resnet50"),
        (ResNeSt101, 64, "resnest101e"),
        (MaxVitT, 224, "maxvit_t"),
        (EfficientNetB1, 64, "efficientnet_b1"),
        (InceptionV3, 299, "inception_v3"),
    ],
)
def test_libraries_fill_every_block(network: type[Classifier], image_size: int, name: str) -> None:
    ours, public = build(network, image_size), library(name)
    mapped = renamed(ours, public)
    assert body(mapped) == blocks(ours)
    assert mapped["head.weight"].shape[0] == 1000
    left = {theirs for theirs in public if not any(public[theirs] is tensor for tensor in mapped.values())}
    assert {theirs.split(".")[0] for theirs in left} <= {"AuxLogits"}


def test_torchvisions_vgg_fills_all_but_the_last_batch_norm_and_the_head() -> None:
    ours = build(Vgg16, 64)
    assert set(renamed(ours, library("vgg16_bn"))) == blocks(ours, without="blocks.norm.")


def test_released_vgg_fills_all() -> None:
    ours = build(Vgg16, 64)
    public = {f"module.{_released(name)}": tensor for name, tensor in ours.state_dict().items()}
    assert list(renamed(ours, public)) == list(ours.state_dict())


def _released(name: str) -> str:
    name = name.replace("blocks.norm.", "bn.").replace("blocks.", "feature.")
    return name.replace("head.", "fc_layer.")


@pytest.mark.parametrize(
    ("network", "image_size", "stages"),
    [(FaceNet, 112, (3, 4, 14, 3)), (FaceNet64, 64, (3, 4, 14, 3)), (Ir152, 64, (3, 8, 36, 3))],
)
def test_public_backbones_fill_what_fits_their_image_size(
    network: type[Classifier], image_size: int, stages: tuple[int, ...]
) -> None:
    ours = build(network, image_size)
    mapped = renamed(ours, backbone(stages, side=7))
    assert set(mapped) == blocks(ours, without="nothing" if image_size == 112 else "blocks.output.")


@pytest.mark.parametrize("head", ["fc_layer", "fc_layer.0", "fc"])
def test_released_ir_classifiers_fill_all(head: str) -> None:
    ours = build(FaceNet64, 64)
    public = {
        name if name.startswith("output_layer") else f"feature.{name}": tensor
        for name, tensor in backbone((3, 4, 14, 3), side=4).items()
    }
    public |= {f"{head}.weight": torch.empty(1000, 512), f"{head}.bias": torch.empty(1000)}
    assert set(renamed(ours, public)) == set(ours.state_dict())


def test_own_names_stay() -> None:
    network = AmiClassifier(classes=3, channels=1, image_size=32, width=0.125)
    state = network.state_dict()
    assert renamed(network, state) == state


def test_batch_counters_may_be_missing() -> None:
    network = AmiClassifier(classes=3, channels=1, image_size=32, width=0.125)
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    network.load_state_dict(renamed(network, state), strict=True)


def test_head_may_be_missing_or_of_other_classes() -> None:
    network = AmiClassifier(classes=3, channels=1, image_size=32, width=0.125)
    other = AmiClassifier(classes=9, channels=1, image_size=32, width=0.125)
    mapped = renamed(network, other.state_dict())
    assert mapped["head.3.weight"].shape == (9, 45)
    bare = {name: value for name, value in other.state_dict().items() if not name.startswith("head.")}
    assert list(renamed(network, bare)) == list(bare)


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: without(s, "conv1.weight"), "1 tensor is missing (first: blocks.conv1.weight)"),
        (
            lambda s: without(s, "layer1.0.conv1.weight", "layer1.0.conv2.weight"),
            "2 tensors are missing (first: blocks.layer1_0.conv1.weight)",
        ),
        (lambda s: s | {"layer5.0.bias": s["bn1.bias"]}, "1 unknown (first: layer5.0.bias)"),
        (
            lambda s: s | {"conv1.weight": s["conv1.weight"][:, :1]},
            "1 of another shape (first: blocks.conv1.weight has (64, 1, 7, 7), wants (64, 3, 7, 7))",
        ),
        (
            lambda s: without(s, "bn1.bias") | {"x": s["bn1.bias"], "bn1.weight": s["bn1.bias"][:1]},
            "1 tensor is missing (first: blocks.bn1.bias), 1 unknown (first: x), "
            "1 of another shape (first: blocks.bn1.weight has (1,), wants (64,))",
        ),
    ],
)
def test_other_weights_are_refused(change: Callable[[State], State], complaint: str) -> None:
    network, state = build(ResNet50, 64), library("resnet50")
    message = f"weights faces do not fit ResNet50: {complaint}; choose weights of the same architecture."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        renamed(network, change(state), name="faces")


def test_backbone_of_the_judge_must_bring_its_embedding() -> None:
    message = r"^weights given do not fit FaceNet: 1 of another shape \(first: blocks\.output\.3\.weight has "
    with pytest.raises(ValueError, match=message):
        renamed(build(FaceNet, 112), backbone((3, 4, 14, 3), side=4))


def test_grey_networks_refuse_weights_for_colour() -> None:
    expected = r"1 of another shape \(first: blocks\.0\.weight has \(64, 3, 3, 3\), wants \(64, 1, 3, 3\)\)"
    with pytest.raises(ValueError, match=expected):
        renamed(build(Vgg16, 64, channels=1), library("vgg16_bn"))

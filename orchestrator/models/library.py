"""Library classifiers: torchvision's and timm's networks for larger images as chains of blocks.

Ho et al., "Model Inversion Robustness: Can Transfer Learning Help?" (TL-DMI, CVPR 2024), Table 8, attack
ResNets, ResNeSt-101 and MaxViT by PPA, MIRROR and VMI; Inception-v3 is the evaluation model of the first two.
The chains compute what the libraries' forward passes do, and weights are initialised as the libraries do. All
raise `Refused` for a width other than 1 or an image side that they do not admit.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar

import timm
from torch import nn
from torchvision.models import get_model

from orchestrator.config.base import Refused
from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import require_library

LITE_UNITS = (1, 2, 2, 3, 3, 4, 1)
"""Units in each stage of EfficientNet-Lite0."""

LITE_FIRST_UNIT = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE_UNIT = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}
"""Layers of its units in its file -> in timm; the first unit does not widen its input."""

RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet(Classifier):
    """Images (N, C, S, S) in [0, 1], S at least 32 -> logits (N, k)."""

    library_name: ClassVar[str]
    """Its name in torchvision."""

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library(self.library_name, width, image_size, 32)
        network = get_model(self.library_name, weights=None, num_classes=classes)
        _take_inputs(network.conv1, channels)
        self.blocks, self.head, self.renamed = _taken_apart(network, RESNET_STAGES)
        self.num_features = self.head.in_features
        firsts = {"stem": "conv1"} | {stage: f"{stage}_0" for stage in RESNET_STAGES}
        self.cut_points = _cut_points(self.blocks, firsts, after="avgpool")
        self.layer_groups = self.cut_points["layer2"], self.cut_points["layer3"]
        self.hidden_taps = tuple(self.cut_points[stage] for stage in RESNET_STAGES)
        self.last_stage = range(self.cut_points["layer3"], self.cut_points["layer4"])


class ResNet18(ResNet):
    """TL-DMI freezes conv1 and layers 1-3 (cut `layer3`)."""

    library_name = "resnet18"


class ResNet34(ResNet):
    """VMI's target. Which layers TL-DMI freezes is not printed."""

    library_name = "resnet34"


class ResNet50(ResNet):
    """A target of MIRROR. Which layers TL-DMI freezes is not printed."""

    library_name = "resnet50"


class ResNet101(ResNet):
    """A target of PPA. Which layers TL-DMI freezes is not printed."""

    library_name = "resnet101"


class ResNet152(ResNet):
    """A target of PPA's code. Which layers TL-DMI freezes is not printed."""

    library_name = "resnet152"


class DenseNet(Classifier):
    """Images (N, C, S, S) in [0, 1], S at least 32 -> logits (N, k).

    Targets of PPA's code; TL-DMI freezes none. A transition belongs to the dense block before it.
    """

    library_name: ClassVar[str]
    """Its name in torchvision."""

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library(self.library_name, width, image_size, 32)
        network = get_model(self.library_name, weights=None, num_classes=classes)
        _take_inputs(network.features.conv0, channels)
        network.features.add_module("relu5", nn.ReLU(inplace=True))  # the library's forward has both
        network.features.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
        self.blocks, self.head, self.renamed = _taken_apart(network, ("features",))
        self.num_features = self.head.in_features
        stages = {f"block{place}": f"features_denseblock{place}" for place in range(1, 5)}
        self.cut_points = _cut_points(
            self.blocks, {"stem": "features_conv0", **stages}, after="features_relu5"
        )
        self.layer_groups = self.cut_points["block2"], self.cut_points["block3"]
        self.hidden_taps = tuple(self.cut_points[stage] for stage in stages)


class DenseNet121(DenseNet):
    """4 dense blocks of 6, 12, 24 and 16 layers."""

    library_name = "densenet121"


class DenseNet161(DenseNet):
    """4 dense blocks of 6, 12, 36 and 24 layers, wider than the others."""

    library_name = "densenet161"


class DenseNet169(DenseNet):
    """4 dense blocks of 6, 12, 32 and 32 layers, a target of PPA."""

    library_name = "densenet169"


class ResNeSt101(Classifier):
    """timm's resnest101e: images (N, C, S, S), S at least 32 -> logits (N, k).

    There is a cut point after every unit: TL-DMI's printed |theta_C| of 27.9 M is that of one inside the
    third stage, `layer3_14`.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library("resnest101", width, image_size, 32)
        network = timm.create_model("resnest101e", num_classes=classes, in_chans=channels)
        self.blocks, self.head, self.renamed = _taken_apart(network, RESNET_STAGES)
        self.num_features = self.head.in_features
        units = [name for name, _ in self.blocks.named_children() if name.startswith(RESNET_STAGES)]
        firsts = {"stem": "conv1"} | {unit: unit for unit in units}
        self.cut_points = _cut_points(self.blocks, firsts, after="global_pool")
        self.layer_groups = self.cut_points["layer2_3"], self.cut_points["layer3_22"]
        ends = ("layer1_2", "layer2_3", "layer3_22", "layer4_2")
        self.hidden_taps = tuple(self.cut_points[unit] for unit in ends)


class MaxVitT(Classifier):
    """torchvision's maxvit_t: images (N, C, 224, 224) -> logits (N, k).

    Attention windows are 7x7, and the side is halved five times. The features come after the library's hidden
    layer of 512 tanh units. TL-DMI freezes the stem and blocks 0-2 (cut `block2`).
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library("maxvit_t", width, image_size)
        if image_size != 224:
            rule = "must be 224 for maxvit_t, whose attention windows are made for it"
            raise Refused("data.image_size", image_size, rule, "resize the images to 224")
        network = get_model("maxvit_t", weights=None, num_classes=classes)
        _take_inputs(network.stem[0][0], channels)
        self.blocks, self.head, self.renamed = _taken_apart(network, ("blocks", "classifier"))
        self.num_features = self.head.in_features
        firsts = {"stem": "stem"} | {f"block{place}": f"blocks_{place}" for place in range(4)}
        self.cut_points = _cut_points(self.blocks, firsts, after="classifier_0")
        self.layer_groups = self.cut_points["block1"], self.cut_points["block2"]
        self.hidden_taps = tuple(self.cut_points[f"block{place}"] for place in range(4))


class EfficientNet(Classifier):
    """Images (N, C, S, S) in [0, 1], S at least 32 -> logits (N, k).

    Students of LOMMA's attacks; TL-DMI freezes none. Training drops residual branches at random, as the
    library does.
    """

    library_name: ClassVar[str]
    """Its name in torchvision."""

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library(self.library_name, width, image_size, 32)
        network = get_model(self.library_name, weights=None, num_classes=classes)
        _take_inputs(network.features[0][0], channels)
        self.blocks, self.head, self.renamed = _taken_apart(network, ("features", "classifier"))
        self.num_features = self.head.in_features
        stages = {f"stage{place}": f"features_{place}" for place in range(1, 8)}
        self.cut_points = _cut_points(
            self.blocks, {"stem": "features_0", **stages, "top": "features_8"}, after="avgpool"
        )
        self.layer_groups = self.cut_points["stage3"], self.cut_points["stage5"]
        self.hidden_taps = tuple(self.cut_points[f"stage{place}"] for place in (2, 3, 5, 7))


class EfficientNetB0(EfficientNet):
    """LOMMA's first student."""

    library_name = "efficientnet_b0"


class EfficientNetB1(EfficientNet):
    """LOMMA's second student."""

    library_name = "efficientnet_b1"


class EfficientNetB2(EfficientNet):
    """LOMMA's third student."""

    library_name = "efficientnet_b2"


class EfficientNetLite0(Classifier):
    """timm's tf_efficientnet_lite0: images (N, C, S, S), S at least 32 -> logits (N, k).

    The smallest network here with public ImageNet weights. Its file efficientnet-lite0-57934424.pth names
    layers in another way than timm.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library("efficientnet_lite0", width, image_size, 32)
        network = timm.create_model("tf_efficientnet_lite0", num_classes=classes)
        _take_inputs(network.conv_stem, channels)
        self.blocks, self.head, names = _taken_apart(network, ("blocks",))
        self.renamed = names | dict(_lite_names())
        self.num_features = self.head.in_features
        stages = {f"stage{place + 1}": f"blocks_{place}" for place in range(len(LITE_UNITS))}
        firsts = {"stem": "conv_stem", **stages, "top": "conv_head"}
        self.cut_points = _cut_points(self.blocks, firsts, after="global_pool")
        self.layer_groups = self.cut_points["stage3"], self.cut_points["stage5"]
        self.hidden_taps = tuple(self.cut_points[f"stage{place}"] for place in (2, 3, 5, 7))


def _lite_names() -> Iterator[tuple[str, str]]:
    """Yield prefixes of names in the file of EfficientNet-Lite0 and ours; its units count through."""
    yield from {"_conv_stem.": "blocks.conv_stem.", "_bn0.": "blocks.bn1."}.items()
    yield from {"_conv_head.": "blocks.conv_head.", "_bn1.": "blocks.bn2.", "_fc.": "head."}.items()
    places = [(stage, unit) for stage, count in enumerate(LITE_UNITS) for unit in range(count)]
    for place, (stage, unit) in enumerate(places):
        layers = LITE_UNIT if place else LITE_FIRST_UNIT
        for theirs, ours in layers.items():
            yield f"_blocks.{place}.{theirs}.", f"blocks.blocks_{stage}.{unit}.{ours}."


class InceptionV3(Classifier):
    """torchvision's inception_v3 without its auxiliary head: images (N, C, S, S) -> logits (N, k).

    S is at least 75; the network is made for 299.
    """

    ignored = ("AuxLogits.",)

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_library("inception_v3", width, image_size, 75)
        network = get_model(
            "inception_v3", weights=None, num_classes=classes, aux_logits=False, init_weights=True
        )
        _take_inputs(network.Conv2d_1a_3x3.conv, channels)
        self.blocks, self.head, self.renamed = _taken_apart(network)
        self.num_features = self.head.in_features
        firsts = {name: name for name, block in self.blocks.named_children() if list(block.parameters())}
        self.cut_points = _cut_points(self.blocks, firsts, after="avgpool")
        self.layer_groups = self.cut_points["Mixed_5d"], self.cut_points["Mixed_6e"]
        self.hidden_taps = tuple(self.cut_points[name] for name in ("Mixed_5d", "Mixed_6e", "Mixed_7c"))


def _taken_apart(
    network: nn.Module, unrolled: Collection[str] = ()
) -> tuple[nn.Sequential, nn.Linear, dict[str, str]]:
    """Return a library's network as blocks and head, and a map from prefixes of its names to ours.

    Its children are the blocks, in order, and the last one is the head; a child in `unrolled` is replaced by
    its own children.
    """
    parts: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        inner = child.named_children() if name in unrolled else ()
        parts |= {f"{name}.{place}": part for place, part in inner} or {name: child}
    head_name, head = parts.popitem()
    assert isinstance(head, nn.Linear)
    ours = {name: name.replace(".", "_") for name in parts}
    blocks = nn.Sequential(OrderedDict((ours[name], part) for name, part in parts.items()))
    blocks.add_module("flatten", nn.Flatten())  # a library may do so between two modules
    names = {f"{name}.": f"blocks.{ours[name]}." for name in parts}
    return blocks, head, names | {f"{head_name}.": "head."}


def _cut_points(blocks: nn.Sequential, firsts: Mapping[str, str], *, after: str) -> dict[str, int]:
    """Return cut point -> leading blocks, given each one's first block and the block `after` the last one.

    A cut ends where the next one begins, so layers without parameters belong to the cut before them.
    """
    names = [name for name, _ in blocks.named_children()]
    begins = [names.index(first) for first in (*firsts.values(), after)]
    return dict(zip(firsts, begins[1:], strict=True))


def _take_inputs(first: nn.Conv2d, channels: int) -> None:
    """Reduce a network's first convolution to 1 channel or keep all 3, of the same initial weights."""
    first.weight = nn.Parameter(first.weight.detach()[:, :channels].clone())
    first.in_channels = channels

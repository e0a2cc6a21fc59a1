"""Outlines of classifiers: cut points, parameter counts and the sizes that a network admits, without torch.

A plan needs no more of a network than this. AMI's, VGG16 and IR are computed from the layers that their files
build; library networks are tables. tests/models/test_outlines.py holds each against the real network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise

from orchestrator.config.base import Refused

AMI_CHANNELS = {32: (128, 256, 512), 64: (128, 256, 512, 1024)}
"""AMI's classifiers: output channels of each block by image side; every block halves it until 4x4 remains."""

AMI_HIDDEN_PER_CLASS = 5  # released code: the linear bottleneck has 5k units, at any width

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of each convolution by stage; a pooling ends a stage."""

IR_CHANNELS = (64, 128, 256, 512)
"""Output channels of IR's stages; the input layer has those of the first, the embedding those of the last."""

IR152_UNITS, IR50_UNITS = (3, 8, 36, 3), (3, 4, 14, 3)
"""Number of units in each stage."""

DISCRIMINATOR_CHANNELS = (64, 128, 256, 512)
"""Output channels of each halving of the side in an inverter's discriminator; larger images use the last."""

GAN_CHANNELS = {32: (64, 128, 256), 64: (64, 128, 256, 512)}
"""GMI's critics: output channels of each convolution by image side; every one halves it until 4x4 remains.
Its generators have them in reverse order."""


@dataclass(frozen=True)
class Outline:
    """A classifier in numbers, early to late."""

    cuts: Mapping[str, tuple[int, int]]
    """Cut point -> leading blocks that it freezes, and parameters in them."""

    layer_groups: tuple[int, int]
    """As `Classifier.layer_groups`; both are at cut points."""

    trainable: int
    """Parameters that train without a budget."""

    constant: int = 0
    """Parameters that never train."""

    released: Mapping[str, range] = field(default_factory=dict)
    """As `Classifier.released`; they begin and end at cut points."""

    last_stage: range = range(0)
    """As `Classifier.last_stage`; its first block alone has a projection on its skip."""

    projection: int = 0
    """Parameters of that projection."""

    @property
    def cut_points(self) -> dict[str, int]:
        """Cut point -> number of leading blocks that it freezes, early to late."""
        return {cut: blocks for cut, (blocks, _) in self.cuts.items()}

    def parameters(self, blocks: range) -> int:
        """Return the number of parameters in the blocks between two cut points."""
        leading = {0: 0, **dict(self.cuts.values())}
        return leading[blocks.stop] - leading[blocks.start] if blocks else 0

    def behind(self, blocks: int) -> "Outline":
        """Return the outline behind that number of blocks without parameters."""
        first, middle = self.layer_groups
        return Outline(
            {cut: (place + blocks, count) for cut, (place, count) in self.cuts.items()},
            (first + blocks, middle + blocks),
            self.trainable,
            self.constant,
            {name: shifted(one, blocks) for name, one in self.released.items()},
            shifted(self.last_stage, blocks),
            self.projection,
        )

    def without_last_skips(self) -> "Outline":
        """Return the outline of the network without the skip connections of its last stage."""
        cuts = {
            cut: (place, count - self.projection * (place > self.last_stage.start))
            for cut, (place, count) in self.cuts.items()
        }
        trainable = self.trainable - self.projection
        return replace(self, cuts=cuts, trainable=trainable, last_stage=range(0), projection=0)


def shifted(blocks: range, by: int) -> range:
    """Return the places of blocks behind that number of others; of none, none."""
    return range(blocks.start + by, blocks.stop + by) if blocks else range(0)


def scaled(channels: int, width: float) -> int:
    """Return a hidden channel count multiplied by a width, rounded, at least 4."""
    return max(4, round(channels * width))


def require_multiple(image_size: int, of: int, name: str) -> None:
    """Raise `Refused` unless an image side is a multiple of `of`, the product of network `name`'s strides."""
    if image_size < of or image_size % of:
        way_out = f"resize the images, for example to {-(-image_size // of) * of}"
        raise Refused("data.image_size", image_size, f"must be a multiple of {of} for {name}", way_out)


def require_library(name: str, width: float, image_size: int, least: int = 0) -> None:
    """Raise `Refused` for a width that is not 1, or an image side below `least`, of a library's network."""
    if width != 1:
        rule = f"must be 1 for {name}, whose layers a library fixes"
        raise Refused("model.width", f"{width:g}", rule, "choose vgg16 or ir152 for smaller networks")
    if image_size < least:
        rule = f"must be at least {least} for {name}"
        raise Refused("data.image_size", image_size, rule, f"resize the images to {least} or more")


def count_halvings(image_size: int) -> int:
    """Return how often the discriminator halves an image side down to 4; raise `Refused` for other sides."""
    halvings = {8: 1, 16: 2, 32: 3, 64: 4}
    if image_size not in halvings:
        rule = "must be 8, 16, 32 or 64 for attack.losses.adversarial"
        raise Refused("data.image_size", image_size, rule, "change the size or set the weight to 0")
    return halvings[image_size]


def gan_channels(image_size: int, width: float) -> tuple[int, ...]:
    """Return `GAN_CHANNELS` at a width; raise `Refused` for another side than 32 or 64."""
    if image_size not in GAN_CHANNELS:
        rule = "must be 32 or 64 for a generative prior"
        raise Refused("data.image_size", image_size, rule, "resize the images to one of them")
    return tuple(scaled(count, width) for count in GAN_CHANNELS[image_size])


def conditional_channels(image_size: int, width: float) -> tuple[int, ...]:
    """Return `gan_channels` and twice the last of them, of the conditional GAN; raise as it does."""
    counts = gan_channels(image_size, width)
    return (*counts, scaled(2 * GAN_CHANNELS[image_size][-1], width))


def ami(*, classes: int, channels: int, image_size: int, width: float) -> Outline:
    """Return the outline of `AmiClassifier` for 32x32 or 64x64 images."""
    counts = (channels, *(scaled(count, width) for count in AMI_CHANNELS[image_size]))
    parts = {
        f"block{place}": (1, _convolution(before, after) + 2 * after)
        for place, (before, after) in enumerate(pairwise(counts), start=1)
    }
    hidden = AMI_HIDDEN_PER_CLASS * classes
    head = _linear(counts[-1] * 4 * 4, hidden) + _linear(hidden, classes)
    return _outline(parts, head, (len(parts) // 3, len(parts) - 1))


def vgg16(*, classes: int, channels: int, image_size: int, width: float) -> Outline:
    """Return the outline of `Vgg16`; raise `Refused` unless the side is a multiple of 32."""
    require_multiple(image_size, 32, "vgg16")
    parts: dict[str, tuple[int, int]] = {}
    before = channels
    for stage, counts in enumerate(VGG16_STAGES, start=1):
        for place, count in enumerate(counts, start=1):
            after = scaled(count, width)
            num_blocks = 4 if place == len(counts) else 3  # with the stage's pooling
            parts[f"conv{stage}_{place}"] = num_blocks, _convolution(before, after) + 2 * after
            before = after
    features = before * (image_size // 32) ** 2
    # The last batch norm has a scale and a shift that stays 0.
    return _outline(parts, features + _linear(features, classes), ("conv3_3", "conv4_3"), features)


def ir(
    units: Sequence[int],
    name: str,
    last_frozen: int | None = None,
    *,
    classes: int,
    channels: int,
    image_size: int,
    width: float,
) -> Outline:
    """Return the outline of network `name` with that many `units` in each stage.

    `last_frozen` as in `Ir`. Raise `Refused` unless the side is a multiple of 16.
    """
    require_multiple(image_size, 16, name)
    counts = [scaled(count, width) for count in IR_CHANNELS]
    before = counts[0]
    sizes = [_convolution(channels, before, bias=False) + 3 * before]
    for num_units, after in zip(units, counts, strict=True):
        for _ in range(num_units):
            sizes.append(_unit(before, after))
            before = after
    names = ["input", *(f"unit{place}" for place in range(sum(units)))]
    embedding = 2 * before + _linear(before * (image_size // 16) ** 2, before) + 2 * before
    parts = {part: (1, size) for part, size in zip(names, sizes, strict=True)}
    ends = [1 + end for end in accumulate(units)]
    outline = _outline(parts, embedding + _linear(before, classes), (ends[1], ends[2]))
    released = {} if last_frozen is None else {f"units0-{last_frozen}": range(1, last_frozen + 2)}
    skip = _projection(counts[-2], counts[-1])
    return replace(outline, released=released, last_stage=range(*ends[-2:]), projection=skip)


def _unit(before: int, after: int) -> int:
    """Return the parameters of `ir.Unit`."""
    first = 2 * before + _convolution(before, after, bias=False) + after
    return first + _convolution(after, after, bias=False) + 2 * after + _projection(before, after)


def _projection(before: int, after: int) -> int:
    """Return the parameters on the skip of a unit, where the number of channels changes."""
    return before * after + 2 * after if before != after else 0


@dataclass(frozen=True)
class Library:
    """A library's network at three input channels."""

    name: str
    least: int
    """Smallest image side of a flexible network."""

    parts: Mapping[str, tuple[int, int]]
    """Cut point -> blocks and parameters since the cut point before it."""

    layer_groups: tuple[str, str]
    """Cut points that end the first and the middle layers."""

    features: int
    """Inputs of the head."""

    per_channel: int
    """Parameters of the first convolution for each input channel."""

    rest: int = 0
    """Parameters of blocks behind the last cut point."""

    has_bias: bool = True
    """Whether the head has one."""

    projection: int = 0
    """Parameters on the skip of the last stage's first block, of a ResNet; 0 for other networks."""

    def __call__(self, *, classes: int, channels: int, image_size: int, width: float) -> Outline:
        """Return the outline; raise `Refused` for a width other than 1 or a smaller side."""
        require_library(self.name, width, image_size, self.least)
        missing = (3 - channels) * self.per_channel
        first, (num_blocks, count) = next(iter(self.parts.items()))
        parts = {**self.parts, first: (num_blocks, count - missing)}
        head = _linear(self.features, classes, bias=self.has_bias)
        outline = _outline(parts, self.rest + head, self.layer_groups)
        if not self.projection:
            return outline
        *_, begin, end = outline.cut_points.values()
        return replace(outline, last_stage=range(begin, end), projection=self.projection)


def _outline(
    parts: Mapping[str, tuple[int, int]],
    rest: int,
    groups: tuple[int, int] | tuple[str, str],
    constant: int = 0,
) -> Outline:
    """Return an outline of the blocks and parameters of each part; `groups`: blocks, or cut points."""
    blocks = accumulate(num_blocks for num_blocks, _ in parts.values())
    counts = list(accumulate(count for _, count in parts.values()))
    cuts = dict(zip(parts, zip(blocks, counts, strict=True), strict=True))
    first, middle = (cuts[group][0] if isinstance(group, str) else group for group in groups)
    return Outline(cuts, (first, middle), counts[-1] + rest, constant)


def _convolution(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """Return the parameters of a 3x3 convolution."""
    return 9 * inputs * outputs + bias * outputs


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


def _resnet(name: str, num_blocks: Sequence[int], counts: Sequence[int], features: int) -> Library:
    """Return torchvision's ResNet of four stages with these blocks and parameters; the third has half of the
    features."""
    stages = dict(
        zip(("layer1", "layer2", "layer3", "layer4"), zip(num_blocks, counts, strict=True), strict=True)
    )
    parts, skip = {"stem": (4, 9_536), **stages}, _projection(features // 2, features)
    return Library(name, 32, parts, ("layer2", "layer3"), features, 3_136, projection=skip)


def _densenet(name: str, stem: int, counts: Sequence[int], features: int) -> Library:
    """Return torchvision's DenseNet with that many channels after the stem and these parameters of each
    dense block with what follows it."""
    stages = {f"block{place}": (2, count) for place, count in enumerate(counts, start=1)}
    parts = {"stem": (4, 149 * stem), **stages}
    return Library(name, 32, parts, ("block2", "block3"), features, 49 * stem)


def _efficientnet(name: str, counts: Sequence[int], top: int, features: int) -> Library:
    """Return torchvision's EfficientNet of seven stages with these parameters."""
    stages = {f"stage{place}": (1, count) for place, count in enumerate(counts, start=1)}
    parts = {"stem": (1, 928), **stages, "top": (1, top)}
    return Library(name, 32, parts, ("stage3", "stage5"), features, 288)


def _units(stage: str, first: int, other: int, count: int) -> dict[str, tuple[int, int]]:
    """Return a stage of units that are blocks and cut points; all but the first are alike."""
    return {f"{stage}_{place}": (1, other if place else first) for place in range(count)}


resnet18 = _resnet("resnet18", (2, 2, 2, 2), (147_968, 525_568, 2_099_712, 8_393_728), 512)
resnet34 = _resnet("resnet34", (3, 4, 6, 3), (221_952, 1_116_416, 6_822_400, 13_114_368), 512)
resnet50 = _resnet("resnet50", (3, 4, 6, 3), (215_808, 1_219_584, 7_098_368, 14_964_736), 2_048)
resnet101 = _resnet("resnet101", (3, 4, 23, 3), (215_808, 1_219_584, 26_090_496, 14_964_736), 2_048)
resnet152 = _resnet("resnet152", (3, 8, 36, 3), (215_808, 2_339_840, 40_613_888, 14_964_736), 2_048)
densenet121 = _densenet("densenet121", 64, (368_320, 1_051_776, 3_364_096, 2_160_128), 1_024)
densenet161 = _densenet("densenet161", 96, (825_888, 2_357_952, 13_782_720, 9_491_136), 2_208)
densenet169 = _densenet("densenet169", 64, (368_320, 1_051_776, 5_137_920, 5_916_928), 1_664)
resnest101 = Library(
    "resnest101",
    32,
    {
        "stem": (4, 112_832),
        **_units("layer1", 101_984, 76_896, 3),
        **_units("layer2", 404_672, 305_344, 4),
        **_units("layer3", 1_612_160, 1_216_896, 23),
        **_units("layer4", 6_435_584, 4_858_624, 3),
    },
    ("layer2_3", "layer3_22"),
    2_048,
    576,
)
maxvit_t = Library(
    "maxvit_t",
    0,
    {
        "stem": (1, 38_784),
        "block0": (1, 294_952),
        "block1": (1, 1_114_064),
        "block2": (1, 11_165_456),
        "block3": (1, 17_530_688),
    },
    ("block1", "block2"),
    512,
    576,
    rest=263_680,
    has_bias=False,
)
inception_v3 = Library(
    "inception_v3",
    75,
    {
        "Conv2d_1a_3x3": (1, 928),
        "Conv2d_2a_3x3": (1, 9_280),
        "Conv2d_2b_3x3": (2, 18_560),
        "Conv2d_3b_1x1": (1, 5_280),
        "Conv2d_4a_3x3": (2, 138_624),
        "Mixed_5b": (1, 255_904),
        "Mixed_5c": (1, 277_472),
        "Mixed_5d": (1, 285_152),
        "Mixed_6a": (1, 1_153_280),
        "Mixed_6b": (1, 1_297_408),
        "Mixed_6c": (1, 1_691_008),
        "Mixed_6d": (1, 1_691_008),
        "Mixed_6e": (1, 2_141_952),
        "Mixed_7a": (1, 1_698_304),
        "Mixed_7b": (1, 5_044_608),
        "Mixed_7c": (1, 6_076_800),
    },
    ("Mixed_5d", "Mixed_6e"),
    2_048,
    288,
)
efficientnet_b0 = _efficientnet(
    "efficientnet_b0", (1_448, 16_714, 46_640, 242_930, 543_148, 2_026_348, 717_232), 412_160, 1_280
)
efficientnet_b1 = _efficientnet(
    "efficientnet_b1", (2_060, 27_424, 77_930, 345_830, 751_720, 2_614_300, 2_280_832), 412_160, 1_280
)
efficientnet_b2 = _efficientnet(
    "efficientnet_b2", (2_060, 27_424, 103_134, 421_550, 862_768, 3_048_878, 2_735_820), 498_432, 1_408
)
efficientnet_lite0 = Library(
    "efficientnet_lite0",
    32,
    {
        "stem": (2, 928),
        "stage1": (1, 896),
        "stage2": (1, 13_968),
        "stage3": (1, 39_712),
        "stage4": (1, 198_480),
        "stage5": (1, 446_784),
        "stage6": (1, 1_652_640),
        "stage7": (1, 605_440),
        "top": (2, 412_160),
    },
    ("stage3", "stage5"),
    1_280,
    288,
)
ir152 = partial(ir, IR152_UNITS, "ir152", 46)
facenet64 = partial(ir, IR50_UNITS, "facenet64", 5)
facenet = partial(ir, IR50_UNITS, "facenet")

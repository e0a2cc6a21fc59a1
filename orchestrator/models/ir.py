"""IR networks: the face classifiers IR-152 and IR-50 ("FaceNet") of GAN-based attacks and TL-DMI.

Improved residual units after Deng et al., "ArcFace" (CVPR 2019), as in the public face.evoLVe backbones:
three layers at full resolution, four stages that each begin with stride 2, an embedding. Ho et al. (TL-DMI,
CVPR 2024), Table 8, freeze units 0-46 of IR-152 and 0-5 of FaceNet64. Their code is meant to freeze the input
layer too but leaves it trainable (a misspelt attribute): the budget `units0-46` reproduces the code, `unit46`
the intention. Weights are initialised by torch's defaults.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import IR50_UNITS, IR152_UNITS, IR_CHANNELS, require_multiple, scaled

BACKBONE_SIZE = 112
"""Image side of public backbones, the only one that fits their embedding layer."""

NARROW = 16
"""Input channels of one AVX-512 register; AVX2 has 8."""


class Ir(Classifier):
    """Images (N, C, S, S) in [0, 1], S a multiple of 16 -> logits (N, k); raise `Refused` for another S."""

    ignored = ("st_layer.",)  # MID's bottleneck

    stages: ClassVar[tuple[int, ...]]
    """Number of units in each stage."""

    last_frozen: ClassVar[int | None] = None
    """Last unit that TL-DMI's released code freezes; it leaves the input layer trainable."""

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_multiple(image_size, 16, type(self).__name__.lower())
        counts = [scaled(count, width) for count in IR_CHANNELS]
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=_input(channels, counts[0]))
        parts |= {f"unit{place}": unit for place, unit in enumerate(_units(self.stages, counts))}
        self.cut_points = {name: end for end, name in enumerate(parts, start=1)}
        parts["output"] = _embedding(counts[-1], image_size // 16)
        self.blocks = nn.Sequential(parts)
        self.num_features = counts[-1]
        self.head = nn.Linear(self.num_features, classes)
        ends = [1 + units for units in accumulate(self.stages)]
        # The paper defines no sets for these networks; these are nearest to its thirds of VGG16.
        self.layer_groups = ends[1], ends[2]
        self.hidden_taps = (*ends, len(self.blocks))
        self.last_stage = range(*ends[-2:])
        self.renamed = _public_names(sum(self.stages))
        if self.last_frozen is not None:
            self.released = {f"units0-{self.last_frozen}": range(1, self.last_frozen + 2)}
        self.own = () if image_size == BACKBONE_SIZE else ("blocks.output.",)


class Ir152(Ir):
    """IR-152, made for 64x64."""

    stages = IR152_UNITS
    last_frozen = 46


class FaceNet64(Ir):
    """IR-50 as made for 64x64."""

    stages = IR50_UNITS
    last_frozen = 5


class FaceNet(Ir):
    """IR-50 as made for 112x112: the evaluation model of attacks on 64x64 classifiers."""

    stages = IR50_UNITS


class Unit(nn.Module):
    """Two convolutions, the second with the stride, added to a strided identity or projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            projection = Projection(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs, S / stride, S / stride)."""
        return self.residual(maps) + self.shortcut(maps)


class Projection(nn.Conv2d):
    """1x1 convolution with a stride; with few input channels it selects the pixels first.

    With fewer input channels than a register has, 8 with AVX2 and 16 with AVX-512, the backward pass of
    oneDNN's kernel (torch 2.15, channels last) writes outside its buffers and ends the process; the
    convolution of every `stride`-th pixel is the same function.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs, S / stride, S / stride) of maps (N, inputs, S, S)."""
        if self.in_channels >= NARROW:
            return super().forward(maps)
        step, along = self.stride
        return functional.conv2d(maps[..., ::step, ::along], self.weight)


def _input(channels: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def _units(stages: Sequence[int], counts: Sequence[int]) -> Iterator[Unit]:
    inputs = counts[0]
    for units, outputs in zip(stages, counts, strict=True):
        for place in range(units):
            yield Unit(inputs, outputs, stride=1 if place else 2)
            inputs = outputs


def _embedding(channels: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(channels * side * side, channels),
        nn.BatchNorm1d(channels),
    )


def _public_names(units: int) -> dict[str, str]:
    """Map prefixes of backbone files, and of released classifiers, with a backbone `feature`, to ours."""
    names = {"input_layer.": "blocks.input.", "output_layer.": "blocks.output."}
    for unit in range(units):
        names[f"body.{unit}.shortcut_layer."] = f"blocks.unit{unit}.shortcut."
        names[f"body.{unit}.res_layer."] = f"blocks.unit{unit}.residual."
    heads = {"fc_layer.": "head.", "fc_layer.0.": "head.", "fc.": "head."}
    return names | {f"feature.{theirs}": ours for theirs, ours in names.items()} | heads

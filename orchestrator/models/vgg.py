"""VGG16 with batch norm for small images: the target classifier of TL-DMI, BiDO and GAN-based attacks.

Ho et al., "Model Inversion Robustness: Can Transfer Learning Help?" (CVPR 2024), Table 8: torchvision's
vgg16_bn features (at 64x64 they end in 512x2x2), a batch norm without shift, one linear layer. The |theta_C|
of each cut point is in tests/models/test_vgg.py. Weights are initialised by torch's defaults.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import VGG16_STAGES, require_multiple, scaled

CONVOLUTIONS = tuple(
    f"conv{stage}_{place + 1}"
    for stage, counts in enumerate(VGG16_STAGES, start=1)
    for place in range(len(counts))
)
"""Names of the 13 convolutions as in the paper, in order."""

NUM_LAYERS = [3 * len(counts) + 1 for counts in VGG16_STAGES]
"""Layers of each stage: convolutions with batch norm and ReLU, and a pooling."""

PUBLIC_NAMES = {
    **{"features.": "blocks.", "feature.": "blocks.", "bn.": "blocks.norm.", "fc_layer.": "head."},
    **{
        f"layer{stage}.{place}.": f"blocks.{sum(NUM_LAYERS[: stage - 1]) + place}."
        for stage, count in enumerate(NUM_LAYERS, start=1)
        for place in range(count)
    },
}
"""Prefixes of public names -> ours: torchvision's, those of classifiers released with attacks, and BiDO's,
whose stages `layer1` to `layer5` each count from 0."""


class Vgg16(Classifier):
    """Images (N, C, S, S) in [0, 1], S a multiple of 32 -> logits (N, k); raise `Refused` for another S.

    Layer i of torchvision's `features` is block i. Freezing at a convolution freezes its batch norm too.
    """

    renamed = PUBLIC_NAMES
    ignored = ("classifier.", "st_layer.")  # torchvision's three layers for 224x224 images; MID's bottleneck
    own = ("blocks.norm.",)
    norm_before_head = "norm"

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        require_multiple(image_size, 32, "vgg16")
        layers = nn.Sequential(*_features(width))
        layers[0] = nn.Conv2d(channels, scaled(64, width), kernel_size=3, padding=1)
        self.num_features = scaled(512, width) * (image_size // 32) ** 2
        self.blocks = nn.Sequential(OrderedDict(layers.named_children()))
        self.blocks.add_module("flatten", nn.Flatten())
        self.blocks.add_module("norm", _norm_without_shift(self.num_features))
        self.head = nn.Linear(self.num_features, classes)
        # A cut ends where the next convolution begins, so that a pooling belongs to the one before it.
        begins = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        ends = [end for _, end in pairwise([*begins, len(layers)])]
        self.cut_points = dict(zip(CONVOLUTIONS, ends, strict=True))
        # The paper does not print its sets; this reading gives 1.74 M first and 5.90 M middle parameters.
        self.layer_groups = self.cut_points["conv3_3"], self.cut_points["conv4_3"]
        pools = [place for place, layer in enumerate(layers, start=1) if isinstance(layer, nn.MaxPool2d)]
        # As in released BiDO, the fifth stage's is taken after the batch norm.
        self.hidden_taps = (*pools[:-1], len(self.blocks))


def _features(width: float) -> Iterator[nn.Module]:
    """Yield the layers of torchvision's `features` for RGB, first weights drawn as there: its import takes 90
    MiB, and 2 s."""
    before = 3
    for counts in VGG16_STAGES:
        for count in counts:
            after = scaled(count, width)
            yield from (
                nn.Conv2d(before, after, kernel_size=3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            before = after
        yield nn.MaxPool2d(kernel_size=2, stride=2)


def _norm_without_shift(features: int) -> nn.BatchNorm1d:
    """Return a batch norm whose bias stays 0 (released code)."""
    norm = nn.BatchNorm1d(features)
    norm.bias.requires_grad_(False)
    return norm

"""AMI's networks: classifiers F and inverters G for digits (32x32) and faces (64x64).

Yang, Chang, Liang, "Adversarial Neural Network Inversion via Auxiliary Knowledge Alignment" (2019), appendix;
where the printed layer lists contradict themselves the released code decides. Modules are registered in layer
order, and their names do not depend on width, so released weights map one to one onto `state_dict()`.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import AMI_CHANNELS, AMI_HIDDEN_PER_CLASS, scaled
from orchestrator.models.transposed import Doubling, Seed, ToPixels

INVERTER_CHANNELS = {32: (512, 256, 128), 64: (1024, 512, 256, 128)}
"""Output channels of each block but the last, by image side; the first makes 4x4, others double the side."""


class AmiClassifier(Classifier):
    """F: images (N, C, S, S) in [0, 1] -> logits (N, k).

    The log-softmax that the paper draws as the last layer belongs to the loss (cross-entropy) and the softmax
    to the release (`threat.BlackBox`); neither has parameters.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = (channels, *_scaled(AMI_CHANNELS[image_size], width))
        hidden = AMI_HIDDEN_PER_CLASS * classes
        self.blocks = nn.Sequential(*(_down(before, after) for before, after in pairwise(counts)))
        last = len(self.blocks)
        self.cut_points = {f"block{place}": place for place in range(1, last + 1)}
        self.layer_groups, self.hidden_taps = (last // 3, last - 1), tuple(self.cut_points.values())
        self.num_features = counts[-1] * 4 * 4
        # No activation between the two linear layers, as released.
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(self.num_features, hidden), nn.Dropout(0.5), nn.Linear(hidden, classes)
        )


class AmiInverter(nn.Module):
    """G: encoded scores z (N, k) -> images (N, C, S, S) in [0, 1]."""

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = _scaled(INVERTER_CHANNELS[image_size], width)
        first = _up(Seed(classes, counts[0]))
        doubling = [_up(Doubling(before, after)) for before, after in pairwise(counts)]
        last = nn.Sequential(ToPixels(counts[-1], channels), nn.Sigmoid())
        self.blocks = nn.Sequential(first, *doubling, last)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return images (N, C, S, S) in [0, 1]."""
        return self.blocks(encoded[:, :, None, None])


def _scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    return tuple(scaled(count, width) for count in channels)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the side, with the pooling before the activation, as released."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.MaxPool2d(2), nn.ReLU())


def _up(layer: nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.Tanh())

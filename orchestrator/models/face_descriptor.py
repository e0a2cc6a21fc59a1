"""Face descriptor: a recogniser of people that others trained, dlib's ResNet of 29 convolutions (King 2017).

Names are those of `@vladmandic/face-api` with dots for slashes; its filters, stored H, W, in, out, are turned
when they are loaded. Two pictures show one person where their descriptors are near (Euclidean).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config.base import Refused
from orchestrator.models.inception_resnet import load_public

SIDE = 150
NUM_FEATURES = 128
MEANS = (122.782, 117.001, 104.298)
"""Of red, green and blue in 0..255, subtracted before the division by 255."""

STAGES = {"conv32": (32, 3), "conv64": (64, 3), "conv128": (128, 2), "conv256": (256, 2)}
"""Name of a group -> channels, and blocks that keep the side; all but the first begin with one that halves
it."""

SOURCE = "the face descriptor (@vladmandic/face-api, face_recognition_model)"


class FaceDescriptor(nn.Module):
    """Faces (N, 3, 150, 150), x - mean / 255 of x in [0, 1] -> descriptors (N, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = Scaled(3, 32, 7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)
        before = 32
        for name, (channels, num_kept) in STAGES.items():
            if before != channels:
                self.add_module(f"{name}_down", Halving(before, channels))
            for place in range(1, num_kept + 1):
                self.add_module(f"{name}_{place}", Keeping(channels, channels))
            before = channels
        self.conv256_down_out = Halving(before, before)
        self.fc = nn.Linear(before, NUM_FEATURES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return descriptors (N, 128): the modules in their order, positions averaged before the last."""
        *body, last = self.children()
        flow = body[0](images).relu()
        for module in body[1:]:
            flow = module(flow)
        descriptors: Tensor = last(flow.mean(dim=(2, 3)))
        return descriptors


class Scaled(nn.Module):
    """A convolution with bias, then a scale and a shift of each channel: (N, C, S, S) -> (N, C', T, T)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.scale = Scale(outputs)

    def forward(self, flow: Tensor) -> Tensor:
        """Return the scaled and shifted convolution."""
        scaled: Tensor = self.scale(self.conv(flow))
        return scaled


class Scale(nn.Module):
    """A factor and a summand for each channel, (N, C, S, S) -> (N, C, S, S)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, flow: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        return flow * self.weight[:, None, None] + self.bias[:, None, None]


class Keeping(nn.Module):
    """A residual block that keeps the side, (N, C, S, S) -> (N, C, S, S)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Scaled(inputs, outputs, 3, padding=1)
        self.conv2 = Scaled(outputs, outputs, 3, padding=1)

    def forward(self, flow: Tensor) -> Tensor:
        """Return the rectified sum of the input and two convolutions of it."""
        return (self.conv2(self.conv1(flow).relu()) + flow).relu()


class Halving(nn.Module):
    """A residual block that halves the side, (N, C, S, S) -> (N, C', S // 2, S // 2), C' >= C."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Scaled(inputs, outputs, 3, stride=2)
        self.conv2 = Scaled(outputs, outputs, 3, padding=1)

    def forward(self, flow: Tensor) -> Tensor:
        """Return the rectified sum of two convolutions and the pooled input, each filled up with zeros: at
        the right and bottom edge, and in the channels that the input lacks."""
        changed, pooled = self.conv2(self.conv1(flow).relu()), functional.avg_pool2d(flow, 2)
        missing = pooled.shape[-1] - changed.shape[-1]
        changed = functional.pad(changed, (0, missing, 0, missing))
        pooled = functional.pad(pooled, (0, 0, 0, 0, 0, changed.shape[1] - pooled.shape[1]))
        return (changed + pooled).relu()


def face_descriptor(public: Mapping[str, Tensor]) -> FaceDescriptor:
    """Build the network with staged weights, in evaluation mode, without gradients of its parameters.

    Raise `Refused` if names are missing or unknown, or shapes differ.
    """
    network = FaceDescriptor()
    load_public(network, _turned(public), SOURCE)
    return network.eval().requires_grad_(False)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raise `Refused` if weights of this name, with these tensors, are not the face descriptor's."""
    with torch.device("meta"):
        network = FaceDescriptor()
        public = {tensor: torch.empty(shape) for tensor, shape in shapes.items()}
    try:
        load_public(network, _turned(public), SOURCE)
    except Refused as refused:
        rule = f"are not the face descriptor's: they {refused.rule}"
        raise Refused("judges.recogniser.weights", name, rule, f"stage those of {SOURCE}") from None


def _turned(public: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the network's names and with its order of dimensions; others stay as they are."""
    return dict(_as_ours(name, tensor) for name, tensor in public.items())


def _as_ours(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    path, _, last = name.rpartition("/")
    inside = path.replace("/", ".")
    if last == "filters" and tensor.ndim == 4:
        return f"{inside}.weight", tensor.permute(3, 2, 0, 1).contiguous()
    if name == "fc" and tensor.ndim == 2:
        return "fc.weight", tensor.t().contiguous()
    ours = {"weights": "weight", "biases": "bias"}.get(last, last)
    return f"{inside}.{ours}".lstrip("."), tensor

"""InceptionResnetV1 (Szegedy et al. 2017), the public FaceNet: embeddings of faces.

After David Sandberg's facenet. Parameter names and shapes are those of timesler/facenet-pytorch, so that its
VGGFace2 file loads. For evaluation only: without dropout and the logits over 8,631 identities.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config.base import NO_VALUE, Refused

NUM_FEATURES = 512


class InceptionResnetV1(nn.Module):
    """Faces (N, 3, 160, 160), (255 x - 127.5) / 128 of x in [0, 1] -> embeddings of unit length (N, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _convolution(3, 32, 3, stride=2)
        self.conv2d_2a = _convolution(32, 32, 3)
        self.conv2d_2b = _convolution(32, 64, 3, is_padded=True)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _convolution(64, 80, 1)
        self.conv2d_4a = _convolution(80, 192, 3)
        self.conv2d_4b = _convolution(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_residual_35() for _ in range(5)))
        self.mixed_6a = Reduction(
            _convolution(256, 384, 3, stride=2), _reducing(256, (192, 1), (192, 3), (256, 3))
        )
        self.repeat_2 = nn.Sequential(*(_residual_17() for _ in range(10)))
        self.mixed_7a = Reduction(
            _reducing(896, (256, 1), (384, 3)),
            _reducing(896, (256, 1), (256, 3)),
            _reducing(896, (256, 1), (256, 3), (256, 3)),
        )
        self.repeat_3 = nn.Sequential(*(_residual_8(scale=0.2) for _ in range(5)))
        self.block8 = _residual_8(scale=1.0, is_rectified=False)
        self.avgpool_1a = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last_linear = nn.Linear(1792, NUM_FEATURES, bias=False)
        self.last_bn = nn.BatchNorm1d(NUM_FEATURES, eps=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, 512): the modules above in their order, then division by the length."""
        flow = images
        for module in self.children():
            flow = module(flow)
        return functional.normalize(flow, dim=1)


class Residual(nn.Module):
    """Sum of the input and the scaled, joined outputs of parallel branches, (N, C, S, S) -> (N, C, S, S)."""

    def __init__(
        self, branches: Sequence[nn.Module], joined: nn.Conv2d, scale: float, is_rectified: bool
    ) -> None:
        super().__init__()
        for place, branch in enumerate(branches):
            self.add_module(f"branch{place}", branch)
        self.conv2d = joined
        self.scale = scale
        self.is_rectified = is_rectified

    def forward(self, flow: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        *branches, joined = self.children()
        total = flow + self.scale * joined(torch.cat([branch(flow) for branch in branches], dim=1))
        return total.relu() if self.is_rectified else total


class Reduction(nn.Module):
    """Parallel branches beside a pooling of the input, (N, C, S, S) -> (N, C', T, T), T = (S - 1) // 2."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for place, branch in enumerate((*branches, nn.MaxPool2d(3, stride=2))):
            self.add_module(f"branch{place}", branch)

    def forward(self, flow: Tensor) -> Tensor:
        """Return the branches' channels and the input's, in this order."""
        return torch.cat([branch(flow) for branch in self.children()], dim=1)


def facenet(public: Mapping[str, Tensor]) -> nn.Module:
    """Return the network with facenet-pytorch's public weights, in evaluation mode; ignore `logits.*`.

    Raise `Refused` if the weights are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        network = InceptionResnetV1()
    body = {name: tensor for name, tensor in public.items() if not name.startswith("logits.")}
    load_public(network, body, "facenet-pytorch's InceptionResnetV1")
    return network.eval().requires_grad_(False)


def load_public(network: nn.Module, public: Mapping[str, Tensor], source: str) -> None:
    """Copy public weights of exactly the network's names and shapes; `source` names their origin in messages.

    Step counts of batch norms may be missing: files older than PyTorch 0.4.1 have none, and evaluation needs
    none. Raise `Refused` if other names are missing or unknown, or shapes differ.
    """
    own = network.state_dict()
    weights, way_out = "Public weights", f"give the state dict of {source}"
    for name, tensor in own.items():
        if name not in public:
            if name.endswith(".num_batches_tracked"):
                continue
            raise Refused(weights, NO_VALUE, f"lack {name}", way_out)
        if public[name].shape != tensor.shape:
            shapes = f"{tuple(public[name].shape)}, not {tuple(tensor.shape)}"
            raise Refused(weights, NO_VALUE, f"have {name} of shape {shapes}", way_out)
    for name in public:
        if name not in own:
            raise Refused(weights, NO_VALUE, f"have {name}, which the network lacks", way_out)
    network.load_state_dict(dict(public))


def _convolution(
    inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, is_padded: bool = False
) -> nn.Sequential:
    """Return a convolution without bias, batch norm and ReLU; padded, it keeps the side."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if is_padded else (0, 0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False),
            bn=nn.BatchNorm2d(outputs, eps=0.001),
            relu=nn.ReLU(),
        )
    )


def _keeping(inputs: int, *layers: tuple[int, int | tuple[int, int]]) -> nn.Sequential:
    """Return convolutions (outputs, kernel) in a row that keep the side."""
    counts = [inputs, *(outputs for outputs, _ in layers[:-1])]
    return nn.Sequential(
        *(
            _convolution(before, outputs, kernel, is_padded=True)
            for before, (outputs, kernel) in zip(counts, layers, strict=True)
        )
    )


def _reducing(inputs: int, *layers: tuple[int, int]) -> nn.Sequential:
    """Return convolutions (outputs, kernel) in a row of which the last one halves the side."""
    *kept, (outputs, kernel) = layers
    body = _keeping(inputs, *kept)
    return body.append(_convolution(kept[-1][0], outputs, kernel, stride=2))


def _residual_35() -> Residual:
    """Return a block for 256 channels (17x17 for a side of 160; named after 35x35 for 299)."""
    branches = [
        _convolution(256, 32, 1),
        _keeping(256, (32, 1), (32, 3)),
        _keeping(256, (32, 1), (32, 3), (32, 3)),
    ]
    return Residual(branches, nn.Conv2d(96, 256, 1), scale=0.17, is_rectified=True)


def _residual_17() -> Residual:
    """Return a block for 896 channels (8x8)."""
    branches = [_convolution(896, 128, 1), _keeping(896, (128, 1), (128, (1, 7)), (128, (7, 1)))]
    return Residual(branches, nn.Conv2d(256, 896, 1), scale=0.1, is_rectified=True)


def _residual_8(*, scale: float, is_rectified: bool = True) -> Residual:
    """Return a block for 1792 channels (3x3)."""
    branches = [_convolution(1792, 192, 1), _keeping(1792, (192, 1), (192, (1, 3)), (192, (3, 1)))]
    return Residual(branches, nn.Conv2d(384, 1792, 1), scale=scale, is_rectified=is_rectified)

"""Public networks: LPIPS (Zhang et al. 2018), and Inception-v3 or FaceNet features for `features.py`.

Public weights are state dicts that the caller has read from a file; nothing is downloaded. Images are (N, C,
S, S) in [0, 1] or uint8, C 1 (repeated to RGB) or 3.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from orchestrator.metrics.features import by_class
from orchestrator.models.face_descriptor import MEANS
from orchestrator.models.inception_resnet import load_public
from orchestrator.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from orchestrator.training.pairs import Rows, as_unit, concatenated

if TYPE_CHECKING:
    from torchmetrics.functional.image.lpips import _NoTrainLpips

LPIPS_MIN_SIDE = 64  # side of the patches that the heads were fitted on
LPIPS_BATCH = 16  # VGG16's responses to one image of 224x224 take 25 MB
FEATURES_BATCH = 64

BACKBONES = {"vgg": "vgg16", "alex": "alexnet"}
"""LPIPS network -> torchvision's name for its backbone."""

SCALINGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "facenet": ((0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)),
    "descriptor": ((MEANS[0] / 255, MEANS[1] / 255, MEANS[2] / 255), (1.0, 1.0, 1.0)),
}
"""Scaling -> mean and divisor of each channel: ImageNet's, to [-1, 1], facenet's (255 x - 127.5) / 128, the
face descriptor's x - mean / 255."""


def lpips_network(kind: Literal["vgg", "alex"], public: Mapping[str, Tensor]) -> "_NoTrainLpips":
    """Build LPIPS (v0.1) on torchvision's public VGG16 or AlexNet; the linear heads come with the library.

    public: torchvision's ImageNet state dict, of which `features.*` is used. The network stays in evaluation
    mode and its parameters need no gradient. Raise `ValueError` if the state dict is of another network.
    """
    from torchmetrics.functional.image.lpips import _NoTrainLpips  # here: 100 MiB, and few studies measure it

    with torch.random.fork_rng(devices=[]), _Uninitialised():
        network = _NoTrainLpips(net=kind, pnet_rand=True)
    # The library cuts the backbone into slices, in which each layer keeps its number.
    layers = dict(layer for part in network.net.children() for layer in part.named_children())
    backbone = nn.ModuleDict({"features": nn.ModuleDict(layers)})
    body = {name: tensor for name, tensor in public.items() if name.startswith("features.")}
    load_public(backbone, body, f"torchvision's {BACKBONES[kind]}")
    return network


class _Uninitialised(TorchFunctionMode):
    """Within this context most new layers draw no weights: VGG16's 138 million take a CPU second."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return named["tensor"] if "tensor" in named else arguments[0]
        return function(*arguments, **named)


def lpips(network: "_NoTrainLpips", images: Tensor, others: Tensor) -> Tensor:
    """Return the LPIPS distance of each pair of images (N, C, S, S), (N,), >= 0; lower means more leaks.
    Gradients reach both arguments.

    Both are of one size, on the network's device; below 64 pixels they are enlarged to 64x64, bilinearly.
    """
    return _differences(network, _responses(network, images), _responses(network, others))


def nearest_lpips(
    network: "_NoTrainLpips", reconstructions: Tensor, labels: Tensor, private: Rows, private_labels: Tensor
) -> Tensor:
    """Return the LPIPS distance to the nearest private image of the same class, (N,) float64; lower means
    more leaks.

    Images (N, C, S, S) and (M, C, S, S) on any device, labels (N,) and (M,) int64. Raise `ValueError` if a
    class has no private image.
    """
    return by_class(partial(_nearest, network), reconstructions, labels, private, private_labels)


PERCEPTUAL_DISTANCES: dict[str, Callable[["_NoTrainLpips", Tensor, Tensor, Rows, Tensor], Tensor]] = {
    "lpips_vgg": nearest_lpips,
    "lpips_alex": nearest_lpips,
}
"""Metric -> its function, with the network that it `needs`."""


def inception_network(public: Mapping[str, Tensor]) -> nn.Module:
    """Build torchvision's Inception-v3 without its classifier: images (N, 3, 299, 299) -> features (N, 2048).

    public: torchvision's ImageNet state dict. These weights expect images in [-1, 1] (scaling `symmetric`).
    FID and the overlaps differ from those with the TensorFlow weights of 2015, which most papers used:
    compare the numbers with each other only. Raise `ValueError` if the state dict is of another network.
    """
    from torchvision.models import inception_v3  # here, as above

    has_auxiliary = any(name.startswith("AuxLogits.") for name in public)
    with torch.random.fork_rng(devices=[]):
        network = inception_v3(weights=None, aux_logits=has_auxiliary, init_weights=False)
    load_public(network, public, "torchvision's inception_v3")
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def features_of(
    network: nn.Module,
    images: Rows,
    side: int,
    device: torch.device | str,
    *,
    normalise: Literal["imagenet", "symmetric", "facenet", "descriptor"],
) -> Tensor:
    """Return the features (N, d), float32 on the CPU, of images resized to side^2 (bilinear, antialiased).

    The network is on `device` and in evaluation mode. Inception-v3 takes a side of 299 and `symmetric`; FID
    with torchvision's weights differs from FID with the TensorFlow ones. FaceNet takes 160 and `facenet`.
    """
    mean, divisor = (torch.tensor(each, device=device)[:, None, None] for each in SCALINGS[normalise])

    def of(batch: Tensor) -> Tensor:
        resized = functional.interpolate(
            _as_rgb(batch.to(device)), (side, side), mode="bilinear", antialias=True, align_corners=False
        )
        features: Tensor = network((resized - mean) / divisor).flatten(1).float().cpu()
        return features

    return concatenated((of(batch) for batch in images.split(FEATURES_BATCH)), len(images))


def _responses(network: "_NoTrainLpips", images: Tensor) -> list[Tensor]:
    """Return the backbone's maps (N, c, h, w) at each depth, of unit length over channels."""
    from torchmetrics.functional.image.lpips import _normalize_tensor  # here, as above

    prepared = 2.0 * _as_rgb(images) - 1.0
    if min(prepared.shape[-2:]) < LPIPS_MIN_SIDE:
        size = (LPIPS_MIN_SIDE, LPIPS_MIN_SIDE)
        prepared = functional.interpolate(prepared, size, mode="bilinear", align_corners=False)
    return [_normalize_tensor(maps) for maps in network.net(network.scaling_layer(prepared))]


def _differences(network: "_NoTrainLpips", ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Return the weighted squared differences, averaged over pixels and summed over depths, (N,).

    As the library's forward pass, but responses can be used again: each image meets all others of its class.
    """
    depths = [
        head((one - other).square()).mean(dim=(1, 2, 3))
        for head, one, other in zip(network.lins, ours, theirs, strict=True)
    ]
    return torch.stack(depths).sum(dim=0)


@torch.no_grad()
def _nearest(network: "_NoTrainLpips", reconstructions: Tensor, private: Tensor) -> Tensor:
    """Return the smallest distance of each reconstruction (n, C, S, S) to private images (m, C, S, S), (n,)
    on the CPU."""
    device = next(network.parameters()).device
    nearest = []
    for batch in reconstructions.split(LPIPS_BATCH):
        ours = _responses(network, batch.to(device))
        distances = []  # each (private in a batch, reconstructions in a batch)
        for others in private.split(LPIPS_BATCH):
            theirs = _responses(network, others.to(device))
            pairs = [
                _differences(network, [maps[place : place + 1] for maps in ours], theirs)
                for place in range(len(batch))
            ]
            distances.append(torch.stack(pairs, dim=1))
        nearest.append(torch.cat(distances).amin(dim=0))
    return torch.cat(nearest).cpu()


def _as_rgb(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1]."""
    return as_unit(images).expand(-1, 3, -1, -1)

"""Classifiers as papers' code has them, in plain torch, with their files' envelopes: what released
checkpoints hold. Layouts follow the code of the repositories named at each; all return logits alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from orchestrator import config
from orchestrator.defenses import defended
from orchestrator.models.build import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.outlines import scaled

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
IR50, IR152 = (3, 4, 14, 3), (3, 8, 36, 3)
CLASSES = 7


def vgg_stages(width: float) -> list[nn.Sequential]:
    """Convolutions with batch norm, a pooling at the end of each stage."""
    before, stages = 3, []
    for counts in STAGES:
        layers: list[nn.Module] = []
        for count in counts:
            after = scaled(count, width)
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2)))
    return stages


class Vgg16(nn.Module):
    """VGG16 of GMI, KEDMI (SCccc21/Knowledge-Enriched-DMI, classify.py), LOMMA and TL-DMI."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        self.feature = nn.Sequential(*(layer for stage in vgg_stages(width) for layer in stage))
        features = scaled(512, width) * 4
        self.bn = nn.BatchNorm1d(features)
        self.bn.bias.requires_grad_(False)
        self.fc_layer = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of 64x64."""
        return self.fc_layer(self.bn(self.feature(images).flatten(1)))


class Vgg16Bido(nn.Module):
    """VGG16 of BiDO (AlanPeng0897/Defend_MI, BiDO/model.py) with `hsic_training`."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = vgg_stages(width)
        features = scaled(512, width) * 4
        self.bn = nn.BatchNorm1d(features)
        self.fc_layer = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of 64x64."""
        flow = images
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5):
            flow = stage(flow)
        return self.fc_layer(self.bn(flow.flatten(1)))


def bottleneck(statistics: Tensor) -> Tensor:
    """MID's code: half are means, half deviations; noise at inference too."""
    mean, raw = statistics.chunk(2, dim=1)
    return mean + functional.softplus(raw - 5) * torch.randn_like(mean)


class Vgg16Vib(nn.Module):
    """VGG16 of MID (Jiachen-T-Wang/mi-defense, gmi/target/model.py)."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        self.feature = nn.Sequential(*(layer for stage in vgg_stages(width) for layer in stage))
        features = scaled(512, width) * 4
        self.st_layer = nn.Linear(features, features)
        self.fc_layer = nn.Linear(features // 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of 64x64."""
        return self.fc_layer(bottleneck(self.st_layer(self.feature(images).flatten(1))))


class IrUnit(nn.Module):
    """bottleneck_IR of face.evoLVe's backbones."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            projection = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the sum of both ways."""
        return self.res_layer(maps) + self.shortcut_layer(maps)


def embedding(channels: int, side: int) -> nn.Sequential:
    """The output layer of IR networks."""
    linear = nn.Linear(channels * side * side, channels)
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.Dropout(), nn.Flatten(), linear, nn.BatchNorm1d(channels)
    )


class IrBackbone(nn.Module):
    """Backbone64 of KEDMI's evolve.py; with the output layer for 7x7 maps face.evoLVe's, and Backbone112."""

    def __init__(self, units: tuple[int, ...], width: float, *, has_output: bool) -> None:
        super().__init__()
        counts = [scaled(count, width) for count in (64, 128, 256, 512)]
        first = nn.Conv2d(3, counts[0], 3, 1, 1, bias=False)
        self.input_layer = nn.Sequential(first, nn.BatchNorm2d(counts[0]), nn.PReLU(counts[0]))
        if has_output:
            self.output_layer = embedding(counts[-1], 7)
        chain: list[nn.Module] = []
        for number, (before, after) in zip(units, pairwise([counts[0], *counts]), strict=True):
            chain += [IrUnit(before, after, 2), *(IrUnit(after, after, 1) for _ in range(number - 1))]
        self.body = nn.Sequential(*chain)
        self.has_output = has_output

    def forward(self, images: Tensor) -> Tensor:
        """Return maps, or embeddings."""
        maps = self.body(self.input_layer(images))
        return self.output_layer(maps) if self.has_output else maps


class Ir64(nn.Module):
    """IR152 and FaceNet64 of KEDMI's classify.py; `is_vib`: IR152_vib of MID's code, without its softmax."""

    def __init__(self, units: tuple[int, ...], width: float, classes: int, *, is_vib: bool = False) -> None:
        super().__init__()
        features = scaled(512, width)
        self.feature = IrBackbone(units, width, has_output=False)
        self.output_layer = embedding(features, 4)
        self.is_vib = is_vib
        if is_vib:
            self.st_layer = nn.Linear(features, features)
            self.fc_layer: nn.Module = nn.Sequential(nn.Linear(features // 2, classes))
        else:
            self.fc_layer = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of 64x64."""
        features = self.output_layer(self.feature(images))
        return self.fc_layer(bottleneck(self.st_layer(features)) if self.is_vib else features)


class FaceNet(nn.Module):
    """FaceNet of KEDMI's classify.py: the evaluation model, with the output layer in the backbone."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        self.feature = IrBackbone(IR50, width, has_output=True)
        self.fc_layer = nn.Linear(scaled(512, width), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of 112x112."""
        return self.fc_layer(self.feature(images))


class Ppa(nn.Module):
    """Classifier of LukasStruppek/Plug-and-Play-Attacks, models/classifier.py: a library's as `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of images in [0, 1], which PPA's data loader scales to [-1, 1]."""
        return self.model(2 * images - 1)


def state_dict(module: nn.Module) -> dict[str, Any]:
    """The envelope of KEDMI, TL-DMI, MID and BiDO: trained in DataParallel."""
    return {"state_dict": {f"module.{name}": one for name, one in module.state_dict().items()}}


def of_ppa(module: nn.Module) -> dict[str, Any]:
    """The envelope of PPA: as its class is, with the optimizer's state."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"epoch": 100, "model_state_dict": module.state_dict(), "optimizer_state_dict": optimizer}


def parallel(module: nn.Module) -> nn.Module:
    """A whole DataParallel module, as `torch.save(net)` writes it."""
    return nn.DataParallel(module)


@dataclass(frozen=True)
class Release:
    """A released classifier, and what it is here."""

    file: str
    model: str  # name in `models.CLASSIFIERS`
    build: Callable[[float, int], nn.Module]  # width, classes
    saved: Callable[[nn.Module], Any] = state_dict
    scaling: str = "unit"
    side: int = 64
    has_width: bool = True
    is_mid: bool = False

    def ours(self, width: float, classes: int) -> Classifier:
        """Return our network of that width."""
        model = config.Model.model_validate({"name": self.model, "width": width, "scaling": self.scaling})
        network = build_classifier(model, classes=classes, channels=3, image_size=self.side)
        return defended(network, config.Defense(mid=config.Mid() if self.is_mid else None), classes)


def _library(make: Callable[..., nn.Module], **options: Any) -> Callable[[float, int], nn.Module]:
    return lambda width, classes: Ppa(make(num_classes=classes, **options))


def _ppa(model: str, make: Callable[..., nn.Module], side: int = 224, **options: Any) -> Release:
    shared: Mapping[str, Any] = {"scaling": "signed", "side": side, "has_width": False}
    return Release(f"{model}.pth", model, _library(make, **options), of_ppa, **shared)


RELEASES = [
    Release("VGG16_88.26.tar", "vgg16", Vgg16),
    Release("IR152_91.16.tar", "ir152", lambda width, classes: Ir64(IR152, width, classes)),
    Release("FaceNet64_88.50.tar", "facenet64", lambda width, classes: Ir64(IR50, width, classes)),
    Release("FaceNet_95.88.tar", "facenet", FaceNet, side=112),
    Release("VGG16_best.tar", "vgg16", Vgg16, parallel),
    Release("VGG16_0.050&0.500_80.35.tar", "vgg16", Vgg16Bido),
    Release("VGG16_vib.tar", "vgg16", Vgg16Vib, is_mid=True),
    Release(
        "IR152_vib.tar",
        "ir152",
        lambda width, classes: Ir64(IR152, width, classes, is_vib=True),
        is_mid=True,
    ),
    _ppa("resnet18", torchvision.models.resnet18),
    _ppa("resnet152", torchvision.models.resnet152),
    _ppa("densenet121", torchvision.models.densenet121),
    _ppa("densenet169", torchvision.models.densenet169),
    _ppa("resnest101", lambda num_classes: timm.create_model("resnest101e", num_classes=num_classes)),
    _ppa("inception_v3", torchvision.models.inception_v3, 299, aux_logits=True, init_weights=False),
]

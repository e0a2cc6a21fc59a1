"""Networks by name: classifiers (target, evaluation model, surrogates), inverters, generators. No torch.

Plans use it. `build` constructs the networks, `budgets` counts what a budget leaves to train.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.config.base import Model, Refused
from orchestrator.models import outlines
from orchestrator.models.outlines import Outline


@dataclass(frozen=True)
class Architecture:
    """What is known of a network without building it."""

    path: str
    """Module of this package and the class in it; the constructor takes classes, channels, image_size and
    width by keyword and raises `Refused` for other sizes."""

    image_size: int
    """Side in pixels that the network is made for."""

    outline: Callable[..., Outline] | None = None
    """Takes what the constructor takes and raises what it raises; None for networks that are not cut."""

    is_flexible: bool = False
    """Whether it admits other sides; constructor and outline check which."""

    has_norm: bool = False
    """Whether it has a `Classifier.norm_before_head`."""

    is_conditional: bool = False
    """Whether a generator or critic reads a class beside each latent or image."""


CLASSIFIERS: dict[str, Architecture] = {
    "ami-digit": Architecture("ami.AmiClassifier", 32, outlines.ami),
    "ami-face": Architecture("ami.AmiClassifier", 64, outlines.ami),
    "vgg16": Architecture("vgg.Vgg16", 64, outlines.vgg16, is_flexible=True, has_norm=True),
    "ir152": Architecture("ir.Ir152", 64, outlines.ir152, is_flexible=True),
    "facenet64": Architecture("ir.FaceNet64", 64, outlines.facenet64, is_flexible=True),
    "facenet": Architecture("ir.FaceNet", 112, outlines.facenet, is_flexible=True),
    "resnet18": Architecture("library.ResNet18", 224, outlines.resnet18, is_flexible=True),
    "resnet34": Architecture("library.ResNet34", 224, outlines.resnet34, is_flexible=True),
    "resnet50": Architecture("library.ResNet50", 224, outlines.resnet50, is_flexible=True),
    "resnet101": Architecture("library.ResNet101", 224, outlines.resnet101, is_flexible=True),
    "resnet152": Architecture("library.ResNet152", 224, outlines.resnet152, is_flexible=True),
    "densenet121": Architecture("library.DenseNet121", 224, outlines.densenet121, is_flexible=True),
    "densenet161": Architecture("library.DenseNet161", 224, outlines.densenet161, is_flexible=True),
    "densenet169": Architecture("library.DenseNet169", 224, outlines.densenet169, is_flexible=True),
    "resnest101": Architecture("library.ResNeSt101", 224, outlines.resnest101, is_flexible=True),
    "maxvit_t": Architecture("library.MaxVitT", 224, outlines.maxvit_t),
    "efficientnet_b0": Architecture(
        "library.EfficientNetB0", 224, outlines.efficientnet_b0, is_flexible=True
    ),
    "efficientnet_b1": Architecture(
        "library.EfficientNetB1", 240, outlines.efficientnet_b1, is_flexible=True
    ),
    "efficientnet_b2": Architecture(
        "library.EfficientNetB2", 288, outlines.efficientnet_b2, is_flexible=True
    ),
    "efficientnet_lite0": Architecture(
        "library.EfficientNetLite0", 224, outlines.efficientnet_lite0, is_flexible=True
    ),
    "inception_v3": Architecture("library.InceptionV3", 299, outlines.inception_v3, is_flexible=True),
}
"""Images (N, C, S, S) in [0, 1] -> logits (N, k)."""

INVERTERS: dict[str, Architecture] = {
    "ami-digit": Architecture("ami.AmiInverter", 32),
    "ami-face": Architecture("ami.AmiInverter", 64),
}
"""Encoded scores z (N, k) -> images (N, C, S, S) in [0, 1]."""

GENERATORS: dict[str, Architecture] = {
    "gmi": Architecture("gan.Generator", 64, is_flexible=True),
    "plg": Architecture("conditional_gan.ConditionalGenerator", 64, is_flexible=True, is_conditional=True),
}
"""Latents z (N, `latent_size`) -> images (N, C, S, S) in [0, 1]; `outlines.gan_channels` checks the side."""

CRITICS: dict[str, Architecture] = {
    "hinge": Architecture("gan.SpectralCritic", 64, is_flexible=True),
    "wgan-gp": Architecture("gan.Critic", 64, is_flexible=True),
    "kedmi": Architecture("gan.InversionCritic", 64, is_flexible=True),
    "plg": Architecture("conditional_gan.ProjectionCritic", 64, is_flexible=True, is_conditional=True),
}
"""Loss of a prior -> the network that its generator is trained against, images (N, C, S, S) -> (N,), or
logits (N, k) where it learns from a target of k classes."""


def outline(
    model: Model,
    *,
    classes: int,
    channels: int,
    image_size: int,
    field: str = "target.model",
    resizes: bool = False,
    last_skips: bool = True,
) -> Outline:
    """Return the outline of what `build.build_classifier` returns for these arguments; raise as it does.

    Without `last_skips`: after `skips.leave_out_last_skips`; raise `Refused` for a network that has none.
    """
    architecture, side = sized(model, image_size, field, resizes=resizes)
    assert architecture.outline is not None
    shapes = {"classes": classes, "channels": channels, "image_size": side}
    num_before = (model.scaling != "unit") + (side != image_size)
    whole = architecture.outline(**shapes, width=model.width).behind(num_before)
    if last_skips:
        return whole
    if not whole.last_stage:
        rule = f"leaves out residual sums, but {field}.name={model.name} has none that it knows"
        raise Refused("target.defense.rolss", "true", rule, "choose a ResNet or an IR network")
    return whole.without_last_skips()


def sized(model: Model, image_size: int, field: str, *, resizes: bool) -> tuple[Architecture, int]:
    """Return a classifier's architecture and the image side to build it for.

    With `resizes` (an evaluation model) that is the side that the network is made for. Raise `Refused` if
    `field`, the dotted path of `model` in messages, names no network or one of another size.
    """
    architecture = find(CLASSIFIERS, model.name, None if resizes else image_size, field)
    return architecture, image_size if architecture.is_flexible and not resizes else architecture.image_size


def find(known: Mapping[str, Architecture], name: str, image_size: int | None, field: str) -> Architecture:
    """Return a network of one of the tables above; raise `Refused` if the name or the image side is wrong.

    `image_size` None admits every side; `field` is the dotted path of the model in messages.
    """
    if name not in known:
        raise Refused(f"{field}.name", name, "is unknown", f"choose one of {', '.join(known)}")
    architecture = known[name]
    if image_size not in (None, architecture.image_size) and not architecture.is_flexible:
        fitting = ", ".join(other for other, one in known.items() if one.image_size == image_size)
        rule = f"must be {architecture.image_size} for {field}.name={name}"
        others = f"a network made for {image_size} ({fitting or 'there is none'})"
        raise Refused("data.image_size", image_size, rule, f"change the size or choose {others}")
    return architecture

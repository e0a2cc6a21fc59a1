"""Outlines equal the networks that they stand for, in every count and every refusal."""

import itertools
from typing import Any

import pytest
import torch

from orchestrator.config.base import Model, Refused
from orchestrator.models import CLASSIFIERS, outline
from orchestrator.models.build import build_classifier, network_class
from orchestrator.models.discriminator import Discriminator
from orchestrator.models.freezing import outline_of
from orchestrator.models.outlines import Outline, count_halvings, require_multiple, scaled

SIDES = {"maxvit_t": [224], "inception_v3": [75, 299], "ami-digit": [32], "ami-face": [64]}
"""Network -> image sides that it is built for here; the others are built for two that all of them admit."""
FIXED_WIDTH = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnest101", "maxvit_t", "inception_v3"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_lite0"),
    *("resnet152", "densenet121", "densenet161", "densenet169"),
)


def real(model: Model, **shapes: Any) -> Outline:
    """Return the outline counted from the network itself, built without memory for its weights."""
    with torch.device("meta"):
        return outline_of(build_classifier(model, **shapes))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_outline_equals_the_network_at_every_size_width_and_number_of_classes(name: str) -> None:
    widths = [1.0] if name in FIXED_WIDTH else [1.0, 0.05]
    pairs = [(2, 1), (530, 3)]  # classes, channels
    for width, side, (classes, channels) in itertools.product(widths, SIDES.get(name, [64, 96]), pairs):
        shapes: dict[str, Any] = {"classes": classes, "channels": channels, "image_size": side}
        model = Model(name=name, width=width)
        assert outline(model, **shapes) == real(model, **shapes), (width, shapes)


@pytest.mark.parametrize("name", ["ami-digit", "vgg16", "facenet64", "resnet18"])
@pytest.mark.parametrize(("scaling", "resizes"), [("signed", False), ("unit", True), ("imagenet", True)])
def test_blocks_in_front_are_in_the_outline(name: str, scaling: str, resizes: bool) -> None:
    model = Model.model_validate({"name": name, "scaling": scaling})
    side = CLASSIFIERS[name].image_size if not resizes else 48
    shapes: dict[str, Any] = {"classes": 7, "channels": 3, "image_size": side, "resizes": resizes}
    assert outline(model, **shapes) == real(model, **shapes)


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("vgg", {}),
    ("ami-digit", {"image_size": 64}),
    ("maxvit_t", {"image_size": 64}),
    ("vgg16", {"image_size": 48}),
    ("ir152", {"image_size": 8}),
    ("facenet64", {"image_size": 100}),
    ("facenet", {"image_size": 100}),
    *((name, {"width": 0.5, "image_size": CLASSIFIERS[name].image_size}) for name in FIXED_WIDTH),
    *((name, {"image_size": 16}) for name in FIXED_WIDTH),
]


@pytest.mark.parametrize(("name", "changes"), REFUSALS)
def test_an_outline_refuses_what_the_network_refuses_in_the_same_words(
    name: str, changes: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"width": 1.0, "image_size": 32} | changes
    model = Model(name=name, width=settings.pop("width"))
    texts = []
    for of in (outline, real):
        with pytest.raises(Refused) as refusal:
            of(model, classes=5, channels=3, field="judge.model", **settings)
        texts.append(str(refusal.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_norm_before_the_head_is_known_without_the_network(name: str) -> None:
    assert CLASSIFIERS[name].has_norm == bool(network_class(CLASSIFIERS[name]).norm_before_head)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_layer_sets_and_released_budgets_end_at_cut_points(name: str) -> None:
    side = CLASSIFIERS[name].image_size
    network = outline(Model(name=name), classes=5, channels=3, image_size=side)
    ends = {0, *network.cut_points.values()}
    assert {*network.layer_groups} <= ends
    for blocks in network.released.values():
        assert {blocks.start, blocks.stop} <= ends


@pytest.mark.parametrize("side", [4, 7, 8, 16, 24, 32, 64, 128])
def test_a_discriminator_halves_its_side_to_4(side: int) -> None:
    if side not in (8, 16, 32, 64):
        with pytest.raises(Refused, match=rf"data.image_size={side} must be 8, 16, 32 or 64 for"):
            count_halvings(side)
        return
    assert side / 2 ** count_halvings(side) == 4
    with torch.device("meta"):
        network = Discriminator(channels=3, image_size=side, width=1.0)
    assert network(torch.empty(2, 3, side, side, device="meta")).shape == (2, 1)


@pytest.mark.parametrize(("channels", "width", "expected"), [(64, 1.0, 64), (64, 0.125, 8), (16, 0.1, 4)])
def test_channel_counts_scale_down_to_4(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize(("side", "larger"), [(16, 32), (40, 64)])
def test_a_side_that_the_strides_do_not_divide_is_refused(side: int, larger: int) -> None:
    require_multiple(64, 32, "vgg16")
    with pytest.raises(
        ValueError, match=rf"data\.image_size={side} .*multiple of 32 for vgg16.* to {larger}"
    ):
        require_multiple(side, 32, "vgg16")

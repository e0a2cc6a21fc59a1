"""Fit of public weights by their shapes alone; tests/stages/test_pretrain.py has the refusals of a study."""

import re
from typing import Any

import pytest
import torch

from orchestrator.config.base import Model
from orchestrator.models.build import build_classifier
from orchestrator.models.fit import heads

DIGIT = Model(name="ami-digit", width=0.1)
SHAPES: dict[str, Any] = {"channels": 1, "image_size": 32}


def stored(classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the digit network's weights."""
    with torch.device("meta"):
        network = build_classifier(DIGIT, classes=classes, **SHAPES)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_heads_are_those_of_the_network_and_of_the_weights() -> None:
    wanted, given = heads(DIGIT, stored(4), name="net", classes=7, **SHAPES)
    assert [shape[0] for shape in wanted.values()] == [35, 35, 7, 7]
    assert [shape[0] for shape in given.values()] == [20, 20, 4, 4]
    assert list(wanted) == list(given) == ["head.1.weight", "head.1.bias", "head.3.weight", "head.3.bias"]


def test_weights_without_a_head_have_none() -> None:
    body = {name: shape for name, shape in stored(4).items() if not name.startswith("head.")}
    assert heads(DIGIT, body, name="net", classes=4, **SHAPES)[1] == {}


def test_another_body_is_refused() -> None:
    other = stored(4) | {"blocks.0.0.weight": (13, 1, 5, 5)}
    with pytest.raises(ValueError, match=re.escape("has (13, 1, 5, 5), wants (13, 1, 3, 3)")):
        heads(DIGIT, other, name="net", classes=4, **SHAPES)

"""Weights of TensorFlow.js: values by hand, groups of several files, manifests that are refused."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import Refused
from orchestrator.datasets.layers_model import read

BYTES = np.array([0, 1, 128, 255], np.uint8)
QUANTISED = {"dtype": "uint8", "scale": 0.5, "min": -3.0}
WHOLE = np.array([1.5, -2.25], "<f4")
ENTRIES: list[dict[str, Any]] = [
    {"name": "a/conv/filters", "shape": [2, 2], "dtype": "float32", "quantization": QUANTISED},
    {"name": "a/conv/bias", "shape": [2], "dtype": "float32"},
]
GROUP = {"paths": ["one.bin", "two.bin"], "weights": ENTRIES}
CONTENT = BYTES.tobytes() + WHOLE.tobytes()
FILES = {"one.bin": CONTENT[:3], "two.bin": CONTENT[3:]}


def manifest(*groups: Any) -> bytes:
    """Return a manifest of some groups."""
    return json.dumps(list(groups)).encode()


def test_values_are_decoded_with_scale_and_minimum() -> None:
    """Files of a group are one text: tensors may cross from one to the next."""
    found = read(manifest(GROUP), "m.json", FILES.get)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a/conv/filters": [[-3.0, -2.5], [61.0, 124.5]],
        "a/conv/bias": [1.5, -2.25],
    }


def test_other_types_and_groups() -> None:
    half, wide = np.array([0.5], "<f2"), np.array([300], "<u2")
    entries = [
        {"name": "h", "shape": [], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {
            "name": "w",
            "shape": [1],
            "dtype": "float32",
            "quantization": {"dtype": "uint16", "scale": 2.0, "min": 1.0},
        },
    ]
    files = {**FILES, "h": half.tobytes() + wide.tobytes()}
    found = read(manifest(GROUP, {"paths": ["h"], "weights": entries}), "m.json", files.get)
    assert (found["h"].shape, float(found["h"]), found["w"].tolist()) == ((), 0.5, [601.0])


@pytest.mark.parametrize(
    ("data", "files", "rule"),
    [
        (b"[1", FILES, "is JSON text, but no manifest of weights"),
        (b'{"error": "not found"}', FILES, "is JSON text, but no manifest of weights"),
        (manifest({"paths": ["one.bin"]}), FILES, "is JSON text, but no manifest of weights"),
        (manifest(GROUP), {"one.bin": b""}, "needs two.bin beside it"),
        (
            manifest(GROUP),
            {**FILES, "two.bin": b""},
            "needs more bytes for a/conv/filters than its files have",
        ),
        (manifest(GROUP), {**FILES, "two.bin": CONTENT}, "leaves 3 bytes of its files unread"),
        (manifest({**GROUP, "paths": ["../one.bin"]}), FILES, "names ../one.bin, which is not beside it"),
        (
            manifest({"paths": ["one.bin"], "weights": [{"name": "a", "shape": [1], "dtype": "string"}]}),
            FILES,
            "stores a as string, not as one of float32, uint8, uint16, float16",
        ),
    ],
)
def test_what_is_refused(data: bytes, files: Mapping[str, bytes], rule: str) -> None:
    with pytest.raises(Refused) as caught:
        read(data, "m.json", files.get)
    way_out = "give the weights manifest of a TensorFlow.js model with its files beside it"
    assert str(caught.value) == f"m.json {rule}; {way_out}."

"""The built-in sets: sizes, values, and one staging in memory for each."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from orchestrator.datasets.builtin import BUILTINS, SIDE, MemoryBlobs, staged


def test_digits_are_scikit_learns_enlarged() -> None:
    source = BUILTINS["digits"]()
    bundled = load_digits()
    assert source.labels.tolist() == bundled.target.tolist()
    images = np.stack([source.read(place) for place in range(3)])
    assert images.shape == (3, SIDE, SIDE, 1)
    small = torch.tensor(bundled.images[:3] * (255 / 16)).round()[:, None]
    enlarged = functional.interpolate(small, (SIDE, SIDE), mode="bilinear")[:, 0]
    assert (torch.from_numpy(images[..., 0]) - enlarged).abs().max() <= 1  # rounding


def test_photo_patches_are_cut_from_two_photographs() -> None:
    source = BUILTINS["photo-patches"]()
    assert np.bincount(source.labels).tolist() == [1000, 1000]
    assert source.read(0).shape == (SIDE, SIDE, 3)
    assert not np.array_equal(source.read(0), source.read(1))


def test_a_set_is_staged_once_in_a_process() -> None:
    assert staged("digits") is staged("digits")
    assert staged("digits").get("digits/manifest.json")


def test_memory_blobs_keep_the_first_object_unless_told_to_overwrite() -> None:
    blobs = MemoryBlobs("memory")
    assert blobs.put("a/1", b"first", overwrite=False)
    assert not blobs.put("a/1", b"second", overwrite=False)
    assert blobs.get("a/1") == b"first"
    assert blobs.put("a/1", b"third")
    assert [(entry.name, entry.size) for entry in blobs.entries("a/")] == [("a/1", 5)]
    blobs.remove("a/1")
    assert blobs.get("a/1") is None
    assert blobs.names("") == []

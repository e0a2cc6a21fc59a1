"""Images of a notebook as a staged data set, under a name that their content gives."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.api.options import open_data
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.manifest import Options, standard_splits
from orchestrator.datasets.sources.base import array_source, fingerprint_of
from orchestrator.datasets.splits import PARTS
from orchestrator.datasets.staging import publish
from orchestrator.runtime.open_store import check

logger = logging.getLogger(__name__)

GIVEN = "given"
"""Name of the split that `parts` give."""

LETTERS = 12  # of the digest in a name


def stage_images(
    images: Any,
    labels: Any = None,
    *,
    data: str | Path | None = None,
    name: str = "images",
    class_names: Iterable[Any] | None = None,
    parts: Sequence[str] | None = None,
) -> str:
    """Stage images at a data location; return the set's name, `name` with a digest of what was given.

    The location is `data`, without it that of the environment variable INVERSION_DATA.

    images: an array or tensor (N, C, S, S) with C = 1 or 3, uint8 or floats in [0, 1], which are rounded to 8
    bits; labels: (N,) integers 0..K-1, or None for an adversary's images without classes. `class_names` are K
    different names, or numbers. `parts` is the part of each image, train, auxiliary or evaluation, as the
    split `given`; without it the splits are those of `jobs.stage_data`. Images equal to an earlier one are
    dropped, and a warning counts them. The same arrays are staged once. Raise `Refused` for arrays that are
    none of this, and if nothing says where to stage them.
    """
    blobs = open_data(data)
    pixels = np.ascontiguousarray(_pixels(as_array(images)).transpose(0, 2, 3, 1))
    numbers = (
        np.zeros(len(pixels), dtype=np.int64) if labels is None else _labels(as_array(labels), len(pixels))
    )
    names = _names(range(int(numbers.max(initial=0)) + 1) if class_names is None else class_names)
    splits = {} if parts is None else {GIVEN: _codes(parts, len(pixels))}
    named = "\n".join(names).encode()
    contents = {"images": pixels.tobytes(), "labels": numbers.tobytes(), "names": named}
    contents |= {split: codes.tobytes() for split, codes in splits.items()}
    shape = "x".join(map(str, pixels.shape)).encode()
    digest = fingerprint_of([("shape", shape), ("labelled", bytes([labels is not None])), *contents.items()])
    whole = f"{name}-{digest[:LETTERS]}"
    source = array_source("arrays", pixels, numbers, names, digest, splits)
    is_labelled = labels is not None
    options = Options(splits={} if splits else standard_splits(), unlabelled=not is_labelled)
    check(blobs, option="data")
    without = replace(source.unlabelled(), splits=splits)
    manifest, _ = publish(source if is_labelled else without, options, blobs, whole)
    if manifest.dropped:
        logger.warning("event=images_dropped name=%s reasons=%s", whole, manifest.dropped)
    return whole


def as_array(values: Any) -> np.ndarray:
    """Return an array, also of a tensor that takes gradients or is on another device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _pixels(images: np.ndarray) -> np.ndarray:
    """Return images as (N, C, S, S) uint8."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        rule = f"of shape {images.shape} must be (N, C, S, S) with C = 1 or 3"
        raise Refused("images", NO_VALUE, rule, "transpose or crop them")
    if images.dtype == np.uint8:
        return images
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if images.dtype.kind != "f" or not 0.0 <= low <= high <= 1.0:
        rule = f"are {images.dtype} of {low:g} to {high:g}, but must be uint8 or floats in [0, 1]"
        raise Refused("images", NO_VALUE, rule, "undo their normalisation")
    return np.rint(images * 255).astype(np.uint8)


def _names(given: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of classes as text, all different."""
    names = tuple(map(str, given))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        rule = f"is the name of several classes ({len(repeated)} of {len(set(names))} names are)"
        raise Refused("class_names", repeated[0], rule, "give each class a name of its own")
    return names


def _labels(labels: np.ndarray, num_images: int) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.shape != (num_images,):
        rule = f"are {labels.dtype} {labels.shape}, but must be an integer for each of {num_images} images"
        raise Refused("labels", NO_VALUE, rule, "give the number of each image's class")
    return labels.astype(np.int64)


def _codes(parts: Sequence[str], num_images: int) -> np.ndarray:
    unknown = next((part for part in parts if part not in PARTS), None)
    if unknown is not None or len(parts) != num_images:
        value = NO_VALUE if unknown is None else unknown
        rule = f"must be one of {', '.join(PARTS)} for each of {num_images} images"
        raise Refused("parts", value, rule, "correct them")
    return np.array([PARTS.index(part) for part in parts], dtype=np.uint8)

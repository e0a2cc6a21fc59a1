"""Arrays: reader of a .npz file.

It holds `images` (N, H, W, C) or (N, H, W) uint8, C = 1 or 3, `labels` (N,) integers 0..K-1 and, optionally,
`names` of the K classes.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of


def npz(path: Path) -> Source:
    """Return the images of a .npz file, (H, W, C) uint8 each, without unpickling anything.

    Raise `Refused` if the file cannot be read, lacks an array or holds one of another type or shape.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("images", "labels", "names") if key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        rule = f"cannot be read as arrays ({error})"
        raise Refused(str(path), NO_VALUE, rule, "save it with numpy.savez") from None
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        rule = f"has no array {min(missing)}"
        raise Refused(str(path), NO_VALUE, rule, "it needs images and labels")
    images, labels = _images(arrays["images"], path), _labels(arrays["labels"], path)
    if len(images) != len(labels):
        rule = f"has {len(images)} images but {len(labels)} labels"
        raise Refused(str(path), NO_VALUE, rule, "give one label per image")
    num_classes = int(labels.max(initial=-1)) + 1
    names = [str(name) for name in arrays.get("names", np.arange(num_classes))]
    fingerprint = fingerprint_of((key, array.tobytes()) for key, array in sorted(arrays.items()))
    source = array_source("npz", images, labels, names, fingerprint)
    return source.renamed(path.stem.lower())


def _images(images: np.ndarray, path: Path) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        given = f"has images of {images.dtype} {images.shape}"
        rule = f"{given}, but they must be uint8 (N, H, W, C) with C = 1 or 3"
        raise Refused(str(path), NO_VALUE, rule, "convert them")
    return images


def _labels(labels: np.ndarray, path: Path) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise Refused(
            str(path),
            NO_VALUE,
            f"has labels of {labels.dtype} {labels.shape}, but they must be integers (N,)",
            "number the classes 0..K-1 and put their names into `names`",
        )
    return labels.astype(np.int64)

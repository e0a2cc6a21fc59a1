"""A .npz file with `images` (N, H, W, C) or (N, H, W) uint8, `labels` 0..K-1 and, if wanted, K `names`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of


def npz(path: Path) -> Source:
    """Read the arrays; nothing pickled is admitted."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("images", "labels", "names") if key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as arrays ({error}); save it with numpy.savez.") from None
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise ValueError(f"{path} has no array {min(missing)}; it needs images and labels.")
    images, labels = _images(arrays["images"], path), _labels(arrays["labels"], path)
    if len(images) != len(labels):
        raise ValueError(
            f"{path} has {len(images)} images but {len(labels)} labels; give one label per image."
        )
    num_classes = int(labels.max(initial=-1)) + 1
    names = [str(name) for name in arrays.get("names", np.arange(num_classes))]
    fingerprint = fingerprint_of((key, array.tobytes()) for key, array in sorted(arrays.items()))
    source = array_source("npz", images, labels, names, fingerprint)
    return source.renamed(path.stem.lower())


def _images(images: np.ndarray, path: Path) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{path} has images of {images.dtype} {images.shape}, but they must be uint8 (N, H, W, C) "
            "with C = 1 or 3; convert them."
        )
    return images


def _labels(labels: np.ndarray, path: Path) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{path} has labels of {labels.dtype} {labels.shape}, but they must be integers (N,); number the "
            "classes 0..K-1 and put their names into `names`."
        )
    return labels.astype(np.int64)

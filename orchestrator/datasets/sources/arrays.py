"""Arrays: reader of a .npz file.

It holds `images` (N, H, W, C) or (N, H, W), C = 1 or 3, of whole numbers 0..255, `labels` (N,) integers
0..K-1 and, optionally, `names` of the K classes. AMI's released code reads FaceScrub from `actor_images`,
`actor_labels`, `actress_images` and `actress_labels`, which are joined.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.archives import opened
from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of

KEYS = ("images", "labels", "names")
AMI_KEYS = ("actor_images", "actor_labels", "actress_images", "actress_labels")
MAX_ARRAY_BYTES = 16 * 2**30
FREE_BYTES = 64 * 2**20  # an array of more ...
MAX_EXPANSION = 200  # ... may unpack to this many times its packed size: images compress less, bombs more
UNREADABLE = "cannot be read as arrays"
SAVE_AGAIN = "save it with numpy.savez"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npz(path: Path, *, is_labelled: bool = True) -> Source:
    """Return the images of a .npz file, (H, W, C) uint8 each, without unpickling anything.

    Raise `Refused` if the file cannot be read, lacks an array (labels only if `is_labelled`) or holds one of
    another type or shape.
    """
    arrays = _arrays(path)
    fingerprint = fingerprint_of((key, array.tobytes()) for key, array in sorted(arrays.items()))
    if arrays.keys() == set(AMI_KEYS):
        images, labels, names = _ami(arrays, path)
    else:
        images, labels, names = _plain(arrays, path, is_labelled=is_labelled)
    if len(images) != len(labels):
        rule = f"has {len(images)} images but {len(labels)} labels"
        raise Refused(str(path), NO_VALUE, rule, "give one label per image")
    return array_source("npz", images, labels, names, fingerprint).renamed(path.stem.lower())


def _plain(
    arrays: dict[str, np.ndarray], path: Path, *, is_labelled: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    missing = {"images", "labels"} - arrays.keys() if is_labelled else {"images"} - arrays.keys()
    if missing:
        rule, way_out = f"has no array {min(missing)}", "it needs images and labels"
        if missing == {"labels"}:
            way_out += ", or --unlabelled for images without classes"
        raise Refused(str(path), NO_VALUE, rule, way_out)
    images = _images(arrays["images"], path)
    if not is_labelled:
        return images, np.zeros(len(images), dtype=np.int64), []
    labels = _labels(arrays["labels"], path)
    return images, labels, _names(arrays.get("names"), labels, path)


def _ami(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Join AMI's two pairs of arrays; classes are named by their numbers."""
    men, women = (_labels(arrays[f"{sex}_labels"], path) for sex in ("actor", "actress"))
    if both := set(men.tolist()) & set(women.tolist()):
        rule = f"has actors and actresses of label {min(both)}, which would be one class"
        raise Refused(str(path), NO_VALUE, rule, "number the actresses after the actors")
    pictures = [_images(arrays[f"{sex}_images"], path) for sex in ("actor", "actress")]
    if pictures[0].shape[1:] != pictures[1].shape[1:]:
        rule = f"has images of {pictures[0].shape[1:]} and of {pictures[1].shape[1:]}"
        raise Refused(str(path), NO_VALUE, rule, "give them one size")
    numbers, labels = np.unique(np.concatenate([men, women]), return_inverse=True)
    return np.concatenate(pictures), labels, [str(number) for number in numbers]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with opened(path, UNREADABLE, SAVE_AGAIN) as archive:
        members = set(archive.namelist())
        keys = KEYS if "images.npy" in members else AMI_KEYS
        try:
            return {key: _array(archive, f"{key}.npy", path) for key in keys if f"{key}.npy" in members}
        except Refused:
            raise
        except Exception as error:  # untrusted bytes raise many types
            raise Refused(str(path), NO_VALUE, f"{UNREADABLE} ({error})", SAVE_AGAIN) from None


def _array(archive: zipfile.ZipFile, member: str, path: Path) -> np.ndarray:
    """Return one array once its header promises exactly the bytes that the archive lists for it."""
    info = archive.getinfo(member)
    allowed = min(MAX_ARRAY_BYTES, max(FREE_BYTES, MAX_EXPANSION * info.compress_size))
    if info.file_size > allowed:
        rule = f"has {info.file_size} bytes in {member}, more than {allowed}"
        raise Refused(str(path), NO_VALUE, rule, "give an image folder instead")
    with archive.open(info) as handle:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(handle)](handle)
        promised = handle.tell() + math.prod(shape) * dtype.itemsize
    is_false = promised != info.file_size or min(shape, default=0) < 0
    if is_false and not dtype.hasobject:  # NumPy refuses objects itself
        rule = f"has a header of {shape} {dtype} in {member}, unlike its {info.file_size} bytes"
        raise Refused(str(path), NO_VALUE, rule, SAVE_AGAIN)
    with archive.open(info) as handle:
        return np.lib.format.read_array(handle, allow_pickle=False)


def _images(images: np.ndarray, path: Path) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    whole = _whole(images, np.uint8)
    if whole is None or images.ndim != 4 or images.shape[-1] not in (1, 3):
        given = f"has images of {images.dtype} {images.shape}"
        rule = f"{given}, but they must be uint8 (N, H, W, C) with C = 1 or 3"
        raise Refused(str(path), NO_VALUE, rule, "convert them")
    return whole


def _labels(labels: np.ndarray, path: Path) -> np.ndarray:
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = _whole(labels, np.int64)
    if whole is None or labels.ndim != 1:
        raise Refused(
            str(path),
            NO_VALUE,
            f"has labels of {labels.dtype} {labels.shape}, but they must be integers (N,)",
            "number the classes 0..K-1 and put their names into `names`",
        )
    return whole


def _names(names: np.ndarray | None, labels: np.ndarray, path: Path) -> list[str]:
    """Return the class names; without an array of them, the numbers up to the greatest label."""
    greatest = int(labels.max(initial=-1))
    if names is None and greatest >= max(len(labels), 1):
        rule = f"has label {greatest}, but {len(labels)} images have at most {len(labels)} classes"
        raise Refused(str(path), NO_VALUE, rule, "number the classes 0..K-1 without gaps")
    if names is None:
        return [str(number) for number in range(greatest + 1)]
    if names.ndim != 1:
        raise Refused(str(path), NO_VALUE, f"has names of shape {names.shape}", "give one name per class")
    return [str(name) for name in names]


def _whole(array: np.ndarray, dtype: type[np.integer]) -> np.ndarray | None:
    """Return numbers as `dtype` if they are whole and within its range, else None.

    Fractions of 0 and 1 alone are no pixels: they may be a range, not grey levels.
    """
    if array.dtype == dtype or array.size == 0:
        return array.astype(dtype, copy=False) if array.dtype.kind in "iuf" else None
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "iuf" or not (array.min() >= limits.min and array.max() <= limits.max):
        return None
    if array.dtype.kind == "f" and (
        (array.max() <= 1 and dtype is np.uint8) or (array != np.floor(array)).any()
    ):
        return None
    return array.astype(dtype)

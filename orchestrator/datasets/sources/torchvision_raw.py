"""torchvision's raw files: readers of MNIST, Fashion-MNIST, EMNIST (idx, gzip or not) and CIFAR-10.

Sizes: MNIST and Fashion-MNIST 70,000 images 28x28x1 (Fashion-MNIST is MIT), EMNIST 131,600 to 814,255 of the
same size, CIFAR-10 60,000 of 32x32x3. The published training and test files together are the set; the
published split stays available as `original` (train and evaluation, nothing auxiliary). Every reader raises
`Refused` if a file is missing or damaged.
"""

import gzip
import io
import math
import pickle
import string
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of
from orchestrator.datasets.sources.files import read_regular, regular_size
from orchestrator.datasets.splits import PARTS

MAX_IDX_BYTES = 4 * 2**30  # the largest file, EMNIST byclass, has 0.55 GB
MAX_CIFAR_BYTES = 256 * 2**20  # a batch has 31 MB
DEFLATE_RATIO = 1032  # bytes that one byte of gzip can become
CLOTHES = (
    "t-shirt-top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
MERGED = "cijklmopsuvwxyz"  # lower-case letters that EMNIST counts with their capitals
BOTH_CASES = string.digits + string.ascii_uppercase + string.ascii_lowercase
EMNIST_CLASSES = {
    "byclass": BOTH_CASES,
    "bymerge": "".join(one for one in BOTH_CASES if one not in MERGED),
    "balanced": "".join(one for one in BOTH_CASES if one not in MERGED),
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}
CIFAR_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def mnist(folder: Path) -> Source:
    """Return MNIST from `MNIST/raw`: (28, 28, 1) uint8, 10 classes."""
    return _idx_source("mnist", folder, "MNIST", ("train", "t10k"), tuple(string.digits))


def fashion_mnist(folder: Path) -> Source:
    """Return Fashion-MNIST from `FashionMNIST/raw`: (28, 28, 1) uint8, 10 classes."""
    return _idx_source("fashion-mnist", folder, "FashionMNIST", ("train", "t10k"), CLOTHES)


def emnist(folder: Path, variant: str = "balanced") -> Source:
    """Return one variant of EMNIST from `EMNIST/raw`: (28, 28, 1) uint8, transposed upright."""
    stems = (f"emnist-{variant}-train", f"emnist-{variant}-test")
    name = "emnist" if variant == "balanced" else f"emnist-{variant}"
    return _idx_source(name, folder, "EMNIST", stems, tuple(EMNIST_CLASSES[variant]))


def cifar10(folder: Path) -> Source:
    """Return CIFAR-10 from `cifar-10-batches-py`: (32, 32, 3) uint8, 10 classes."""
    home = _home(folder, ("", "cifar-10-batches-py"), CIFAR_BATCHES[0])
    files = [(batch, _bytes(home / batch)) for batch in CIFAR_BATCHES]
    meta = _unpickle(_bytes(home / "batches.meta"), "batches.meta")
    try:
        names = [name.decode("ascii") for name in meta[b"label_names"]]
        batches = [_cifar_batch(_unpickle(data, name), name) for name, data in files]
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(home, f"is not CIFAR-10 in batches ({error!r})") from None
    images = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    original = _original([len(labels) - len(batches[-1][1]), len(batches[-1][1])])
    return array_source("cifar10", images, labels, names, fingerprint_of(files), {"original": original})


def _idx_source(
    kind: str, folder: Path, layout: str, stems: tuple[str, str], class_names: tuple[str, ...]
) -> Source:
    home = _home(folder, ("", "raw", f"{layout}/raw"), f"{stems[0]}-images-idx3-ubyte")
    pairs = [(f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in stems]
    arrays = {stem: _idx(home, stem) for pair in pairs for stem in pair}
    for images_of, labels_of in pairs:
        _check_pair(arrays, images_of, labels_of, home)
    sides = {arrays[stem].shape[1:] for stem, _ in pairs}
    if len(sides) > 1:
        raise _damaged(home, f"has images of different sizes ({' and '.join(map(str, sorted(sides)))})")
    images = np.concatenate([arrays[stem] for stem, _ in pairs])[..., None]
    labels = np.concatenate([arrays[stem] for _, stem in pairs]).astype(np.int64)
    if kind.startswith("emnist"):
        images = images.transpose(0, 2, 1, 3)
        labels -= labels.min()  # `letters` counts from 1
    original = _original([len(arrays[stem]) for _, stem in pairs])
    fingerprint = fingerprint_of((stem, array.tobytes()) for stem, array in arrays.items())
    return array_source(kind, images, labels, class_names, fingerprint, {"original": original})


def _check_pair(arrays: Mapping[str, np.ndarray], images_of: str, labels_of: str, home: Path) -> None:
    """Raise `Refused` unless the two files of a part hold one label for each image."""
    num_images, num_labels = len(arrays[images_of]), len(arrays[labels_of])
    if num_images != num_labels:
        rule = f"has {num_images} images in {images_of} but {num_labels} labels in {labels_of}"
        way_out = "give each file its own name, or download them again"
        raise Refused(str(home), NO_VALUE, rule, way_out)


def _original(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.array([PARTS.index("train"), PARTS.index("evaluation")], dtype=np.uint8), sizes)


def _home(folder: Path, below: tuple[str, ...], file: str) -> Path:
    for sub in below:
        if any((folder / sub / f"{file}{packed}").is_file() for packed in ("", ".gz")):
            return folder / sub
    rule = f"holds no {file} (looked in {', '.join(sub or '.' for sub in below)})"
    raise Refused(str(folder), NO_VALUE, rule, "give the folder that torchvision downloads into")


def _idx(home: Path, stem: str) -> np.ndarray:
    """Return one idx file of unsigned bytes, gzip or not, as long as its header announces."""
    path = home / stem if (home / stem).is_file() else home / f"{stem}.gz"
    try:
        largest = regular_size(path) * (DEFLATE_RATIO if path.suffix == ".gz" else 1)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            array = _idx_array(file, path, largest)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise _damaged(path, f"cannot be read ({error})") from None
    if array.ndim != (3 if "idx3" in stem else 1):
        raise _damaged(path, f"has {array.ndim} dimension(s), unlike its name")
    return array


def _idx_array(file: BinaryIO | gzip.GzipFile, path: Path, largest: int) -> np.ndarray:
    """Return the array, allocating nothing for a header that announces more than `largest` bytes."""
    zeros, kind, rank = struct.unpack(">HBB", file.read(4))
    if zeros != 0 or kind != 8 or rank not in (1, 3):
        raise _damaged(path, "is not an idx file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    expected = math.prod(shape)
    data = file.read(expected + 1) if expected <= min(largest, MAX_IDX_BYTES) else b""
    if len(data) != expected:
        raise _damaged(path, f"does not have the {expected} bytes of its header")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_CIFAR_BYTES)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of NumPy arrays and plain containers; any other name in the file is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        raise pickle.UnpicklingError(f"the file names {module}.{name}")


def _empty_array(*_: object) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _unpickle(data: bytes, name: str) -> dict[Any, Any]:
    again = "download CIFAR-10 again"
    try:
        content = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything; nothing of it has run
        raise Refused(name, NO_VALUE, f"is refused ({error})", again) from None
    if not isinstance(content, dict):
        raise Refused(name, NO_VALUE, "is refused (no dictionary)", again)
    return content


def _cifar_batch(batch: dict[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch[b"data"], np.asarray(batch[b"labels"])
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and labels.dtype.kind in "iu"):
        raise _damaged(name, "is not a CIFAR-10 batch (types)")
    if pixels.shape != (len(labels), 3072):
        raise _damaged(name, f"is not a CIFAR-10 batch (shape {pixels.shape})")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def _damaged(path: Path | str, rule: str) -> Refused:
    return Refused(str(path), NO_VALUE, rule, "download it again")

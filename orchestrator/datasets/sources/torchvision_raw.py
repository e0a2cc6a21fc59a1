"""MNIST, Fashion-MNIST, EMNIST (idx files, packed or not) and CIFAR-10 as torchvision lays them out on disk.

Sizes: MNIST and Fashion-MNIST 70,000 images 28x28x1 (Fashion-MNIST is MIT), EMNIST 131,600 to 814,255 of the
same size, CIFAR-10 60,000 of 32x32x3. The publishers' training and test files together are the set; their
border stays available as the split `original` (train and evaluation, nothing auxiliary).
"""

import gzip
import io
import math
import pickle
import string
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of
from orchestrator.datasets.splits import PARTS

MAX_IDX_BYTES = 4 * 2**30
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
    """Read `MNIST/raw`."""
    return _idx_source("mnist", folder, "MNIST", ("train", "t10k"), tuple(string.digits))


def fashion_mnist(folder: Path) -> Source:
    """Read `FashionMNIST/raw`."""
    return _idx_source("fashion-mnist", folder, "FashionMNIST", ("train", "t10k"), CLOTHES)


def emnist(folder: Path, variant: str = "balanced") -> Source:
    """Read one variant of `EMNIST/raw`; its files store images on their side, here they stand upright."""
    stems = (f"emnist-{variant}-train", f"emnist-{variant}-test")
    name = "emnist" if variant == "balanced" else f"emnist-{variant}"
    return _idx_source(name, folder, "EMNIST", stems, tuple(EMNIST_CLASSES[variant]))


def cifar10(folder: Path) -> Source:
    """Read `cifar-10-batches-py`."""
    home = _home(folder, ("", "cifar-10-batches-py"), CIFAR_BATCHES[0])
    files = [(batch, _bytes(home / batch)) for batch in CIFAR_BATCHES]
    meta = _unpickle(_bytes(home / "batches.meta"), "batches.meta")
    try:
        names = [name.decode("ascii") for name in meta[b"label_names"]]
        batches = [_cifar_batch(_unpickle(data, name), name) for name, data in files]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{home} is not CIFAR-10 in batches ({error!r}); download it again.") from None
    images = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    original = _original([len(labels) - len(batches[-1][1]), len(batches[-1][1])])
    return array_source("cifar10", images, labels, names, fingerprint_of(files), {"original": original})


def _idx_source(
    kind: str, folder: Path, layout: str, stems: tuple[str, str], class_names: tuple[str, ...]
) -> Source:
    home = _home(folder, ("", "raw", f"{layout}/raw"), f"{stems[0]}-images-idx3-ubyte")
    arrays = {
        stem: _idx(home, stem)
        for part in stems
        for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    }
    images = np.concatenate([arrays[f"{part}-images-idx3-ubyte"] for part in stems])[..., None]
    labels = np.concatenate([arrays[f"{part}-labels-idx1-ubyte"] for part in stems]).astype(np.int64)
    if len(images) != len(labels):
        raise ValueError(f"{home} has {len(images)} images but {len(labels)} labels; download it again.")
    if kind.startswith("emnist"):
        images = images.transpose(0, 2, 1, 3)
        labels -= labels.min()  # `letters` counts from 1
    original = _original([len(arrays[f"{part}-labels-idx1-ubyte"]) for part in stems])
    fingerprint = fingerprint_of((stem, array.tobytes()) for stem, array in arrays.items())
    return array_source(kind, images, labels, class_names, fingerprint, {"original": original})


def _original(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.array([PARTS.index("train"), PARTS.index("evaluation")], dtype=np.uint8), sizes)


def _home(folder: Path, below: tuple[str, ...], file: str) -> Path:
    for sub in below:
        if any((folder / sub / f"{file}{packed}").is_file() for packed in ("", ".gz")):
            return folder / sub
    raise ValueError(
        f"{folder} holds no {file} (looked in {', '.join(sub or '.' for sub in below)}); "
        "give the folder that torchvision downloads into."
    )


def _idx(home: Path, stem: str) -> np.ndarray:
    """Read one idx file of unsigned bytes, packed or not, no longer than its header says."""
    plain = home / stem
    try:
        if plain.is_file():
            with plain.open("rb") as file:
                return _idx_array(file, plain)
        with gzip.open(home / f"{stem}.gz") as packed:
            return _idx_array(packed, home / f"{stem}.gz")
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{home / stem} cannot be read ({error}); download it again.") from None


def _idx_array(file: BinaryIO | gzip.GzipFile, path: Path) -> np.ndarray:
    zeros, kind, rank = struct.unpack(">HBB", file.read(4))
    if zeros != 0 or kind != 8 or rank not in (1, 3):
        raise ValueError(f"{path} is not an idx file of unsigned bytes; download it again.")
    shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    expected = math.prod(shape)
    data = file.read(min(expected, MAX_IDX_BYTES) + 1)
    if len(data) != expected:
        raise ValueError(f"{path} does not have the {expected} bytes of its header; download it again.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); download it again.") from None


class _ArraysOnly(pickle.Unpickler):
    """Admits NumPy arrays and plain containers; any other name in the file is refused, not imported."""

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
    try:
        content = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything; nothing of it has run
        raise ValueError(f"{name} is refused ({error}); download CIFAR-10 again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} is refused (no dictionary); download CIFAR-10 again.")
    return content


def _cifar_batch(batch: dict[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch[b"data"], np.asarray(batch[b"labels"])
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and labels.dtype.kind in "iu"):
        raise ValueError(f"{name} is not a CIFAR-10 batch (types); download it again.")
    if pixels.shape != (len(labels), 3072):
        raise ValueError(f"{name} is not a CIFAR-10 batch (shape {pixels.shape}); download it again.")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)

"""MNIST, Fashion-MNIST, EMNIST and CIFAR-10: pixels and labels, gzip or not; damaged or hostile files."""

import gzip
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets.sources.registry import open_source

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, parts: tuple[str, str], labels: np.ndarray = LABELS, *, packed: bool) -> Path:
    """Write eight images as the first part and four as the second."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in zip(parts, (slice(0, 8), slice(8, 12)), strict=True):
        for stem, array in (("images-idx3", PIXELS[chosen]), ("labels-idx1", labels[chosen])):
            data = idx(array)
            file = folder / f"{part}-{stem}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_mnist(tmp_path: Path, packed: bool, below: str) -> None:
    write_idx(tmp_path / below, ("train", "t10k"), packed=packed)
    source = open_source(f"mnist:{tmp_path}")
    assert np.array_equal(np.stack([source.read(index) for index in range(12)])[..., 0], PIXELS)
    assert source.labels.tolist() == LABELS.tolist()
    assert source.splits["original"].tolist() == [0] * 8 + [2] * 4
    assert source.class_names == tuple("0123456789")


def test_packing_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", ("train", "t10k"), packed=False)
    write_idx(tmp_path / "b", ("train", "t10k"), packed=True)
    sources = [open_source(f"mnist:{tmp_path / one}") for one in "ab"]
    assert sources[0].fingerprint == sources[1].fingerprint


def test_emnist_stands_upright_and_letters_count_from_zero(tmp_path: Path) -> None:
    parts = ("emnist-letters-train", "emnist-letters-test")
    write_idx(tmp_path, parts, LABELS + np.uint8(1), packed=True)
    source = open_source(f"emnist-letters:{tmp_path}")
    assert np.array_equal(source.read(3)[..., 0], PIXELS[3].T)
    assert source.labels.tolist() == LABELS.tolist()
    assert source.class_names[:2] == ("a", "b")
    assert len(source.class_names) == 26


def test_emnist_classes_count_as_published(tmp_path: Path) -> None:
    for variant, count in {"balanced": 47, "bymerge": 47, "byclass": 62, "digits": 10}.items():
        parts = (f"emnist-{variant}-train", f"emnist-{variant}-test")
        write_idx(tmp_path / variant, parts, packed=False)
        assert len(open_source(f"emnist-{variant}:{tmp_path / variant}").class_names) == count


EXCHANGED = {
    "mnist": ("train", "t10k"),
    "fashion-mnist": ("train", "t10k"),
    "emnist": ("emnist-balanced-train", "emnist-balanced-test"),
    "emnist-letters": ("emnist-letters-train", "emnist-letters-test"),
}


@pytest.mark.parametrize("name", EXCHANGED)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["labels-idx1", "images-idx3"])
def test_files_of_the_two_parts_that_are_exchanged_are_refused(
    tmp_path: Path, name: str, packed: bool, kind: str
) -> None:
    train, test = EXCHANGED[name]
    write_idx(tmp_path, (train, test), packed=packed)
    suffix = ".gz" if packed else ""
    first, second = (tmp_path / f"{part}-{kind}-ubyte{suffix}" for part in (train, test))
    aside = tmp_path / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    images, labels = (8, 4) if kind == "labels-idx1" else (4, 8)
    text = f"{images} images in {train}-images-idx3-ubyte but {labels} labels in {train}-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=f"{text}; give each file its own name"):
        open_source(f"{name}:{tmp_path}")


def test_labels_in_place_of_images_and_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, ("train", "t10k"), packed=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(PIXELS[8:, :20]))
    with pytest.raises(ValueError, match=r"images of different sizes \(\(20, 28\) and \(28, 28\)\)"):
        open_source(f"mnist:{tmp_path}")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(LABELS[8:]))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte has 1 dimension\(s\), unlike its name"):
        open_source(f"mnist:{tmp_path}")


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_announces_too_much_allocates_nothing(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path, ("train", "t10k"), packed=packed)
    file = tmp_path / f"t10k-images-idx3-ubyte{'.gz' if packed else ''}"
    data = idx(PIXELS[8:]).replace(struct.pack(">I", 4), struct.pack(">I", 4_000_000), 1)
    file.write_bytes(gzip.compress(data) if packed else data)
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not have the 3136000000 bytes of its header"):
        open_source(f"mnist:{tmp_path}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


@pytest.mark.parametrize("stem", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_a_fifo_in_place_of_a_file_is_refused(tmp_path: Path, stem: str) -> None:
    write_idx(tmp_path, ("train", "t10k"), packed=False)
    (tmp_path / stem.removesuffix(".gz")).unlink()
    os.mkfifo(tmp_path / stem)
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(f"mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cannot be read"),
        (b"\0\0\x0d\x01\0\0\0\x04aaaa", "is not an idx file of unsigned bytes"),
        (idx(LABELS[:8])[:-1], "does not have the 8 bytes of its header"),
        (idx(LABELS[:8]) + b"x", "does not have the 8 bytes of its header"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "does not have the 4294967295 bytes of its header"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_idx_file_is_refused(tmp_path: Path, data: bytes, text: str, packed: bool) -> None:
    write_idx(tmp_path, ("train", "t10k"), packed=packed)
    file = tmp_path / f"train-labels-idx1-ubyte{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=text):
        open_source(f"mnist:{tmp_path}")


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, ("train", "t10k"), packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz cannot be read .*; download it again"):
        open_source(f"mnist:{tmp_path}")


def write_cifar(folder: Path, rows: np.ndarray) -> Path:
    home = folder / "cifar-10-batches-py"
    home.mkdir()
    for number, batch in enumerate([*(f"data_batch_{one}" for one in range(1, 6)), "test_batch"]):
        content = {b"data": rows[2 * number : 2 * number + 2], b"labels": [number, 9 - number]}
        (home / batch).write_bytes(pickle.dumps(content, protocol=3))
    meta = {b"label_names": [f"class{number}".encode() for number in range(10)]}
    (home / "batches.meta").write_bytes(pickle.dumps(meta, protocol=3))
    return home


def test_cifar10(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    write_cifar(tmp_path, images.transpose(0, 3, 1, 2).reshape(12, 3072))
    source = open_source(f"cifar10:{tmp_path}")
    assert np.array_equal(np.stack([source.read(index) for index in range(12)]), images)
    assert source.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert source.splits["original"].tolist() == [0] * 10 + [2] * 2
    assert source.class_names[3] == "class3"


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    home = write_cifar(tmp_path, np.zeros((12, 3072), dtype=np.uint8))
    hostile = {b"data": Payload(tmp_path / "executed"), b"labels": [0, 1]}
    (home / "data_batch_3").write_bytes(pickle.dumps(hostile, protocol=protocol))
    with pytest.raises(ValueError, match="data_batch_3 is refused"):
        open_source(f"cifar10:{tmp_path}")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (pickle.dumps([1]), "data_batch_1 is refused"),
        (b"garbage", "data_batch_1 is refused"),
        (pickle.dumps({b"data": 1}, protocol=3), "is not CIFAR-10 in batches"),
        (pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}, protocol=3), "shape"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, protocol=3), "types"),
    ],
)
def test_a_damaged_batch_is_refused(tmp_path: Path, batch: bytes, text: str) -> None:
    home = write_cifar(tmp_path, np.zeros((12, 3072), dtype=np.uint8))
    (home / "data_batch_1").write_bytes(batch)
    with pytest.raises(ValueError, match=text):
        open_source(f"cifar10:{tmp_path}")


def test_a_folder_without_the_files_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds no train-images-idx3-ubyte \(looked in \., raw, MNIST/raw\)"
    ):
        open_source(f"mnist:{tmp_path}")

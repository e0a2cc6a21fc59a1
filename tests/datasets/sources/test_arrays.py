"""Arrays in a .npz: optional names and channels; other types and shapes."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.datasets.sources.registry import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


def test_npz_with_and_without_names_and_channels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    source = open_source(str(tmp_path / "a.npz"))
    assert (source.name, source.read(0).shape, source.class_names[9]) == ("a", (28, 28, 1), "9")
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=LABELS % 2, names=np.array(["even", "odd"]))
    assert open_source(str(tmp_path / "b.npz")).class_names == ("even", "odd")


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": PIXELS}, "has no array labels"),
        ({"images": PIXELS / 255, "labels": LABELS}, "must be uint8"),
        ({"images": PIXELS[0], "labels": LABELS}, "must be uint8"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "12 images but 5 labels"),
        ({"images": PIXELS, "labels": LABELS.astype(str)}, "must be integers"),
        ({"images": PIXELS, "labels": LABELS.astype(object)}, "cannot be read as arrays"),
        ({"images": PIXELS.astype(object), "labels": LABELS}, "cannot be read as arrays"),
        ({"images": PIXELS + 0.5, "labels": LABELS}, "has images of float64"),
        ({"images": PIXELS.astype(int) + 1, "labels": LABELS}, "has images of int64"),
        ({"images": PIXELS.astype(int) - 1, "labels": LABELS}, "has images of int64"),
        ({"images": np.where(PIXELS > 9, 1.0, 0.0), "labels": LABELS}, "has images of float64"),
        ({"images": np.where(PIXELS > 9, np.nan, 7.0), "labels": LABELS}, "has images of float64"),
        ({"images": PIXELS, "labels": LABELS + 0.5}, "must be integers"),
        ({"images": PIXELS, "labels": LABELS, "names": np.array("a")}, r"has names of shape \(\)"),
        ({"images": PIXELS, "labels": LABELS.astype(int) * 3_000_000}, "has label 27000000, but 12 images"),
        ({"images": PIXELS, "labels": LABELS.astype(np.uint64) + 2**63}, "must be integers"),
    ],
)
def test_unfit_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=text):
        open_source(str(tmp_path / "a.npz"))


def test_garbage_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as arrays"):
        open_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
def test_grey_levels_and_labels_of_other_types_are_read_exactly(tmp_path: Path, dtype: type) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS.astype(dtype), labels=LABELS.astype(dtype)[:, None])
    source = open_source(str(tmp_path / "a.npz"))
    assert source.read(3).dtype == np.uint8
    assert np.array_equal(source.read(3)[..., 0], PIXELS[3])
    assert source.labels.tolist() == LABELS.tolist()


def ami(**changes: Any) -> dict[str, Any]:
    """Return FaceScrub as AMI's code reads it: eight actors' images and four actresses'."""
    men, women = slice(0, 8), slice(8, 12)
    return {
        "actor_images": PIXELS[men].astype(np.float64),
        "actor_labels": np.array([0, 1] * 4),
        "actress_images": PIXELS[women].astype(np.float64),
        "actress_labels": np.array([2, 5, 2, 5]),
        **changes,
    }


def test_amis_own_arrays_are_joined(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "facescrub.npz", **ami())
    source = open_source(str(tmp_path / "facescrub.npz"))
    assert source.class_names == ("0", "1", "2", "5")
    assert source.labels.tolist() == [0, 1] * 4 + [2, 3, 2, 3]
    assert all(np.array_equal(source.read(index)[..., 0], PIXELS[index]) for index in range(12))
    assert source.name == "facescrub"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"actress_labels": np.array([0, 1, 0, 1])}, "has actors and actresses of label 0, which would be"),
        ({"actress_images": PIXELS[8:, :9]}, r"has images of \(28, 28, 1\) and of \(9, 28, 1\)"),
        ({"actress_labels": np.array([2, 3])}, "has 12 images but 10 labels"),
    ],
)
def test_amis_arrays_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    np.savez(tmp_path / "a.npz", **ami(**changes))
    with pytest.raises(ValueError, match=text):
        open_source(str(tmp_path / "a.npz"))


def test_images_without_labels_are_one_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS)
    with pytest.raises(ValueError, match="has no array labels; it needs images and labels, or --unlabelled"):
        open_source(str(tmp_path / "a.npz"))
    source = open_source(str(tmp_path / "a.npz"), is_labelled=False)
    assert (source.class_names, source.labels.tolist()) == (("unlabelled",), [0] * 12)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """Return an array's file with any header."""
    text = header.encode("latin-1") + b"\n"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + data
    )


def described(shape: str, descr: str = "'|u1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a terabyte": (npy(described("(1000000, 1000, 1000)"), b"x"), "unlike its 8. bytes; save it"),
    "more than memory has addresses": (npy(described(f"({10**30},)")), "unlike its"),
    "negative": (npy(described("(-1, 28, 28)"), b"x" * 784), "unlike its"),
    "negative twice": (npy(described("(-2, -392)"), b"x" * 784), "unlike its"),
    "nothing of much": (npy(described(f"(0, {10**30})")), "a.npz "),
    "wide items": (npy(described("(1,)", "'S2000000000'")), "unlike its"),
    "objects": (npy(described("(1,)", "'|O'"), b"cos\nsystem\n"), "cannot be read as arrays"),
    "code": (npy("__import__('os').system('true')"), "cannot be read as arrays"),
    "deep": (npy("(" * 5000), "cannot be read as arrays"),
    "long": (npy(" " * 60000), "cannot be read as arrays"),
    "version 9": (npy(described("(1,)"), b"x", version=9), "cannot be read as arrays"),
    "no header": (b"", "cannot be read as arrays"),
    "cut": (saved(PIXELS)[:-1], "unlike its"),
    "longer": (saved(PIXELS) + b"x", "unlike its"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("key", ["images", "labels"])
def test_hostile_arrays_are_refused_in_one_line_and_little_memory(
    tmp_path: Path, case: str, key: str
) -> None:
    data, text = HOSTILE[case]
    members = {"images": saved(PIXELS), "labels": saved(LABELS), key: data}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, array in members.items():
            archive.writestr(f"{name}.npy", array)
    tracemalloc.start()
    with pytest.raises(ValueError, match=text):
        open_source(str(tmp_path / "a.npz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_an_array_that_unpacks_to_a_bomb_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((90_000, 32, 32), dtype=np.uint8), labels=LABELS)
    with pytest.raises(ValueError, match=r"has 92160128 bytes in images\.npy, more than \d+; give an image"):
        open_source(str(tmp_path / "a.npz"))


PATCHES: dict[str, Callable[[bytes], bytes]] = {
    "zstandard": lambda data: data.replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x5d\0"),
    "no directory": lambda data: data[: data.index(b"PK\1\2")],
    "other bytes": lambda data: data[:400] + bytes(100) + data[500:],
}


@pytest.mark.parametrize("case", PATCHES)
def test_a_damaged_archive_of_arrays_is_refused(tmp_path: Path, case: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", saved(PIXELS))
        archive.writestr("labels.npy", saved(LABELS))
    data = (tmp_path / "a.npz").read_bytes()
    assert PATCHES[case](data) != data
    (tmp_path / "a.npz").write_bytes(PATCHES[case](data))
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as arrays"):
        open_source(str(tmp_path / "a.npz"))

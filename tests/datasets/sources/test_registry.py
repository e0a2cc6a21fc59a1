"""Readers of files on disk: right pixels and labels, packed or not, and one line for everything else."""

import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources.base import BadImage, Source, array_source
from orchestrator.datasets.sources.registry import converted, open_source, settled

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


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


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
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte cannot be read .*; download it again"):
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


def write_people(folder: Path) -> Path:
    for number, person in enumerate(["bob", "ann", "ann"]):
        (folder / person).mkdir(parents=True, exist_ok=True)
        (folder / person / f"{number}.png").write_bytes(png(PIXELS[number]))
    return folder


def zipped(folder: Path, path: Path, root: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, root + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("root", ["", "people/"])
def test_a_folder_and_its_zip_are_one_source(tmp_path: Path, root: str) -> None:
    folder = write_people(tmp_path / "People")
    plain = open_source(str(folder))
    packed = open_source(str(zipped(folder, tmp_path / "people.zip", root)))
    for source in (plain, packed):
        assert source.class_names == ("ann", "bob")
        assert source.labels.tolist() == [0, 0, 1]
        assert np.array_equal(source.read(2)[..., 0], PIXELS[0])
        assert source.name == "people"
    assert plain.fingerprint == packed.fingerprint


def test_a_changed_image_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    before = open_source(str(folder)).fingerprint
    (folder / "ann" / "1.png").write_bytes(png(PIXELS[5]))
    assert open_source(str(folder)).fingerprint != before


def test_files_outside_the_identities_are_counted_not_read(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (folder / "names.csv").write_text("1,ann")
    (folder / "ann" / ".DS_Store").write_bytes(b"x")
    source = open_source(str(folder))
    assert source.left_out == {"outside a class folder": ("ann/.DS_Store", "names.csv")}
    assert len(source.labels) == 3


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (folder / "ann" / "notes.txt").write_text("hello")
    source = open_source(str(folder))
    with pytest.raises(
        BadImage, match=r"people: ann/notes\.txt is no PNG, JPEG, WEBP or PGM image; remove it"
    ):
        source.read(2)


def test_an_empty_identity_and_a_deeper_level_are_refused(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (folder / "carl").mkdir()
    with pytest.raises(ValueError, match="carl has no images; remove that folder"):
        open_source(str(folder))
    with pytest.raises(ValueError, match="lies too deep"):
        open_source(str(tmp_path))


def test_a_folder_of_loose_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(ValueError, match="has no image folders; it needs one directory per identity"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "member", ["../../evil/a.png", "/evil/a.png", "ann\\..\\evil.png", "./ann/a.png", "ann//a.png"]
)
def test_a_zip_with_a_path_that_leaves_it_is_refused(tmp_path: Path, member: str) -> None:
    path = zipped(write_people(tmp_path / "people"), tmp_path / "people.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, png(PIXELS[0]))
    with pytest.raises(ValueError, match="is a path that leaves the archive"):
        open_source(str(path))


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    path = zipped(write_people(tmp_path / "people"), tmp_path / "people.zip")
    link = zipfile.ZipInfo("ann/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"member 'ann/link\.png' is a link"):
        open_source(str(path))


def test_a_member_with_a_turned_bit_is_named(tmp_path: Path) -> None:
    path = zipped(write_people(tmp_path / "people"), tmp_path / "people.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    path.write_bytes(data)
    source = open_source(str(path))
    with pytest.raises(BadImage, match=r"people\.zip: ann/1\.png cannot be read .*CRC"):
        source.read(0)


def test_garbage_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"a\.zip is no readable zip file"):
        open_source(str(tmp_path / "a.zip"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "imagenet",
            "SOURCE=imagenet is unknown and no such path exists; known are digits, photo-patches, mnist:DIR",
        ),
        ("/no/such/folder", "SOURCE=/no/such/folder is unknown and no such path exists"),
        ("mnist", "SOURCE=mnist needs an existing folder after mnist:"),
        ("mnist:/no/such", "SOURCE=mnist:/no/such needs an existing folder"),
        (__file__, r"is neither a folder, a \.zip nor a \.npz"),
    ],
)
def test_an_unknown_source_lists_the_known_ones(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(text)


def test_a_folder_without_the_files_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds no train-images-idx3-ubyte \(looked in \., raw, MNIST/raw\)"
    ):
        open_source(f"mnist:{tmp_path}")


WIDE = RNG.integers(0, 256, (2, 9, 14, 3), dtype=np.uint8)


def wide(**options: object) -> np.ndarray:
    """Return the first picture of a set of 9x14 as it would be staged."""
    source = array_source("npz", WIDE, np.arange(2), "ab", "0" * 64)
    return converted(source, Options.model_validate(options)).read(0)


def test_a_crop_takes_exactly_its_square() -> None:
    assert np.array_equal(wide(crop=(5, 2, 7)), WIDE[0, 2:9, 5:12])
    assert np.array_equal(wide(crop="centre"), WIDE[0, :, 2:11])
    assert np.array_equal(wide(crop=(0, 0, 1)), WIDE[0, :1, :1])


def test_a_crop_comes_before_resizing() -> None:
    assert np.array_equal(wide(crop=(4, 1, 8), size=8), WIDE[0, 1:9, 4:12])


@pytest.mark.parametrize("crop", [(8, 0, 7), (0, 3, 7), (14, 0, 1)])
def test_a_crop_outside_the_picture_is_a_bad_image(crop: tuple[int, int, int]) -> None:
    numbers = ",".join(map(str, crop))
    with pytest.raises(
        BadImage, match=f"image 0 is 9x14, so the crop LEFT,TOP,SIDE={numbers} leaves it"
    ) as bad:
        wide(crop=crop)
    assert bad.value.reason == "outside the crop"


def test_a_picture_that_is_not_square_needs_a_decision() -> None:
    text = "image 0 is 9x14, networks take squares; pass --crop LEFT,TOP,SIDE, --crop centre or --stretch"
    with pytest.raises(BadImage, match=text) as bad:
        wide(size=8)
    assert bad.value.reason == "not square"
    assert wide(stretch=True, size=8).shape == (8, 8, 3)
    assert np.array_equal(wide(stretch=True), WIDE[0])


def test_square_pictures_need_none() -> None:
    source = array_source("npz", WIDE[:, :, :9], np.arange(2), "ab", "0" * 64)
    assert np.array_equal(converted(source, Options()).read(1), WIDE[1, :, :9])


@pytest.mark.parametrize(
    ("options", "crop", "stretch"),
    [
        ({}, (35, 70, 108), False),
        ({"crop": "centre"}, "centre", False),
        ({"stretch": True}, None, True),
    ],
)
def test_the_sources_own_crop_gives_way(options: dict[str, object], crop: object, stretch: bool) -> None:
    source = Source(
        "celeba", "set", ("a", "b"), LABELS, PIXELS.__getitem__, str, "0" * 64, crop=(35, 70, 108)
    )
    chosen = settled(source, Options.model_validate(options))
    assert (chosen.crop, chosen.stretch) == (crop, stretch)

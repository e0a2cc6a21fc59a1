"""Image folders and their .zip files: one source, unsafe members refused, unusable files named."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.registry import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


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

"""Image folders and their .zip files: one source, links and unusable files named, sets without classes."""

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.sources.base import BadImage, Source
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


def test_an_empty_identity_is_refused(tmp_path: Path) -> None:
    (write_people(tmp_path / "people") / "carl").mkdir()
    with pytest.raises(ValueError, match="carl has no images; remove that folder"):
        open_source(str(tmp_path / "people"))


def test_images_below_a_class_and_beside_one_are_refused(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (folder / "ann" / "old").mkdir()
    (folder / "ann" / "old" / "9.png").write_bytes(png(PIXELS[3]))
    with pytest.raises(ValueError, match=r"people/ann/old/9\.png lies too deep, images must be in one"):
        open_source(str(folder))


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (tmp_path / "carl").mkdir()
    (tmp_path / "carl" / "7.png").write_bytes(png(PIXELS[7]))
    (folder / "carl").symlink_to(tmp_path / "carl")
    assert open_source(str(folder)).class_names == ("ann", "bob", "carl")
    for target in (folder, folder / "bob", tmp_path):
        (folder / "bob" / "loop").unlink(missing_ok=True)
        (folder / "bob" / "loop").symlink_to(target)
        with pytest.raises(ValueError, match=r"is a link to a folder that holds it; remove it|has no images"):
            open_source(str(folder))


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "broken", "loop"])
def test_what_is_no_file_is_a_bad_image_that_blocks_nothing(tmp_path: Path, kind: str) -> None:
    folder = write_people(tmp_path / "people")
    odd = folder / "ann" / "0.jpg"
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(odd),
        "socket": lambda: bound(odd),
        "device": lambda: odd.symlink_to("/dev/zero"),
        "broken": lambda: odd.symlink_to("nowhere"),
        "loop": lambda: odd.symlink_to("0.jpg"),
    }
    make[kind]()
    source = open_source(str(folder))
    with pytest.raises(BadImage, match=r"ann/0\.jpg cannot be read \(.*\); replace it") as caught:
        source.read(0)
    assert caught.value.reason == "unreadable"
    assert np.array_equal(source.read(1)[..., 0], PIXELS[1])


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people")
    (Path(os.fsdecode(os.fsencode(folder) + b"/ann/\xff.png"))).write_bytes(png(PIXELS[0]))
    with pytest.raises(ValueError, match=r"ann/\\udcff\.png' has a name that is not UTF-8; rename it"):
        open_source(str(folder))


def unlabelled(text: Path) -> Source:
    return open_source(str(text), is_labelled=False)


@pytest.mark.parametrize("below", ["", "00000", "thumbnails128x128/00000"])
def test_images_without_classes_are_one_class_in_any_folders(tmp_path: Path, below: str) -> None:
    home = tmp_path / "ffhq" / below
    home.mkdir(parents=True)
    for number in range(3):
        (home / f"{number}.png").write_bytes(png(PIXELS[number]))
    (tmp_path / "ffhq" / "LICENSE.txt").write_text("by its owners")
    packed = zipped(tmp_path / "ffhq", tmp_path / "ffhq.zip")
    for source in (unlabelled(tmp_path / "ffhq"), unlabelled(packed)):
        assert source.class_names == ("unlabelled",)
        assert source.labels.tolist() == [0, 0, 0]
        assert np.array_equal(source.read(2)[..., 0], PIXELS[2])
        assert source.left_out == {"no image by name": ("LICENSE.txt",)}


def test_a_folder_of_loose_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(
        ValueError, match="has no image folders; it needs one directory per identity, or --unlabelled"
    ):
        open_source(str(tmp_path))

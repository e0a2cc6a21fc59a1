"""CelebA as its owners ship it: a list of identities, and aligned pictures in a folder or a zip."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets import Location, load
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Manifest, Options, SplitRule
from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.registry import converted, open_source, settled
from orchestrator.datasets.staging import publish

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 218, 178, 3), dtype=np.uint8)
PEOPLE = [2880, 11, 2880, 11, 2880, 7]  # the last two pictures are missing
SPLITS = {"all": SplitRule(fractions=(1.0, 0.0, 0.0))}


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, *, anno: str = "", img: str = "", packed: bool = False, kind: str = "PNG") -> Path:
    """Write the list and four of six pictures, named .jpg as the owners name them."""
    for below in (anno, img):
        (folder / below).mkdir(parents=True, exist_ok=True)
    lines = [f"{number:06d}.jpg {who}\n" for number, who in enumerate(PEOPLE, start=1)]
    (folder / anno / "identity_CelebA.txt").write_text("".join(lines), encoding="ascii")
    pictures = {f"{number:06d}.jpg": encoded(PIXELS[number - 1], kind) for number in range(1, 5)}
    if packed:
        with zipfile.ZipFile(folder / img / "img_align_celeba.zip", "w") as archive:
            for name, data in pictures.items():
                archive.writestr(f"img_align_celeba/{name}", data)
        return folder
    (folder / img / "img_align_celeba").mkdir()
    for name, data in pictures.items():
        (folder / img / "img_align_celeba" / name).write_bytes(data)
    return folder


def staged(folder: Path, **options: object) -> tuple[Manifest, np.ndarray]:
    source, blobs = open_source(f"celeba:{folder}"), MemoryBlobs("memory")
    chosen = settled(source, Options.model_validate({"splits": SPLITS, **options}))
    manifest, _ = publish(converted(source, chosen), chosen, blobs, "set")
    return manifest, load("set", Location(blobs)).images


LAYOUTS: dict[str, dict[str, Any]] = {
    "flat": {},
    "owners": {"anno": "Anno", "img": "Img"},
    "zip": {"packed": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_people_are_numbers_and_missing_pictures_are_counted(tmp_path: Path, layout: str) -> None:
    folder = write(tmp_path, **LAYOUTS[layout])
    manifest, images = staged(folder)
    assert manifest.class_names == ("11", "2880")
    assert manifest.dropped == {"no such picture on disk": 2}
    assert manifest.dropped_names == ("000005.jpg", "000006.jpg")
    assert (manifest.seen, manifest.kept, manifest.image_shape) == (6, 4, (108, 108, 3))
    assert manifest.options.crop == (35, 70, 108)
    assert np.array_equal(images, PIXELS[:4, 70:178, 35:143])
    assert manifest == staged(write(tmp_path / "again"))[0]


def test_a_picture_or_an_identity_that_changes_makes_another_set(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = open_source(f"celeba:{folder}").fingerprint
    (folder / "img_align_celeba" / "000001.jpg").write_bytes(encoded(PIXELS[4], "PNG"))
    changed = open_source(f"celeba:{folder}").fingerprint
    listed = folder / "identity_CelebA.txt"
    listed.write_text(listed.read_text(encoding="ascii").replace("1.jpg 2880", "1.jpg 11"), encoding="ascii")
    assert len({before, changed, open_source(f"celeba:{folder}").fingerprint}) == 3


def test_another_crop_or_the_whole_picture(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert np.array_equal(staged(folder, crop=(35, 55, 108))[1], PIXELS[:4, 55:163, 35:143])
    assert np.array_equal(staged(folder, crop="centre")[1], PIXELS[:4, 20:198])
    assert staged(folder, stretch=True, size=64)[1].shape == (4, 64, 64, 3)
    with pytest.raises(BadImage, match=r"000001\.jpg is 218x178, so the crop LEFT,TOP,SIDE=80,70,108 leaves"):
        staged(folder, crop=(80, 70, 108))


def test_jpeg_is_decoded_and_brought_to_amis_format(tmp_path: Path) -> None:
    manifest, images = staged(write(tmp_path, kind="JPEG"), size=64, channels=1)
    assert images.shape == (4, 64, 64, 1)
    assert manifest.kept == 4


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("../../etc/passwd 1", r"line 1 names '\.\./\.\./etc/passwd', which is no plain file name"),
        ("/etc/passwd 1", "line 1 names '/etc/passwd', which is no plain file name"),
        ("000001.jpg", "line 1 does not read FILE IDENTITY; take the owners' list as it is"),
        ("000001.jpg x", "line 1 does not read FILE IDENTITY"),
    ],
)
def test_a_list_that_is_not_the_owners_is_refused(tmp_path: Path, line: str, text: str) -> None:
    folder = write(tmp_path)
    (folder / "identity_CelebA.txt").write_text(line + "\n", encoding="ascii")
    with pytest.raises(ValueError, match=text):
        open_source(f"celeba:{folder}")


def test_a_zip_with_a_path_that_leaves_it_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, packed=True)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "a") as archive:
        archive.writestr("../evil.jpg", b"x")
    with pytest.raises(ValueError, match="is a path that leaves the archive"):
        open_source(f"celeba:{folder}")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "img_align_celeba" / "000002.jpg").write_bytes(b"<html>")
    with pytest.raises(BadImage, match=r"000002\.jpg is a web page; remove it or pass --on-bad skip"):
        open_source(f"celeba:{folder}").read(1)


def test_a_folder_without_the_files_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds no identity_CelebA\.txt \(looked in \., Anno\); give the fold"
    ):
        open_source(f"celeba:{tmp_path}")
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 1\n", encoding="ascii")
    text = r"holds no img_align_celeba or img_align_celeba\.zip \(looked in \., Img\)"
    with pytest.raises(ValueError, match=text):
        open_source(f"celeba:{tmp_path}")

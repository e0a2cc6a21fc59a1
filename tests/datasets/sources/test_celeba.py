"""CelebA as its owners ship it: a list of identities, and aligned pictures in a folder or a zip."""

import io
import re
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


def write(
    folder: Path,
    *,
    anno: str = "",
    img: str = "",
    packed: bool = False,
    kind: str = "PNG",
    within: str = "img_align_celeba",
    suffix: str = "jpg",
) -> Path:
    """Write the list and four of six pictures, named .jpg as the owners name them."""
    for below in (anno, img):
        (folder / below).mkdir(parents=True, exist_ok=True)
    lines = [f"{number:06d}.jpg {who}\n" for number, who in enumerate(PEOPLE, start=1)]
    (folder / anno / "identity_CelebA.txt").write_text("".join(lines), encoding="ascii")
    pictures = {f"{number:06d}.{suffix}": encoded(PIXELS[number - 1], kind) for number in range(1, 5)}
    if packed:
        with zipfile.ZipFile(folder / img / f"{within.partition('/')[0]}.zip", "w") as archive:
            for name, data in pictures.items():
                archive.writestr(f"{within}/{name}", data)
        return folder
    (folder / img / within).mkdir(parents=True)
    for name, data in pictures.items():
        (folder / img / within / name).write_bytes(data)
    return folder


def staged(folder: Path, **options: object) -> tuple[Manifest, np.ndarray]:
    source, blobs = open_source(f"celeba:{folder}"), MemoryBlobs("memory")
    chosen = settled(source, Options.model_validate({"splits": SPLITS, **options}))
    manifest, _ = publish(converted(source, chosen), chosen, blobs, "set")
    return manifest, load("set", Location(blobs)).images[:]


LAYOUTS: dict[str, dict[str, Any]] = {
    "flat": {},
    "owners": {"anno": "Anno", "img": "Img"},
    "zip": {"packed": True},
    "torchvision": {"anno": "celeba", "img": "celeba"},
    "Kaggle, doubled": {"within": "img_align_celeba/img_align_celeba"},
    "Kaggle, zip": {"within": "img_align_celeba/img_align_celeba", "packed": True},
    "PNG copies": {"within": "img_align_celeba_png", "suffix": "png"},
    "PNG copies, owners": {"within": "img_align_celeba_png", "suffix": "png", "anno": "Anno", "img": "Img"},
    "PNG copies, zip": {"within": "img_align_celeba_png", "suffix": "png", "packed": True},
    "PNG copies under the other name": {"suffix": "png"},
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


def test_a_byte_order_mark_belongs_to_no_name(tmp_path: Path) -> None:
    listed = write(tmp_path) / "identity_CelebA.txt"
    before = open_source(f"celeba:{tmp_path}")
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes())
    source = open_source(f"celeba:{tmp_path}")
    assert (source.label_of(0), len(source.labels)) == ("000001.jpg", 4)
    assert source.fingerprint == before.fingerprint


def test_a_picture_is_listed_twice_with_one_identity_only(tmp_path: Path) -> None:
    listed = write(tmp_path) / "identity_CelebA.txt"
    before = open_source(f"celeba:{tmp_path}").fingerprint
    text = listed.read_text(encoding="ascii")
    listed.write_text(f"{text}000001.jpg 2880\n", encoding="ascii")
    assert open_source(f"celeba:{tmp_path}").fingerprint == before
    listed.write_text(f"{text}000001.jpg 11\n", encoding="ascii")
    message = "line 7 gives 000001.jpg the identity 11, an earlier line 2880; take the owners' list as it is"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_source(f"celeba:{tmp_path}")


def test_of_two_copies_the_listed_name_counts(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "img_align_celeba" / "000001.png").write_bytes(encoded(PIXELS[4], "PNG"))
    assert np.array_equal(open_source(f"celeba:{folder}").read(0), PIXELS[0])


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
        ValueError, match=r"holds no identity_CelebA\.txt \(looked in \., Anno, celeba\); give"
    ):
        open_source(f"celeba:{tmp_path}")
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 1\n", encoding="ascii")
    text = (
        r"holds no img_align_celeba or img_align_celeba_png or img_align_celeba\.zip or "
        r"img_align_celeba_png\.zip \(looked in \., Img, celeba\)"
    )
    with pytest.raises(ValueError, match=text):
        open_source(f"celeba:{tmp_path}")

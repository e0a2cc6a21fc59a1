"""FaceScrub as its owners ship it: two lists, and pictures that are known by their bytes alone."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets import Location, load
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Manifest, Options, SplitRule
from orchestrator.datasets.sources.base import BadImage, Source
from orchestrator.datasets.sources.exclusion import read_names, without
from orchestrator.datasets.sources.registry import converted, open_source, settled
from orchestrator.datasets.staging import publish

HEADER = "name\timage_id\tface_id\turl\tbbox\tsha256"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
OPTIONS = Options(splits={"all": SplitRule(fractions=(1.0, 0.0, 0.0))}, size=16, channels=1)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(pixels) for pixels in PIXELS]


def row(name: str, number: int, box: str, data: bytes) -> str:
    url = f"http://example.org/{number}?a=b"
    return "\t".join([name, str(100 + number), str(number), url, box, hashlib.sha256(data).hexdigest()])


ROWS = {
    "facescrub_actors.txt": [
        row("Al Pine", 0, "10,5,30,35", PICTURES[0]),
        row("Al Pine", 1, "-3,0,20,20", PICTURES[1]),  # clipped to the picture
        row("Bo Dean", 2, "1,2,33,34", PICTURES[2]),
        row("Bo Dean", 3, "40,20,90,80", PICTURES[1]),  # another face of a picture that is there twice
    ],
    "facescrub_actresses.txt": [
        row("Cy Lane", 4, "0,0,40,40", PICTURES[4]),
        row("Cy Lane", 5, "0,0,40,40", b"was on a server that is gone"),
        row("Di Wood", 6, "0,0,40,40", b"so was this one"),
    ],
}


def write(folder: Path, *, prefix: str = "") -> Path:
    """Write the lists, and the images under arbitrary names; one is replaced by a web page."""
    (folder / "downloads" / "deep").mkdir(parents=True)
    for name, rows in ROWS.items():
        (folder / name).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    for number in (0, 1, 2):
        (folder / "downloads" / f"{prefix}{number}.bin").write_bytes(PICTURES[number])
    (folder / "downloads" / "deep" / f"{prefix}x.jpeg").write_bytes(PICTURES[4])
    (folder / "downloads" / "105.jpg").write_bytes(b"<html>404</html>")
    return folder


def staged(source: Source) -> tuple[Manifest, MemoryBlobs]:
    blobs = MemoryBlobs("memory")
    options = settled(source, OPTIONS)
    manifest, _ = publish(converted(source, options), options, blobs, "set")
    return manifest, blobs


def test_each_row_is_its_box_of_the_picture_with_its_checksum(tmp_path: Path) -> None:
    source = open_source(f"facescrub:{write(tmp_path)}")
    assert source.class_names == ("Al Pine", "Bo Dean", "Cy Lane")
    assert source.labels.tolist() == [0, 0, 1, 1, 2]
    expected = [
        PIXELS[0][5:35, 10:30],
        PIXELS[1][0:20, 0:20],
        PIXELS[2][2:34, 1:33],
        PIXELS[1][20:40, 40:50],
        PIXELS[4][0:40, 0:40],
    ]
    for index, box in enumerate(expected):
        assert np.array_equal(source.read(index), box)


def test_rows_without_their_picture_are_counted(tmp_path: Path) -> None:
    manifest, blobs = staged(open_source(f"facescrub:{write(tmp_path)}"))
    assert manifest.dropped == {"no such picture on disk": 2}
    assert manifest.dropped_names == ("Cy Lane/105_5", "Di Wood/106_6")
    assert (manifest.seen, manifest.kept, manifest.image_shape) == (7, 5, (16, 16, 1))
    assert manifest.options.stretch is True
    assert load("set", Location(blobs)).class_names == ("Al Pine", "Bo Dean", "Cy Lane")


def test_the_names_on_disk_do_not_matter(tmp_path: Path) -> None:
    first, blobs = staged(open_source(f"facescrub:{write(tmp_path / 'a')}"))
    source = open_source(f"facescrub:{write(tmp_path / 'b', prefix='other')}")
    assert staged(source)[0] == first
    options = settled(source, OPTIONS)
    assert publish(converted(source, options), options, blobs, "set") == (first, False)


def test_a_picture_with_other_bytes_belongs_to_no_row(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "downloads" / "0.bin").write_bytes(PICTURES[0] + b" ")
    source = open_source(f"facescrub:{folder}")
    assert source.left_out["no such picture on disk"][0] == "Al Pine/100_0"
    assert len(source.labels) == 4


def test_people_on_a_list_are_left_out_by_name(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("bo_dean\n", encoding="ascii")
    source, _ = without(open_source(f"facescrub:{write(tmp_path / 'set')}"), read_names(listed))
    manifest, _ = staged(source)
    assert manifest.class_names == ("Al Pine", "Cy Lane")
    assert manifest.dropped == {"no such picture on disk": 2, "excluded class": 2}
    assert "Bo Dean/102_2" in manifest.dropped_names
    assert manifest.options.stretch is True


def test_a_box_outside_the_picture_is_a_bad_image(tmp_path: Path) -> None:
    folder = write(tmp_path)
    rows = [HEADER, row("Al Pine", 0, "60,5,80,35", PICTURES[0]), row("Bo Dean", 1, "0,0,9,9", PICTURES[1])]
    (folder / "facescrub_actors.txt").write_text("\n".join(rows), encoding="utf-8")
    source = open_source(f"facescrub:{folder}")
    text = "Al Pine/100_0 has the box 60,5,80,35, but its picture is 40x50; pass --on-bad skip"
    with pytest.raises(BadImage, match=text) as bad:
        source.read(0)
    assert bad.value.reason == "box outside the picture"


@pytest.mark.parametrize(
    "line",
    [
        "Al Pine\t1\t1\thttp://x\t1,2,3\t" + "0" * 64,
        "Al Pine\t1\t1\thttp://x\t1,2,3,4\tabc",
        "Al Pine 1 1 http://x 1,2,3,4",
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path)
    (folder / "facescrub_actors.txt").write_text(f"{HEADER}\n{line}\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"facescrub_actors\.txt line 2 does not read name, image_id, face_id"
    ):
        open_source(f"facescrub:{folder}")


def test_missing_lists_and_missing_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for file in (folder / "downloads").rglob("*.bin"):
        file.unlink()
    (folder / "downloads" / "deep" / "x.jpeg").unlink()
    with pytest.raises(
        ValueError, match=r"none of its 1 files has a SHA-256 of the 7 rows in the lists; down"
    ):
        open_source(f"facescrub:{folder}")
    (folder / "facescrub_actresses.txt").unlink()
    with pytest.raises(ValueError, match=r"actresses\.txt cannot be read .*; put the lists facescrub_actors"):
        open_source(f"facescrub:{folder}")


def test_lists_with_a_byte_order_mark_are_read_whole(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = open_source(f"facescrub:{folder}").fingerprint
    for name in ROWS:
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert open_source(f"facescrub:{folder}").fingerprint == before


def test_faces_that_were_cut_out_already_need_no_lists(tmp_path: Path) -> None:
    for number, place in enumerate(
        ("actors/faces/Al Pine", "actors/faces/Bo Dean", "actresses/faces/Cy Lane")
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{number}.jpeg").write_bytes(PICTURES[number])
    source = open_source(f"facescrub:{tmp_path}")
    assert (source.kind, source.name, source.stretch) == ("facescrub", "facescrub", True)
    assert source.class_names == ("Al Pine", "Bo Dean", "Cy Lane")
    assert np.array_equal(source.read(2), PIXELS[2])
    assert staged(source)[0].image_shape == (16, 16, 1)
    (tmp_path / "facescrub_actors.txt").write_text(HEADER)
    with pytest.raises(ValueError, match=r"facescrub_actresses\.txt cannot be read .*; put the lists"):
        open_source(f"facescrub:{tmp_path}")

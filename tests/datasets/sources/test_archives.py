"""Archives as people pack them, and hostile ones: one line, nothing unpacked."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.registry import open_source


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PEOPLE = {"ann/0.png": png(0), "ann/1.png": png(1), "bob/2.png": png(2)}


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "dot": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "wrapper": lambda name: f"people/{name}",
    "two wrappers": lambda name: f"data/people/{name}",
    "dot and wrapper": lambda name: f"./people/{name}",
}
BESIDE: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "macOS": {".DS_Store": b"x", "ann/.DS_Store": b"x", "__MACOSX/ann/._0.png": b"x", "__MACOSX/._ann": b"x"},
    "read-me": {"README.md": b"hello", "LICENSE": b"free"},
    "folders": {"ann/": b"", "bob/": b""},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_archives_as_people_pack_them_are_one_source(tmp_path: Path, spelling: str, beside: str) -> None:
    spell = SPELLINGS[spelling]
    members = {spell(name): data for name, data in {**PEOPLE, **BESIDE[beside]}.items()}
    source = open_source(str(packed(tmp_path / "a.zip", members)))
    plain = open_source(str(packed(tmp_path / "b.zip", PEOPLE)))
    assert source.class_names == ("ann", "bob")
    assert [source.label_of(index) for index in range(3)] == list(PEOPLE)
    assert all(np.array_equal(source.read(index), plain.read(index)) for index in range(3))
    num_beside = sum(not name.endswith("/") for name in BESIDE[beside])
    assert len(source.left_out["outside a class folder"]) == num_beside
    assert (source.fingerprint == plain.fingerprint) == (num_beside == 0)


def test_a_read_me_in_two_places_is_counted_twice(tmp_path: Path) -> None:
    members = {f"people/{name}": data for name, data in PEOPLE.items()}
    notes = {"README": b"a", "people/README": b"b"}
    source = open_source(str(packed(tmp_path / "a.zip", {**notes, **members})))
    assert source.left_out["outside a class folder"] == ("README", "people:README")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_method_that_can_be_read_is_read(tmp_path: Path, method: int) -> None:
    source = open_source(str(packed(tmp_path / "a.zip", PEOPLE, method)))
    assert source.read(0).shape == (8, 8, 1)


@pytest.mark.parametrize(
    "member",
    ["../../evil/a.png", "/evil/a.png", "ann\\..\\evil.png", "\\evil\\a.png", "ann//a.png", "ann/../a.png"],
)
def test_a_path_that_leaves_the_archive_is_refused(tmp_path: Path, member: str) -> None:
    path = packed(tmp_path / "a.zip", {**PEOPLE, member: png(3)})
    with pytest.raises(ValueError, match="is a path that leaves the archive"):
        open_source(str(path))


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", PEOPLE)
    link = zipfile.ZipInfo("ann/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"member 'ann/link\.png' is a link"):
        open_source(str(path))


def test_two_members_of_one_name_must_be_one_file(tmp_path: Path) -> None:
    again = packed(tmp_path / "a.zip", {**PEOPLE, "./ann/0.png": PEOPLE["ann/0.png"]})
    assert len(open_source(str(again)).labels) == 3
    other = packed(tmp_path / "b.zip", {**PEOPLE, "ann\\0.png": png(9)})
    with pytest.raises(ValueError, match="is there twice, with different bytes; remove one"):
        open_source(str(other))


CENTRAL = b"PK\x01\x02"


def patched(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite a field of the first member's central entry, or of its local header too (2 bytes less)."""

    def change(data: bytes) -> bytes:
        start = data.index(CENTRAL) + offset
        return data[:start] + value + data[start + len(value) :]

    return change


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zstandard": (patched(10, struct.pack("<H", 93)), "is packed by method 93; pack plain folders"),
    "implode": (patched(10, struct.pack("<H", 6)), "is packed by method 6"),
    "method 65535": (patched(10, b"\xff\xff"), "is packed by method 65535"),
    "encrypted": (patched(8, b"\1\0"), "is encrypted"),
    "version 25.5": (patched(6, b"\xff\0"), "is no readable zip file"),
    "name that is no UTF-8": (
        lambda data: patched(8, b"\0\x08")(data).replace(b"ann/0", b"\xff\xff\xff\xff\xff"),
        "is no readable zip file",
    ),
    "no directory": (lambda data: data[: data.index(CENTRAL)], "is no readable zip file"),
    "garbage": (lambda data: b"garbage", "is no readable zip file"),
    "empty": (lambda data: b"", "is no readable zip file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str) -> None:
    change, text = HOSTILE[case]
    path = packed(tmp_path / "a.zip", PEOPLE)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=text) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_flipped_bytes_cost_images_but_raise_nothing_else(tmp_path: Path, method: int) -> None:
    path = packed(tmp_path / "a.zip", PEOPLE, method)
    whole, rng = path.read_bytes(), np.random.default_rng(method)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            source = open_source(str(path))
            for index in range(len(source.labels)):
                source.read(index)
            outcomes.add("read")
        except BadImage:
            outcomes.add("bad image")
        except ValueError:
            outcomes.add("refused")
    assert "bad image" in outcomes


def test_a_member_with_a_turned_bit_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", PEOPLE)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"a\.zip: ann/0\.png cannot be read .*CRC"):
        open_source(str(path)).read(0)


def test_a_member_that_unpacks_beyond_the_limit_is_cut_and_refused(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "a.zip", {**PEOPLE, "bob/3.png": bytes(40 * 2**20)}, zipfile.ZIP_DEFLATED)
    assert len(zlib.compress(bytes(40 * 2**20))) < 50_000
    source = open_source(str(bomb))
    with pytest.raises(BadImage, match=r"bob/3\.png has more than 33554432 bytes"):
        source.read(3)

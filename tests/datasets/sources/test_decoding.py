"""Pixels of every accepted mode, and a table of bytes that must be refused."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from orchestrator.datasets.sources import decoding
from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.decoding import decode

GREY = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """Build a PNG by hand, so that its header can promise anything; `extra` chunks precede the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rows_of(pixels: np.ndarray) -> bytes:
    """Return the rows of 16-bit pixels as PNG holds them."""
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)


@pytest.mark.parametrize("kind", ["PNG", "PPM", "WEBP"])
def test_colour_survives_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(saved(Image.fromarray(COLOUR), kind, **options), "a"), COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_grey_has_one_channel(kind: str) -> None:
    assert np.array_equal(decode(saved(Image.fromarray(GREY), kind), "a"), GREY[..., None])


def test_jpeg() -> None:
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    ours = decode(saved(Image.fromarray(smooth), "JPEG", quality=95), "a")[..., 0]
    assert np.abs(ours.astype(int) - smooth).max() <= 8


def test_16_bit_png_is_scaled_not_saturated() -> None:
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    ours = decode(png(8, 8, rows_of(wide), depth=16), "a")[..., 0]
    assert np.abs(ours / 255 - wide / 65535).max() <= 0.5 / 255 + 1e-9
    assert ours.max() == 255
    assert len(np.unique(ours)) == 64


def test_16_bit_pgm_is_scaled_not_saturated() -> None:
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    ours = decode(b"P5 8 8 65535\n" + wide.astype(">u2").tobytes(), "a")[..., 0]
    assert np.abs(ours / 255 - wide / 65535).max() <= 0.5 / 255 + 1e-9


def test_one_bit() -> None:
    ours = decode(saved(Image.fromarray(GREY > 128)), "a")
    assert np.array_equal(ours[..., 0], np.where(GREY > 128, 255, 0))


def test_palette() -> None:
    picture = Image.fromarray(COLOUR).convert("P")
    assert np.array_equal(decode(saved(picture), "a"), np.asarray(picture.convert("RGB")))


def test_transparency_is_laid_on_black() -> None:
    alpha = np.where(np.arange(7) < 3, 255, 0).astype(np.uint8) * np.ones((9, 1), dtype=np.uint8)
    ours = decode(saved(Image.fromarray(np.dstack([COLOUR, alpha]))), "a")
    assert np.array_equal(ours, np.where(alpha[..., None] == 255, COLOUR, 0))


def test_transparent_grey_stays_grey() -> None:
    layer = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (7, 9), 255)))
    assert np.array_equal(decode(saved(layer), "a"), GREY[..., None])


PALETTE = bytes([10, 20, 30, 40, 50, 60, 70, 80, 90])
KEYED: dict[str, tuple[int, int, bytes, list[Any]]] = {
    # bits, colour type, transparency, pixels expected of the rows below
    "1 bit": (1, 0, struct.pack(">H", 1), [0, 0, 0]),
    "2 bits": (2, 0, struct.pack(">H", 3), [0, 85, 170]),
    "4 bits": (4, 0, struct.pack(">H", 15), [0, 17, 34]),
    "8 bits": (8, 0, struct.pack(">H", 200), [0, 1, 2]),
    "16 bits": (16, 0, struct.pack(">H", 0x1234), [0, 18, 255]),
    "8 bits of colour": (8, 2, bytes([0, 1, 0, 2, 0, 3]), [[0, 0, 0], [4, 5, 6], [1, 2, 4]]),
    "16 bits of colour": (16, 2, b"\1\1\2\2\3\3", [[0, 0, 0], [1, 2, 3], [2, 2, 3]]),
    "palette, one entry": (8, 3, b"\xff\0", [[10, 20, 30], [0, 0, 0], [70, 80, 90]]),
    "palette, half": (8, 3, b"\x80", [[5, 10, 15], [40, 50, 60], [70, 80, 90]]),
}
ROWS = {
    "1 bit": b"\0\xe0",
    "2 bits": b"\0\xd8",
    "4 bits": b"\0\xf1\x20",
    "8 bits": b"\0\xc8\1\2",
    "16 bits": b"\0\x12\x34\x12\x35\xff\xff",  # the second has the same high byte as the first
    "8 bits of colour": b"\0\1\2\3\4\5\6\1\2\4",
    "16 bits of colour": b"\0\1\1\2\2\3\3\1\1\2\2\3\2\2\1\2\2\3\3",
    "palette, one entry": b"\0\0\1\2",
    "palette, half": b"\0\0\1\2",
}


@pytest.mark.parametrize("case", KEYED)
def test_a_transparent_colour_is_laid_on_black_at_every_depth(case: str) -> None:
    depth, colour, key, expected = KEYED[case]
    extra = (chunk(b"PLTE", PALETTE) if colour == 3 else b"") + chunk(b"tRNS", key)
    ours = decode(png(3, 1, ROWS[case], depth, colour, extra), "a")
    assert np.array_equal(ours[0] if colour else ours[0, :, 0], expected)


def test_16_bit_colour_without_a_transparent_one_keeps_its_high_bytes() -> None:
    ours = decode(png(3, 1, ROWS["16 bits of colour"], 16, 2), "a")
    assert ours.tolist() == [[[1, 2, 3], [1, 2, 3], [2, 2, 3]]]


def exif(*tags: tuple[int, int, int, bytes], count: int = 0) -> bytes:
    """Build an EXIF block of (tag, type, number of values, value); `count` overrides the number of tags."""
    body = data = b""
    for tag, kind, num, value in tags:
        place = struct.pack("<L", 8 + 2 + 12 * len(tags) + 4 + len(data))
        body += struct.pack("<HHL", tag, kind, num) + (value.ljust(4, b"\0") if len(value) <= 4 else place)
        data += value if len(value) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, count or len(tags)) + body + bytes(4) + data


def turned(orientation: int) -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack("<H", orientation)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_camera_rotation_is_applied(orientation: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(COLOUR), kind, exif=exif(turned(orientation)), **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == ((9, 7) if 5 <= orientation <= 8 else (7, 9))
    assert np.array_equal(decode(data, "a"), np.asarray(upright.convert("RGB")))


QUARTER = turned(6)
ODD_METADATA = {
    "resolution twice": exif(QUARTER, (282, 5, 2, struct.pack("<4L", 72, 1, 72, 1))),
    "list cut short": exif(QUARTER, count=40),
    "tag beyond the file": exif(QUARTER, (0x010F, 2, 4000, struct.pack("<L", 90000))),
    "negative size": exif(QUARTER, (0x0100, 9, 1, struct.pack("<l", -5))),
    "rational of -1": exif(QUARTER, (0x011A, 10, 1, struct.pack("<ll", -1, 0))),
    "GPS outside": exif(QUARTER, (0x8825, 4, 1, struct.pack("<L", 99999))),
    "unknown type": exif(QUARTER, (0x9999, 99, 1, b"abcd")),
    "orientation twice": exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
}


@pytest.mark.parametrize("case", ODD_METADATA)
def test_of_the_metadata_only_the_orientation_counts(case: str) -> None:
    plain = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), dtype=np.uint8)))
    upright = np.rot90(decode(saved(plain, "JPEG"), "a"), -1)
    assert np.array_equal(decode(saved(plain, "JPEG", exif=ODD_METADATA[case]), "a"), upright)


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0hello", exif((0x0112, 2, 2, b"6\0"))])
def test_an_orientation_that_cannot_be_read_turns_nothing(block: bytes) -> None:
    plain = saved(Image.fromarray(COLOUR), "JPEG")
    data = saved(Image.fromarray(COLOUR), "JPEG", exif=block)
    assert np.array_equal(decode(data, "a"), decode(plain, "a"))


def test_random_metadata_never_costs_a_picture() -> None:
    rng = np.random.default_rng(0)
    block = exif(QUARTER, (282, 5, 1, struct.pack("<2L", 72, 1)), (0x8769, 4, 1, struct.pack("<L", 8)))
    for kind in ("JPEG", "WEBP", "PNG"):
        data = saved(Image.fromarray(COLOUR), kind, exif=block)
        start = data.index(b"II*\0") + 8
        for _ in range(100):
            changed = bytearray(data)
            changed[start + rng.integers(50)] = rng.integers(256)
            assert sorted(decode(bytes(changed), "a").shape) == [3, 7, 9]


WHOLE_TEXT = chunk(b"tEXt", b"a\0b")
ODD_CHUNKS = {
    "wrong checksum": WHOLE_TEXT[:-1] + b"\0",
    "text of 80 MB": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))),
    "short density": chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("case", ODD_CHUNKS)
def test_texts_and_profiles_of_a_png_never_cost_a_picture(case: str) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in GREY)
    assert np.array_equal(decode(png(7, 9, rows, extra=ODD_CHUNKS[case]), "a")[..., 0], GREY)


def test_a_phones_picture_with_a_second_frame_is_its_first() -> None:
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert np.array_equal(decode(data, "a"), decode(saved(first, "JPEG"), "a"))


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


WHOLE = saved(Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)))
JPEG = saved(Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)), "JPEG")
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "f.png is empty"),
    "text": (lambda: b"identity,name\n1,a\n", "f.png is no PNG, JPEG, WEBP or PGM image"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>404</html>", "f.png is a web page"),
    "gif": (lambda: saved(Image.fromarray(GREY), "GIF"), "f.png is no PNG"),
    "tiff of floats": (lambda: saved(Image.fromarray(GREY.astype("f4")), "TIFF"), "f.png is no PNG"),
    "cut png": (lambda: WHOLE[: len(WHOLE) // 2], "f.png is damaged"),
    "cut jpeg": (lambda: JPEG[: len(JPEG) // 2], "f.png is damaged"),
    "png header only": (lambda: WHOLE[:20], "f.png is (damaged|no PNG)"),
    "png without pixels": (lambda: png(4, 4), "f.png is damaged"),
    "flipped png": (lambda: WHOLE[:1000] + bytes([WHOLE[1000] ^ 1]) + WHOLE[1001:], "f.png is damaged"),
    "animated png": (lambda: _animated("PNG"), "f.png has several frames"),
    "animated webp": (lambda: _animated("WEBP"), "f.png has several frames"),
    "cmyk": (lambda: saved(Image.new("CMYK", (4, 4)), "JPEG"), "f.png has colour mode CMYK"),
    "26 Mpx": (lambda: png(5200, 5000), "f.png has more than 25 million pixels"),
    "144 Mpx": (lambda: png(12000, 12000), "f.png has more than 25 million pixels"),
    "400 Mpx": (lambda: png(20000, 20000), "f.png has more than 25 million pixels"),
    "many scans": (lambda: JPEG[:-2] + b"\xff\xda" * 1001, "f.png has more than 1000 scans"),
    "no first bytes": (lambda: b"P5 x", "f.png is damaged"),
    "text chunk": (lambda: b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, "f.png is (damaged|no PNG)"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bytes_are_refused_in_one_line(case: str) -> None:
    build, text = HOSTILE[case]
    with pytest.raises(BadImage, match=f"^{text}.*pass --on-bad skip") as caught:
        decode(build(), "f.png")
    assert "\n" not in str(caught.value)


def test_files_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(BadImage, match="has more than 10 bytes"):
        decode(WHOLE, "f.png")


@pytest.mark.parametrize("error", [struct.error("argument out of range"), KeyError("tag"), RuntimeError()])
def test_every_exception_of_a_decoder_is_a_bad_image(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(decoding, "_pixels", fail)
    with pytest.raises(BadImage, match=r"^f\.png is damaged") as caught:
        decode(JPEG, "f.png")
    assert caught.value.reason == "damaged"

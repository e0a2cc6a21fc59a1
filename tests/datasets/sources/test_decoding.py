"""Pixels of every accepted mode, and a table of bytes that must be refused."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.sources import decoding
from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.decoding import decode

GREY = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """Build a PNG by hand, so that its header can promise anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


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
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    ours = decode(png(8, 8, rows, depth=16), "a")[..., 0]
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


def test_camera_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to stand upright
    ours = decode(saved(Image.fromarray(GREY), "PNG", exif=exif), "a")[..., 0]
    assert np.array_equal(ours, np.rot90(GREY, -1))


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

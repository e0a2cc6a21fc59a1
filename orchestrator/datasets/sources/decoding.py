"""Decoding: untrusted bytes to pixels, with few formats, early size checks and a rule for every colour mode.

Admitted are PNG, JPEG, WEBP and PGM/PPM of at most 32 MiB and 25 million pixels. 16-bit grey is scaled by
65535 (a plain conversion would saturate it); transparency is composited on black; CMYK and animations are
refused. Of the metadata only the orientation counts, and only where it can be read; of a phone's picture with
a gain map (MPO) the first frame is taken.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile

from orchestrator.config.base import NO_VALUE
from orchestrator.datasets.sources.base import BadImage

FORMATS = ("PNG", "JPEG", "WEBP", "PPM")
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
SIGNATURES = (PNG, JPEG, b"RIFF", b"P5", b"P6")
START_OF_SCAN = b"\xff\xda"  # of JPEG; each takes time, a progressive picture has about ten
MAX_SCANS = 1000
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")
ORIENTATION = 0x0112  # EXIF tag
TURNS = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}
"""Orientation -> whether to mirror, then quarter turns to the left; others are upright."""

GREY_STEPS = {"L;2": 85, "L;4": 17}  # PNG of 2 or 4 bits -> distance of two grey levels in 8 bits


def decode(data: bytes, name: str) -> np.ndarray:
    """Return an image file's pixels, (H, W, C) uint8 with C = 1 or 3; raise `BadImage` under `name`."""
    if not data:
        raise _bad("empty", name, "is empty", "replace it")
    if len(data) > MAX_BYTES:
        raise _bad("too large", name, f"has more than {MAX_BYTES} bytes", "shrink it")
    if data.startswith(JPEG) and data.count(START_OF_SCAN) > MAX_SCANS:
        raise _bad("too many scans", name, f"has more than {MAX_SCANS} scans", "save it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; damaged pixels raise errors
            return _decode_png(data, name) if data.startswith(PNG) else _decode(data, name)
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(name) from None
    except Image.UnidentifiedImageError as error:
        raise _unidentified(data, name, error) from None
    except Exception as error:  # decoders raise many types on damaged bytes
        raise _damaged(name, error) from None


def _decode_png(data: bytes, name: str) -> np.ndarray:
    """Decode a PNG, the second time without the texts and profiles that may have ended Pillow's reading."""
    try:
        return _decode(data, name)
    except (BadImage, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # of damaged pixels too, which raise again
        return _decode(_bare(data), name)


def _decode(data: bytes, name: str) -> np.ndarray:
    with _opened(data) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_many_pixels(name)
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise _bad("several frames", name, "has several frames", "save one as PNG")
        rawmode = str(picture.tile[0].args) if picture.tile else ""
        picture.load()
        pixels = _wide_colour(picture, data) if rawmode == "RGB;16B" else _pixels(picture, rawmode, name)
        is_mirrored, num_turns = TURNS.get(_orientation(picture), (False, 0))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if is_mirrored else pixels, num_turns))


def _opened(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _bare(png: bytes) -> bytes:
    """Return a PNG without the chunks that pixels do not depend on, nor EXIF with a wrong checksum."""
    kept, start = [PNG], len(PNG)
    while start + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        chunk = png[start : start + 12 + length]
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if kind[:1].isupper() or kind in (b"tRNS", b"acTL") or (kind == b"eXIf" and is_whole):
            kept.append(chunk)
        start += len(chunk)
    return b"".join(kept)


def _orientation(picture: Image.Image) -> int:
    """Return EXIF's or XMP's orientation, 1 where there is none that can be read."""
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # parsers of metadata raise many types; the pixels are whole
        return 1
    return orientation if isinstance(orientation, int) else 1


def _pixels(picture: Image.Image, rawmode: str, name: str) -> np.ndarray:
    mode, key = picture.mode, picture.info.get("transparency")
    if mode in ("I;16", "I;16B", "I"):  # 16-bit PNG; a PGM with a maximum above 255, scaled to 65535, is "I"
        wide = np.asarray(picture).astype(np.float64)
        opaque = wide.clip(0, 65535) if key is None else np.where(wide == key, 0, wide)
        return np.rint(opaque * (255 / 65535)).astype(np.uint8)
    if mode in ALPHA or key is not None:
        if key is not None and rawmode in GREY_STEPS:
            picture.info["transparency"] = key * GREY_STEPS[rawmode]
        layer = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        return np.asarray(flat.convert("L" if mode in ("L", "LA", "La", "1") else "RGB"))
    if mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    if mode in ("P", "RGB"):
        return np.asarray(picture.convert("RGB"))
    raise _bad("unsupported mode", name, f"has colour mode {mode}", "save it as grey or RGB")


def _wide_colour(picture: Image.Image, data: bytes) -> np.ndarray:
    """Return a 16-bit colour PNG's high bytes, black where all 16 bits are the transparent colour's."""
    high = np.array(picture.convert("RGB"))
    if (key := picture.info.get("transparency")) is None:
        return high
    with _opened(data) as again:
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]  # takes the other byte
        low = np.asarray(again.convert("RGB"))
    high[((high.astype(np.uint16) << 8 | low) == np.array(key)).all(axis=2)] = 0
    return high


def _unidentified(data: bytes, name: str, error: Exception) -> BadImage:
    if data.startswith(SIGNATURES):
        return _damaged(name, ValueError("its header cannot be read"))
    looks = "a web page" if data.lstrip()[:1] == b"<" else "no PNG, JPEG, WEBP or PGM image"
    return _bad("not an image", name, f"is {looks}", "remove it")


def _damaged(name: str, error: Exception) -> BadImage:
    text = " ".join(str(error).split()) or type(error).__name__
    return _bad("damaged", name, f"is damaged ({text})", "replace it")


def _too_many_pixels(name: str) -> BadImage:
    rule = f"has more than {MAX_PIXELS // 10**6} million pixels"
    return _bad("too many pixels", name, rule, "shrink it")


def _bad(reason: str, name: str, rule: str, way_out: str) -> BadImage:
    return BadImage(name, NO_VALUE, rule, f"{way_out} or pass --on-bad skip", reason)

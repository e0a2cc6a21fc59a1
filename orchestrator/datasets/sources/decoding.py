"""Decoding: untrusted bytes to pixels, with few formats, early size checks and a rule for every colour mode.

Admitted are PNG, JPEG, WEBP and PGM/PPM of at most 32 MiB and 25 million pixels. 16-bit grey is scaled by
65535 (a plain conversion would saturate it); transparency is composited on black; EXIF rotation is applied;
CMYK and animations are refused.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from orchestrator.config.base import NO_VALUE
from orchestrator.datasets.sources.base import BadImage

FORMATS = ("PNG", "JPEG", "WEBP", "PPM")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")


def decode(data: bytes, name: str) -> np.ndarray:
    """Return an image file's pixels, (H, W, C) uint8 with C = 1 or 3; raise `BadImage` under `name`."""
    if not data:
        raise _bad("empty", name, "is empty", "replace it")
    if len(data) > MAX_BYTES:
        raise _bad("too large", name, f"has more than {MAX_BYTES} bytes", "shrink it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _decode(data, name)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name) from None
    except Image.UnidentifiedImageError:
        looks = "a web page" if data.lstrip()[:1] == b"<" else "no PNG, JPEG, WEBP or PGM image"
        raise _bad("not an image", name, f"is {looks}", "remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, Warning) as error:
        text = " ".join(str(error).split())
        raise _bad("damaged", name, f"is damaged ({text})", "replace it") from None


def _decode(data: bytes, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_many_pixels(name)
        if getattr(picture, "n_frames", 1) > 1:
            raise _bad("several frames", name, "has several frames", "save one as PNG")
        upright = ImageOps.exif_transpose(picture)
        pixels = _pixels(upright, name)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))


def _pixels(picture: Image.Image, name: str) -> np.ndarray:
    mode = picture.mode
    if mode in ("I;16", "I;16B", "I"):  # 16-bit PNG; a PGM with a maximum above 255, scaled to 65535, is "I"
        wide = np.asarray(picture).astype(np.float64)
        return np.rint(wide.clip(0, 65535) * (255 / 65535)).astype(np.uint8)
    if mode in ALPHA or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        return np.asarray(flat.convert("L" if mode in ("L", "LA", "La", "1") else "RGB"))
    if mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    if mode in ("P", "RGB"):
        return np.asarray(picture.convert("RGB"))
    raise _bad("unsupported mode", name, f"has colour mode {mode}", "save it as grey or RGB")


def _too_many_pixels(name: str) -> BadImage:
    rule = f"has more than {MAX_PIXELS // 10**6} million pixels"
    return _bad("too many pixels", name, rule, "shrink it")


def _bad(reason: str, name: str, rule: str, way_out: str) -> BadImage:
    return BadImage(name, NO_VALUE, rule, f"{way_out} or pass --on-bad skip", reason)

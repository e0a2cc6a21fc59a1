"""From untrusted bytes to pixels: few formats, size checked in the header, every mode decided on purpose.

Policy: PNG, JPEG, WEBP and PGM/PPM; at most 32 MiB and 25 million pixels; 16-bit grey is scaled by 65535
(a plain conversion would saturate it); transparency is laid on black; camera rotation is applied; CMYK and
pictures of several frames are refused.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from orchestrator.datasets.sources.base import BadImage

FORMATS = ("PNG", "JPEG", "WEBP", "PPM")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")


def decode(data: bytes, name: str) -> np.ndarray:
    """Return the picture as (H, W, C) uint8 with C = 1 or 3; `name` is what a message calls it."""
    if not data:
        raise BadImage("empty", f"{name} is empty; replace it or pass --on-bad skip.")
    if len(data) > MAX_BYTES:
        raise BadImage(
            "too large",
            f"{name} has more than {MAX_BYTES} bytes; shrink it or pass --on-bad skip.",
        )
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
        raise BadImage("not an image", f"{name} is {looks}; remove it or pass --on-bad skip.") from None
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, Warning) as error:
        text = " ".join(str(error).split())
        raise BadImage("damaged", f"{name} is damaged ({text}); replace it or pass --on-bad skip.") from None


def _decode(data: bytes, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_many_pixels(name)
        if getattr(picture, "n_frames", 1) > 1:
            raise BadImage(
                "several frames", f"{name} has several frames; save one as PNG or pass --on-bad skip."
            )
        upright = ImageOps.exif_transpose(picture)
        pixels = _pixels(upright, name)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))


def _pixels(picture: Image.Image, name: str) -> np.ndarray:
    mode = picture.mode
    if mode in (
        "I;16",
        "I;16B",
        "I",
    ):  # 16-bit PNG; PGM with a maximum above 255 arrives as "I" scaled to 65535
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
    raise BadImage(
        "unsupported mode", f"{name} has colour mode {mode}; save it as grey or RGB or pass --on-bad skip."
    )


def _too_many_pixels(name: str) -> BadImage:
    return BadImage(
        "too many pixels",
        f"{name} has more than {MAX_PIXELS // 10**6} million pixels; shrink it or pass --on-bad skip.",
    )

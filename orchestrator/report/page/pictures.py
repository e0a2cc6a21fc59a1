"""Pictures of the page: the report's PNG files as data URIs, small enough for one page."""

import base64
import io

from PIL import Image

MOST_BYTES = 300_000  # of a picture as it is; larger ones become JPEG
MOST_WIDTH = 1600
LIMIT = 3_000_000  # of all pictures of a page
QUALITY = 82


def embedded(content: bytes) -> str:
    """Return a PNG as a data URI: itself if it is small, else a JPEG of at most `MOST_WIDTH` pixels."""
    if len(content) <= MOST_BYTES:
        return _uri("png", content)
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        size = picture.size
        plain = picture.convert("RGB")
        if size[0] > MOST_WIDTH:
            plain = plain.resize((MOST_WIDTH, max(1, round(size[1] * MOST_WIDTH / size[0]))))
        file = io.BytesIO()
        plain.save(file, "JPEG", quality=QUALITY, optimize=True)
    return _uri("png", content) if len(file.getvalue()) > len(content) else _uri("jpeg", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

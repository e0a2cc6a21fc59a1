"""Pictures of the page: small ones as they are, large ones as JPEG."""

import base64
import io

import numpy as np
from PIL import Image

from orchestrator.metrics.pictures import encode_png
from orchestrator.report.page.pictures import MOST_BYTES, MOST_WIDTH, embedded


def test_a_small_picture_is_kept_and_a_large_one_shrinks() -> None:
    small = encode_png(np.full((8, 8, 3), 99, np.uint8))
    assert embedded(small) == f"data:image/png;base64,{base64.b64encode(small).decode()}"
    noise = np.random.default_rng(0).integers(0, 256, (300, 2 * MOST_WIDTH, 3), dtype=np.uint8)
    large = encode_png(noise)
    assert len(large) > MOST_BYTES
    kind, _, text = embedded(large).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        assert picture.size == (MOST_WIDTH, 150)

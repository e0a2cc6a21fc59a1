"""Image grids by hand: private images above their reconstructions, missing places white."""

import io

import numpy as np
import torch
from PIL import Image

from orchestrator.metrics.pictures import MIN_SIDE, encode_png, pair_grid, strip


def flat(*levels: int, channels: int = 1, side: int = 2) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, channels, side, side)


def test_a_strip_has_a_white_line_between_images_and_white_where_one_is_missing() -> None:
    row = strip(flat(0, 100), columns=3)
    assert row.shape == (2, 8, 3)
    assert row[0, :, 0].tolist() == [0, 0, 255, 100, 100, 255, 255, 255]


def test_colour_images_keep_their_channels_in_order() -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert strip(image, columns=1).tolist() == [[[10, 20, 30]]]


def test_reconstructions_stand_below_their_originals() -> None:
    grid = pair_grid(flat(10, 20), flat(110, 120))
    scale = grid.shape[0] // 4
    assert grid.shape == (4 * scale, 5 * scale, 3)
    assert grid.shape[1] >= MIN_SIDE
    small = grid[::scale, ::scale, 0]
    assert small[0].tolist() == [10, 10, 255, 20, 20]
    assert small[2].tolist() == [110, 110, 255, 120, 120]


def test_blocks_of_rows_have_two_white_lines_between() -> None:
    grid = pair_grid(flat(*range(10, 60, 10)), flat(*range(110, 160, 10)))  # 5 pairs in 4 columns
    scale = grid.shape[0] // 10
    small = grid[::scale, ::scale, 0]
    assert small.shape == (10, 11)
    assert small[4:6].min() == 255
    assert small[[0, 2, 6, 8], 0].tolist() == [10, 110, 50, 150]
    assert small[6, 3:].min() == 255


def test_png_is_lossless() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with Image.open(io.BytesIO(encode_png(picture))) as image:
        assert np.array_equal(np.asarray(image), picture)

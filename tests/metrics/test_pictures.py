"""Image grids by hand: private images above their reconstructions, missing places white."""

import io

import numpy as np
import torch
from PIL import Image

from orchestrator.metrics.pictures import MIN_SIDE, encode_png, pair_grid, sample_grid, strip


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


def plain(values: list[int], side: int = 2, channels: int = 1) -> torch.Tensor:
    """Return one image of each value, (n, channels, side, side) uint8."""
    shape = (len(values), channels, side, side)
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(shape).contiguous()


def test_a_strip_sets_images_side_by_side_with_a_white_line() -> None:
    row = strip(plain([10, 20]), 3)
    assert row.shape == (2, 3 * 3 - 1, 3)
    assert row[0, :, 0].tolist() == [10, 10, 255, 20, 20, 255, 255, 255]
    colours = torch.tensor([1, 2, 3], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert strip(colours, 1)[1, 1].tolist() == [1, 2, 3]


def test_pairs_fill_rows_of_their_columns() -> None:
    grid = pair_grid(plain([10, 20, 30]), plain([11, 21, 31]))
    scale = grid.shape[1] // 8
    small = grid[::scale, ::scale, 0]
    assert max(grid.shape) >= MIN_SIDE
    # three pairs fill one row and a half of two columns: ceil(sqrt(6)) = 3 columns
    assert small.tolist() == [
        [10, 10, 255, 20, 20, 255, 30, 30],
        [10, 10, 255, 20, 20, 255, 30, 30],
        [11, 11, 255, 21, 21, 255, 31, 31],
        [11, 11, 255, 21, 21, 255, 31, 31],
    ]


def test_rows_that_overflow_go_below_with_a_gap() -> None:
    grid = pair_grid(plain([10, 20, 30, 40], side=400), plain([11, 21, 31, 41], side=400))
    assert grid.shape == (4 * 400 + 2, 3 * 401 - 1, 3)  # large enough already: not enlarged
    assert (grid[0, 0, 0], grid[400, 0, 0], grid[800, 0, 0], grid[802, 0, 0], grid[1202, 0, 0]) == (
        10,
        11,
        255,
        40,
        41,
    )


def test_png_keeps_every_pixel() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


def test_samples_stand_row_after_row() -> None:
    grid = sample_grid(flat(10, 20, 30))
    scale = grid.shape[0] // 5
    small = grid[::scale, ::scale, 0]
    assert small.shape == (5, 5)
    assert small[0].tolist() == [10, 10, 255, 20, 20]
    assert small[2].tolist() == [255] * 5
    assert small[3].tolist() == [30, 30, 255, 255, 255]

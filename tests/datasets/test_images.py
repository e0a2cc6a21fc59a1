import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.datasets.images import convert, prepare

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 17, 23, 3), dtype=np.uint8)


def test_grey_is_bit_for_bit_what_pillow_computes() -> None:
    square = COLOUR[:, :16, :16]
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in square])
    assert np.array_equal(prepare(square, 16, 1)[:, 0].numpy(), expected)


@pytest.mark.parametrize("size", [8, 32])
def test_resizing_is_antialiased_bilinear_as_in_pillow(size: int) -> None:
    bilinear = Image.Resampling.BILINEAR
    expected = np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), bilinear)) for image in COLOUR]
    )
    ours = prepare(COLOUR, size, 3).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1  # Pillow rounds between its two passes


def test_images_of_the_right_size_are_untouched() -> None:
    images = COLOUR[:, :16, :16]
    assert np.array_equal(prepare(images, 16, 3).permute(0, 2, 3, 1).numpy(), images)


def test_grey_becomes_three_equal_channels() -> None:
    ready = prepare(COLOUR[..., :1], 16, 3)
    assert ready.shape == (5, 3, 16, 16)
    assert torch.equal(ready[:, 0], ready[:, 2])
    assert ready.is_contiguous()


def test_more_images_than_one_chunk_and_none_at_all() -> None:
    many = np.repeat(COLOUR[:1, :8, :8], 1500, axis=0)
    many[1400] = 0
    ready = prepare(many, 8, 1)
    assert ready.shape == (1500, 1, 8, 8)
    assert ready[1400].max() == 0
    assert prepare(many[:0], 8, 1).shape == (0, 1, 8, 8)


def test_read_only_arrays_are_accepted() -> None:
    images = COLOUR.copy()
    images.flags.writeable = False
    assert prepare(images, 8, 1).dtype == torch.uint8


def test_one_image_is_converted_like_a_batch() -> None:
    batch = prepare(COLOUR, 8, 1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(convert(COLOUR[2], 8, 1), batch[2])
    assert np.array_equal(convert(COLOUR[2], None, None), COLOUR[2])

"""Image priors, each against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from orchestrator.attacks import image_priors as priors


def image(*rows: list[float]) -> Tensor:
    """Return one grey image (1, 1, rows, columns)."""
    return torch.tensor([[rows]])


RAMP = image([0.0, 0.2, 0.4], [0.6, 0.8, 1.0], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("alpha", [1.0, 2.0, 6.0])
def test_alpha_norm_of_the_mean_free_image(alpha: float) -> None:
    symmetric = image([0.0, 0.5], [1.0, 0.5])  # mean 0.5
    assert priors.alpha_norm(symmetric, alpha).item() == pytest.approx(2 * 0.5**alpha)
    skewed = image([0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0])  # mean 0.25
    assert priors.alpha_norm(skewed, alpha).item() == pytest.approx(6 * 0.25**alpha + 2 * 0.75**alpha)


def test_alpha_norm_takes_each_channel_by_itself() -> None:
    flat_colours = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(priors.alpha_norm(flat_colours, 2.0), torch.zeros(2))


def test_alpha_norm_of_a_constant_image_has_no_slope() -> None:
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    priors.alpha_norm(flat, 1.0).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.zeros(1, 1, 4, 4))


def test_total_variation_by_hand() -> None:
    # right and down of each pixel: (.3, .4) (0, 0) / (0, .) (., .)
    picture = image([0.1, 0.4], [0.5, 0.4])
    squares = [0.09 + 0.16, 0.0, 0.01, 0.0]
    assert priors.total_variation(picture, 2.0).item() == pytest.approx(sum(squares))
    roots = sum(math.sqrt(square + 1e-8) for square in squares)
    assert priors.total_variation(picture, 1.0).item() == pytest.approx(roots)


def test_total_variation_is_a_sum_over_channels_and_one_for_each_image() -> None:
    picture = torch.cat([RAMP, torch.zeros(1, 1, 3, 3)])
    single = priors.total_variation(picture, 2.0)
    torch.testing.assert_close(priors.total_variation(picture.expand(2, 3, 3, 3), 2.0), 3 * single)
    assert single[1] == 0


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_total_variation_has_a_finite_slope_where_the_image_is_flat(beta: float) -> None:
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    priors.total_variation(flat, beta).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.zeros(1, 1, 4, 4))


def test_jitter_shifts_down_and_right_and_wraps() -> None:
    picture = image([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0])
    assert torch.equal(
        priors.jitter(picture, (1, -1)), image([8.0, 9.0, 7.0], [2.0, 3.0, 1.0], [5.0, 6.0, 4.0])
    )
    assert torch.equal(priors.jitter(picture, (0, 0)), picture)


def test_shifts_depend_on_seed_and_step_and_reach_both_ends() -> None:
    shifts = [priors.draw_shift(2, 0, step) for step in range(300)]
    assert shifts == [priors.draw_shift(2, 0, step) for step in range(300)]
    assert shifts != [priors.draw_shift(2, 1, step) for step in range(300)]
    assert set(shifts) == {(rows, columns) for rows in range(-2, 3) for columns in range(-2, 3)}
    assert priors.draw_shift(0, 0, 7) == (0, 0)


def test_blur_spreads_a_point_into_the_gaussian() -> None:
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1.0
    weights = torch.tensor([math.exp(-(i**2) / (2 * 0.5**2)) for i in range(-2, 3)])  # three widths: 1.5
    weights = weights / weights.sum()
    expected = torch.zeros(1, 1, 9, 9)
    expected[0, 0, 2:7, 2:7] = torch.outer(weights, weights)
    torch.testing.assert_close(priors.blur(point, 0.5), expected)


def test_blur_repeats_the_border_and_keeps_channels_apart() -> None:
    colours = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    torch.testing.assert_close(priors.blur(colours, 4.0), colours)  # wider than the image
    columns = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    blurred = priors.blur(columns, 0.3)  # one pixel on either side
    side = math.exp(-1 / 0.18) / (1 + 2 * math.exp(-1 / 0.18))
    torch.testing.assert_close(blurred, torch.tensor([0.0, side, 1 - side, 1.0]).expand(1, 1, 4, 4))


def test_denoise_takes_the_median_of_nine() -> None:
    # at the corner the border is repeated: 0 0 .2 0 0 .2 .6 .6 .8
    denoised = priors.denoise(RAMP)
    assert denoised[0, 0, 1, 1] == 0.5
    assert denoised[0, 0, 0, 0] == pytest.approx(0.2)
    speck = torch.zeros(1, 2, 5, 5)
    speck[0, 0, 2, 2] = 1.0
    assert torch.equal(priors.denoise(speck), torch.zeros(1, 2, 5, 5))


def test_sharpen_steepens_an_edge_and_stays_in_range() -> None:
    columns = torch.tensor([0.2, 0.2, 0.8, 0.8]).expand(1, 1, 4, 4)
    tail = math.exp(-1 / 0.18) / (1 + 2 * math.exp(-1 / 0.18))
    expected = torch.tensor([0.2, 0.2 - 0.6 * tail, 0.8 + 0.6 * tail, 0.8]).expand(1, 1, 4, 4)
    torch.testing.assert_close(priors.sharpen(columns, sigma=0.3), expected)
    strong = priors.sharpen(columns, amount=10.0)
    assert strong.min() == 0.0
    assert strong.max() == 1.0


def test_pixel_norms_and_contributions_join_the_channels() -> None:
    colour = torch.tensor([0.3, 0.4]).view(1, 2, 1, 1)
    torch.testing.assert_close(priors.pixel_norms(colour), torch.tensor([[[0.5]]]))
    slope = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(priors.contributions(colour, slope), torch.tensor([[[0.2]]]))
    torch.testing.assert_close(priors.contributions(colour, -slope), torch.tensor([[[0.2]]]))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, RAMP),
        (1 / 3, image([0.0, 0.0, 0.0], [0.6, 0.8, 1.0], [0.5, 0.5, 0.5])),
        (5 / 9, image([0.0, 0.0, 0.0], [0.6, 0.8, 1.0], [0.0, 0.0, 0.5])),  # ties: the left ones first
        (0.6, image([0.0, 0.0, 0.0], [0.6, 0.8, 1.0], [0.0, 0.0, 0.5])),  # 5.4 pixels
        (0.65, image([0.0, 0.0, 0.0], [0.6, 0.8, 1.0], [0.0, 0.0, 0.0])),  # 5.85, rounded
    ],
)
def test_clipping_takes_the_smallest_share(share: float, expected: Tensor) -> None:
    assert torch.equal(priors.clip_smallest(RAMP, priors.pixel_norms(RAMP), share), expected)


def test_clipping_counts_in_each_image_and_clears_all_channels() -> None:
    images = torch.ones(2, 3, 2, 2)
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[40.0, 30.0], [20.0, 10.0]]])
    clipped = priors.clip_smallest(images, values, 0.5)
    assert torch.equal(clipped[0, 1], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert torch.equal(clipped[1, 2], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))

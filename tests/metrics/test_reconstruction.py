"""Reconstruction metrics against values computed by hand."""

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from orchestrator.metrics import reconstruction


def mse(images: torch.Tensor, others: torch.Tensor) -> float:
    return float(reconstruction.mse(images, others).mean())


def psnr(images: torch.Tensor, others: torch.Tensor) -> float:
    return float(reconstruction.psnr(images, others).mean())


def ssim(images: torch.Tensor, others: torch.Tensor) -> float:
    return float(reconstruction.ssim(images, others).mean())


def noise(seed: int, shape: tuple[int, ...] = (3, 1, 32, 32)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_mse_is_the_mean_over_the_pixels_of_each_image() -> None:
    black = torch.zeros(2, 1, 16, 16)
    other = torch.stack([torch.full((1, 16, 16), 0.5), torch.zeros(1, 16, 16)])
    assert reconstruction.mse(black, other).tolist() == [0.25, 0.0]


def test_psnr_is_averaged_over_images_not_over_errors() -> None:
    black = torch.zeros(2, 1, 16, 16)
    other = torch.stack([torch.full((1, 16, 16), 0.1), torch.full((1, 16, 16), 1.0)])
    assert psnr(black, other) == pytest.approx(10.0)  # (20 dB + 0 dB) / 2; of the mean error it would be 2.97


def test_a_perfect_reconstruction_has_a_finite_psnr() -> None:
    images = noise(0)
    assert (mse(images, images), psnr(images, images)) == (0.0, 100.0)
    assert ssim(images, images) == pytest.approx(1.0)


def test_ssim_of_two_flat_images_is_the_luminance_term() -> None:
    dark, bright = torch.full((1, 1, 32, 32), 0.2), torch.full((1, 1, 32, 32), 0.8)
    expected = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    assert ssim(dark, bright) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", [(40, 1, 32, 32), (5, 3, 64, 64), (2, 3, 16, 24), (1, 1, 6, 7)], ids=str)
def test_ssim_is_that_of_the_library_in_double_precision(shape: tuple[int, ...]) -> None:
    images = noise(1, shape)
    for others in (noise(2, shape), (images + 0.1 * noise(3, shape)).clamp(0, 1), images, 1.0 - images):
        values = reconstruction.ssim(images, others)
        library = structural_similarity_index_measure(
            others.double(), images.double(), data_range=1.0, reduction="none"
        )
        assert isinstance(library, torch.Tensor)
        assert values.shape == shape[:1]
        assert torch.allclose(values, library.reshape(-1).float(), rtol=0.0, atol=1e-7)
        single = structural_similarity_index_measure(others, images, data_range=1.0, reduction="none")
        assert isinstance(single, torch.Tensor)
        assert torch.allclose(values, single.reshape(-1), rtol=0.0, atol=1e-6)


def test_ssim_is_the_mean_over_images() -> None:
    images, others = noise(1), noise(2)
    each = [ssim(images[i : i + 1], others[i : i + 1]) for i in range(3)]
    assert ssim(images, others) == pytest.approx(sum(each) / 3, abs=1e-6)


def test_less_noise_scores_better_on_all_three() -> None:
    images = noise(1, (4, 3, 64, 64))
    near, far = (images + 0.1 * noise(3, (4, 3, 64, 64))), noise(2, (4, 3, 64, 64))
    assert mse(images, near) < mse(images, far)
    assert psnr(images, near) > psnr(images, far)
    assert ssim(images, near) > ssim(images, far)


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\) must match images of shape \(3, 1, 32, 32\)"):
        mse(noise(1), noise(1)[:1])
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\) must match images of shape \(3, 1, 32, 32\)"):
        reconstruction.ssim(noise(1), noise(1)[:1])

"""BiDO: bilateral dependency optimisation (Peng et al., KDD 2022), `config.Bido`.

Adds sum over the tapped blocks j of lambda_x d(X, Z_j) - lambda_y d(Z_j, Y) to the loss, where X are
flattened pixels, Z_j flattened representations and Y one-hot labels of one batch. As in the released code the
kernel is Gaussian on X and Z, with a width that grows with the dimension, and linear on Y. Unlike there,
kernels stay on the device, and a linear system is solved instead of inverting a matrix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.config import Bido

FLAT = 1e-20
"""COCO's square roots have no gradient at 0: where ||K~_x K~_z||^2 is below this, d is 0 and passes none."""


def penalty(bido: Bido, images: Tensor, hidden: Sequence[Tensor], labels: Tensor, num_classes: int) -> Tensor:
    """Return BiDO's term of the loss of a batch, a float32 scalar.

    images (m, C, S, S), hidden representations (m, ...) of each block, labels (m,) of 0..num_classes-1.
    """
    with torch.autocast(images.device.type, enabled=False):
        on_labels = linear_kernel(functional.one_hot(labels, num_classes))
        on_rows = [gaussian_kernel(rows, bido.sigma) for rows in (images, *hidden)]
        # (2 + J, m, m): Y, X, then every Z_j
        operators = _operators(bido, torch.stack([on_labels, *on_rows]))
        y, x, z = operators[0], operators[1], operators[2:]
        terms = bido.weight_x * _agreement(bido, x, z) - bido.weight_y * _agreement(bido, z, y)
    return terms.sum()


def dependence(bido: Bido, first: Tensor, second: Tensor) -> Tensor:
    """Return d, a scalar, of two kernel matrices (m, m) of the same batch."""
    return _agreement(bido, _operators(bido, first), _operators(bido, second))


def gaussian_kernel(rows: Tensor, sigma: float) -> Tensor:
    """Return exp(-||a - b||^2 / (2 sigma^2 dimensions)) of all pairs of rows (m, ...), float32 (m, m)."""
    flat = rows.flatten(1).float()
    flat = flat - flat.mean(dim=0)  # the same distances, with smaller numbers to subtract
    squares = flat.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * flat @ flat.T).clamp_min(0)
    return torch.exp(-distances / (2 * sigma**2 * flat.shape[1]))


def linear_kernel(rows: Tensor) -> Tensor:
    """Return the inner products of all pairs of rows (m, ...), float32 (m, m)."""
    flat = rows.flatten(1).float()
    return flat @ flat.T


def _operators(bido: Bido, kernels: Tensor) -> Tensor:
    """Return the factors of d, from kernels (..., m, m): R = K~ (K~ + epsilon m I)^-1 with K~ = K H for
    hsic, K~ = H K H for coco. H subtracts the mean."""
    centred = kernels - kernels.mean(dim=-1, keepdim=True)
    if bido.kind == "coco":
        return centred - centred.mean(dim=-2, keepdim=True)
    size = kernels.shape[-1]
    ridge = bido.epsilon * size * torch.eye(size, device=kernels.device)
    # R from the left: a matrix commutes with its resolvent.
    # solve reads an error flag, for which the host waits; a singular matrix gives a loss that is not finite.
    return torch.linalg.solve_ex(centred + ridge, centred)[0]


def _agreement(bido: Bido, first: Tensor, second: Tensor) -> Tensor:
    """Return d of operators (..., m, m): sum(R_x * R_z^T) for hsic, sqrt(||K~x K~z||) / m for coco."""
    if bido.kind == "hsic":
        return (first * second.mT).sum(dim=(-2, -1))
    squares = (first @ second).square().sum(dim=(-2, -1))
    is_flat = squares < FLAT
    return squares.masked_fill(is_flat, 1.0).pow(0.25).masked_fill(is_flat, 0.0) / first.shape[-1]

"""BiDO: both dependences on 3x3 cases by hand and against explicit matrices, and the penalty's parts."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.config import Bido
from orchestrator.defenses.bido import dependence, gaussian_kernel, linear_kernel, penalty
from tests.models.operators import Operators

HSIC = Bido(kind="hsic", epsilon=1 / 3)  # so that the ridge of three images is 1
COCO = Bido(kind="coco")
LABELS = torch.tensor([0, 0, 1])
ON_LABELS = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def batch() -> tuple[Tensor, list[Tensor], Tensor]:
    """Return images, two hidden representations and labels of six images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, 4, 4, generator=generator)
    hidden = [torch.randn(6, *shape, generator=generator) for shape in ((3, 2, 2), (5,))]
    return images, hidden, torch.tensor([0, 1, 2, 0, 1, 1])


def explicit(bido: Bido, first: Tensor, second: Tensor) -> float:
    """Compute d of two kernels as it is printed, in double precision."""
    m = len(first)
    centring = np.eye(m) - np.ones((m, m)) / m
    kernels = [kernel.double().numpy() for kernel in (first, second)]
    if bido.kind == "coco":
        x, z = (centring @ kernel @ centring for kernel in kernels)
        return math.sqrt(np.linalg.norm(x @ z)) / m
    operators = [
        kernel @ centring @ np.linalg.inv(kernel @ centring + bido.epsilon * m * np.eye(m))
        for kernel in kernels
    ]
    return float((operators[0] * operators[1].T).sum())


def test_the_gaussian_kernel_by_hand() -> None:
    """Rows 5 apart in 2 dimensions, sigma 5: exp(-25 / (2 * 25 * 2))."""
    kernel = gaussian_kernel(torch.tensor([[[0.0], [0.0]], [[3.0], [4.0]]]), 5.0)
    apart = math.exp(-0.25)
    torch.testing.assert_close(kernel, torch.tensor([[1.0, apart], [apart, 1.0]]))


def test_the_label_kernel_by_hand() -> None:
    assert torch.equal(linear_kernel(torch.tensor([[1, 0], [1, 0], [0, 1]])), ON_LABELS)


@pytest.mark.parametrize(
    ("bido", "first", "second", "expected"),
    [
        # H K H of the labels is 4/3 times the projection on (1, 1, -2); that of the identity is H.
        (HSIC, torch.eye(3), ON_LABELS, 1 / (1 + 1) * (4 / 3) / (4 / 3 + 1)),
        (HSIC, ON_LABELS, ON_LABELS, (4 / 7) ** 2),
        (HSIC, torch.eye(3), torch.eye(3), 2 * (1 / 2) ** 2),  # two directions are left beside (1, 1, 1)
        (COCO, torch.eye(3), ON_LABELS, math.sqrt(4 / 3) / 3),
        (COCO, ON_LABELS, ON_LABELS, (4 / 3) / 3),
        (COCO, torch.eye(3), torch.eye(3), 2**0.25 / 3),
    ],
)
def test_dependence_by_hand(bido: Bido, first: Tensor, second: Tensor, expected: float) -> None:
    torch.testing.assert_close(dependence(bido, first, second), torch.tensor(expected))
    torch.testing.assert_close(dependence(bido, second, first), torch.tensor(expected))


@pytest.mark.parametrize("bido", [HSIC, COCO, Bido(kind="hsic", epsilon=1e-3)])
def test_dependence_is_as_printed(bido: Bido) -> None:
    images, hidden, labels = batch()
    kernels = [gaussian_kernel(rows, 1.0) for rows in (images, *hidden)]
    kernels.append(linear_kernel(torch.nn.functional.one_hot(labels)))
    for first in kernels:
        for second in kernels:
            expected = torch.tensor(explicit(bido, first, second))
            torch.testing.assert_close(
                dependence(bido, first, second).double(), expected.double(), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("bido", [HSIC, COCO, Bido(kind="hsic")])
def test_a_constant_representation_depends_on_nothing_and_has_a_gradient(bido: Bido) -> None:
    constant = torch.full((3, 4), 0.3, requires_grad=True)
    value = dependence(bido, gaussian_kernel(constant, 5.0), ON_LABELS)
    assert value.item() == 0.0
    value.backward()
    assert constant.grad is not None
    assert constant.grad.tolist() == torch.zeros(3, 4).tolist()


@pytest.mark.parametrize("bido", [HSIC, COCO])
def test_neither_a_shift_nor_the_order_of_images_matters(bido: Bido) -> None:
    images, (hidden, _), _ = batch()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    pairs = [(images, hidden), (images + 2.0, hidden - 1.0), (images[order], hidden[order])]
    values = [dependence(bido, *(gaussian_kernel(rows, 1.0) for rows in pair)) for pair in pairs]
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])


def test_dependence_is_of_the_labels_that_a_representation_tells_apart() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    kernel = linear_kernel(torch.nn.functional.one_hot(labels))
    telling, other = torch.tensor([0.0, 9.0, 0.0, 9.0]), torch.tensor([0.0, 0.0, 9.0, 9.0])
    for bido in (HSIC, COCO):
        values = [dependence(bido, gaussian_kernel(rows[:, None], 5.0), kernel) for rows in (telling, other)]
        assert values[0] > 0.1
        assert values[1].abs() < 1e-3


@pytest.mark.parametrize("bido", [Bido(kind="hsic"), Bido(kind="coco", weight_x=5.0, weight_y=50.0)])
def test_the_penalty_adds_up_over_the_blocks(bido: Bido) -> None:
    images, hidden, labels = batch()
    x = gaussian_kernel(images, bido.sigma)
    y = linear_kernel(torch.nn.functional.one_hot(labels, 4))
    expected = torch.zeros(())
    for rows in hidden:
        z = gaussian_kernel(rows, bido.sigma)
        expected += bido.weight_x * dependence(bido, x, z) - bido.weight_y * dependence(bido, z, y)
    torch.testing.assert_close(penalty(bido, images, hidden, labels, 4), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["hsic", "coco"])
@pytest.mark.parametrize("labels", [[0, 1], [1, 1]])
def test_two_images_are_enough(kind: str, labels: list[int]) -> None:
    images, hidden, _ = batch()
    rows = hidden[0][:2].requires_grad_()
    value = penalty(Bido.model_validate({"kind": kind}), images[:2], [rows], torch.tensor(labels), 2)
    value.backward()
    assert value.isfinite()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["hsic", "coco"])
def test_mixed_precision_ends_at_the_representations(kind: str) -> None:
    """Under autocast the kernels are float32 all the same, and their gradient returns in bfloat16."""
    images, (hidden, _), labels = batch()
    bido = Bido.model_validate({"kind": kind})
    rounded = hidden.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = penalty(bido, images, [rounded], labels, 3)
    assert value.dtype == torch.float32
    assert torch.equal(value, penalty(bido, images, [hidden.bfloat16().float()], labels, 3))
    value.backward()
    assert rounded.grad is not None
    assert rounded.grad.dtype == torch.bfloat16


def test_the_host_does_not_wait_for_an_error_flag() -> None:
    images, hidden, labels = batch()
    with Operators() as operators:
        penalty(HSIC, images, hidden, labels, 3)
    assert "aten._linalg_solve_ex.default" in operators.names
    assert "aten._linalg_check_errors.default" not in operators.names


@pytest.mark.parametrize(("weights", "sign"), [((1.0, 0.0), 1), ((0.0, 1.0), -1)])
def test_descending_unlearns_images_and_learns_labels(weights: tuple[float, float], sign: int) -> None:
    images, hidden, labels = batch()
    bido = Bido(weight_x=weights[0], weight_y=weights[1], epsilon=0.01)
    rows = hidden[0].clone().requires_grad_()
    before = penalty(bido, images, [rows], labels, 3)
    assert before.sign() == sign
    before.backward()
    assert rows.grad is not None
    with torch.no_grad():
        assert penalty(bido, images, [rows - 0.1 * rows.grad], labels, 3) < before

"""Classification metrics: whether a classifier's largest logits contain the true class."""

from torch import Tensor


def is_among(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor | None:
    """Return for each row whether its label is among the k largest logits, (N,) float64 of 0 and 1.

    logits (N, classes), labels (N,) int64; higher means more leaks if the evaluation model judges
    reconstructions. None for k >= classes, where every row would be 1. Of equal logits the lower class index
    counts as larger.
    """
    if k >= logits.shape[1]:
        return None
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (order == labels[:, None]).any(dim=1).double()


def topk_accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float | None:
    """Return the share of rows of logits (N, classes) whose label (N,) is among the k largest, in [0, 1];
    None as `is_among`."""
    is_right = is_among(logits, labels, k)
    return None if is_right is None else float(is_right.mean())

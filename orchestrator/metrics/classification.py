"""How often a classifier is right, or a judge recognises the class behind a reconstruction."""

from torch import Tensor


def is_among(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor | None:
    """Return for each row whether its label is among the k largest logits, (N,) of 0.0 or 1.0; higher means
    more leaks (judge).

    logits (N, classes), labels (N,). None where it says nothing: k >= classes would always give 1. Among
    equal logits the lower class index counts as larger.
    """
    if k >= logits.shape[1]:
        return None
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (order == labels[:, None]).any(dim=1).double()


def topk_accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float | None:
    """Return the share of rows of `is_among`, in [0, 1]."""
    found = is_among(logits, labels, k)
    return None if found is None else float(found.mean())

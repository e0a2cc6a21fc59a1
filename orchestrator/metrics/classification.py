"""How often a classifier is right, or a judge recognises the class behind a reconstruction."""

from torch import Tensor


def topk_accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float | None:
    """Return the share of rows whose label is among the k largest logits, in [0, 1]; higher means more leaks
    (judge).

    logits (N, classes), labels (N,). None where it says nothing: k >= classes would always give 1. Among
    equal logits the lower class index counts as larger.
    """
    if k >= logits.shape[1]:
        return None
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    return float((order == labels[:, None]).any(dim=1).double().mean())

"""Label smoothing: any factor up to 1 (Struppek et al., ICLR 2024: negative ones defend), `config.Smoothing`.

Their code raises the factor from 0 after half of 100 epochs and jumps to its full value after three quarters;
here the line ends at its value.
"""

from torch import Tensor
from torch.nn import functional

from orchestrator.config import Smoothing


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Return (1 - alpha) * cross-entropy + alpha * mean over classes of -log p, a scalar mean over the batch.

    logits (N, k), labels (N,); torch's own label smoothing has alpha >= 0 only.
    """
    uniform = -logits.log_softmax(dim=1).mean()
    return (1 - alpha) * functional.cross_entropy(logits, labels) + alpha * uniform


def alpha_at(smoothing: Smoothing, epoch: int, epochs: int) -> float:
    """Return the factor of an epoch, 1..epochs: 0 until `start`, then linear, the full one from `full` on."""
    share = epoch / epochs
    if share <= smoothing.start:
        return 0.0
    if share >= smoothing.full:
        return smoothing.alpha
    return smoothing.alpha * (share - smoothing.start) / (smoothing.full - smoothing.start)

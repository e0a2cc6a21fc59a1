"""Label smoothing: any factor up to 1 (Struppek et al., ICLR 2024: negative ones defend), `config.Smoothing`.

Schedule: 0 until `start`, then a line to the factor at `full`, constant after; half and three quarters of 100
epochs are theirs. Their code divides the line's slope by the epochs from `start` to the last one, so that the
factor jumps from half of its value at `full`: `ramp: released`. Read in two copies of it, those of Trap-MID
(the jump) and of LoFt (the line).
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
    """Return the factor of an epoch, 1..epochs: 0 until `start`, then linear, the full one from `full` on, or
    after it where the ramp is the released one."""
    share = epoch / epochs
    if share <= smoothing.start:
        return 0.0
    is_released = smoothing.ramp == "released"
    if share > smoothing.full or (share == smoothing.full and not is_released):
        return smoothing.alpha
    end = 1.0 if is_released else smoothing.full
    return smoothing.alpha * (share - smoothing.start) / (end - smoothing.start)

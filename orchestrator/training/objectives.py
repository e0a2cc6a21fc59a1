"""Objectives of classifiers, surrogates and inverters: losses, held-out sums, choice of the best epoch."""

from torch import Tensor, nn
from torch.nn import functional

from orchestrator.training.loop import Objective, criterion


def classification() -> Objective:
    """Return the cross-entropy of logits (N, k) and labels (N,).

    The best epoch has the highest held-out accuracy, then the lowest loss.
    """

    def sums(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        return classification_sums(model(images).float(), labels)

    return Objective(
        criterion(functional.cross_entropy), sums, lambda means: (-means["accuracy"], means["loss"])
    )


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the summed cross-entropy and the number of right answers, of logits (N, k) and labels (N,)."""
    return {
        "loss": functional.cross_entropy(logits, labels, reduction="sum").item(),
        "accuracy": (logits.argmax(1) == labels).sum().item(),
    }


def distillation() -> Objective:
    """Return the cross-entropy of logits (N, k) against scores (N, k), to copy the model they are of."""

    def sums(model: nn.Module, images: Tensor, scores: Tensor) -> dict[str, float]:
        logits = model(images).float()
        return {
            "loss": functional.cross_entropy(logits, scores, reduction="sum").item(),
            "agreement": (logits.argmax(1) == scores.argmax(1)).sum().item(),
        }

    return Objective(criterion(functional.cross_entropy), sums, lambda means: (means["loss"],))


def reconstruction() -> Objective:
    """Return the per-pixel mean squared error of images (N, C, S, S) in [0, 1] (AMI, equation 10)."""

    def sums(model: nn.Module, inputs: Tensor, images: Tensor) -> dict[str, float]:
        return {"loss": squared_error_sum(model(inputs).float(), images)}

    return Objective(criterion(functional.mse_loss), sums, lambda means: (means["loss"],))


def squared_error_sum(reconstructions: Tensor, images: Tensor) -> float:
    """Return the sum over images (N, C, S, S) of the per-pixel mean squared error."""
    return (reconstructions - images).square().flatten(1).mean(1).sum().item()

"""Joint training: a malicious developer trains F and G together (AMI, Yang et al. 2019, section IV-C).

Minimises cross-entropy + lambda * reconstruction error (equations 3 and 11) over both networks with one
optimiser. The paper gives neither lambda nor the reduction of the square; both are settings. Positions of the
truncation are constants, kept scores pass the gradient of log p, clamped where p vanishes.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.encoder import encode_logs
from orchestrator.attacks.inverter import Inverter
from orchestrator.threat import largest
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import classification_sums, squared_error_sum


class Pair(nn.Module):
    """F and G as one network: images (N, C, S, S) in [0, 1] -> logits (N, k) and reconstructions."""

    def __init__(self, classifier: nn.Module, inverter: Inverter, m: int, is_renormalised: bool) -> None:
        super().__init__()
        self.classifier, self.inverter = classifier, inverter
        self.m, self.is_renormalised = m, is_renormalised

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits (N, k) and reconstructions (N, C, S, S) from the m largest scores."""
        logits = self.classifier(images).float()
        encoded = self.encode(logits)
        return logits, self.inverter.network(encoded).float()

    def encode(self, logits: Tensor) -> Tensor:
        """Encode the release of logits (N, k) as z, (N, k), without rounding, which has no gradient."""
        logs = logits.log_softmax(dim=1)
        kept = largest(logs, self.m) & (logs.exp() > 0)  # a score that vanishes is dropped, as on release
        if self.is_renormalised:
            logs = logs - logs.where(kept, -float("inf")).logsumexp(dim=1, keepdim=True)
        inverter = self.inverter
        policy, floor = inverter.zero_policy, inverter.log_floor
        return encode_logs(logs, kept, inverter.offset, policy, floor, inverter.encoding)


def objective(attack: config.JointAttack, num_pixels: int) -> Objective:
    """Return the joint loss of a `Pair` on images (N, C, S, S) and labels (N,); best is the lowest total.

    `num_pixels` is C * S * S, by which `reduction: sum` multiplies the mean squared error.
    """
    weight = attack.weight * (num_pixels if attack.reduction == "sum" else 1)

    def loss(model: Pair, images: Tensor, labels: Tensor) -> Tensor:
        logits, reconstructions = model(images)
        error = functional.mse_loss(reconstructions, images)
        return functional.cross_entropy(logits, labels) + weight * error

    def sums(model: Pair, images: Tensor, labels: Tensor) -> dict[str, float]:
        logits, reconstructions = model(images)
        return classification_sums(logits, labels) | {"mse": squared_error_sum(reconstructions, images)}

    def selection_key(means: Mapping[str, float]) -> tuple[float, ...]:
        return (means["loss"] + weight * means["mse"],)

    return Objective(loss, sums, selection_key)

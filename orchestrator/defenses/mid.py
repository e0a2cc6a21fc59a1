"""MID: a noisy information bottleneck in place of the head (Wang et al., AAAI 2021), `config.Mid`.

Features f -> linear -> (mu, s), half of their length each; t = mu + softplus(s - 5) * noise;
logits = linear(t). The divergence of t from a standard normal, times lambda, joins the loss. The 5, sampling
at inference and features without VGG16's batch norm after them are those of the released code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

SHIFT = 5.0  # of s, so that training starts with little noise: softplus(-5) = 0.0067

RELEASED = {
    **{"st_layer.": "head.bottleneck.", "fc_layer.": "head.logits."},
    "fc_layer.0.": "head.logits.",  # of IR networks, before a softmax
}
"""Prefixes of the head's names in released files -> ours."""


class MidHead(nn.Module):
    """Features (N, ...) -> logits (N, k); noise comes from torch's global generator."""

    def __init__(self, num_features: int, classes: int, noise_at_inference: bool = True) -> None:
        super().__init__()
        half = num_features // 2
        self.bottleneck = nn.Linear(num_features, 2 * half)
        self.logits = nn.Linear(half, classes)
        self.noise_at_inference = noise_at_inference
        self.divergence: Tensor | None = None
        """KL of the last batch, a float32 scalar with its gradient; None before the first."""

    def forward(self, features: Tensor) -> Tensor:
        """Sample the code of features (N, ...) and classify it, (N, k); training always adds noise."""
        mean, raw = self.bottleneck(features.flatten(1)).float().chunk(2, dim=1)
        deviation = functional.softplus(raw - SHIFT)
        self.divergence = divergence(mean, deviation)
        if self.training or self.noise_at_inference:
            return self.logits(mean + deviation * torch.randn_like(mean))
        return self.logits(mean)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return KL(N(mean, deviation^2) || N(0, 1)), summed over dimensions, averaged over the batch, a scalar.

    mean and deviation (N, d), deviation > 0.
    """
    terms = -0.5 * (1 + 2 * deviation.log() - mean.square() - deviation.square())
    return terms.sum(dim=1).mean()

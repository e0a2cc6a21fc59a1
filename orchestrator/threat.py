"""Threat model: scores as the target's service releases them (AMI, sections 4.2 and 4.3); black box, white
box, white box with features.

Scores are float32 even where training was in half precision, in which a softmax over hundreds of classes
leaves ties and exact zeros, and truncation would then depend on them.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from orchestrator import config


def as_scores(network: nn.Module, outputs: Tensor) -> Tensor:
    """Return a network's outputs (N, k) as scores: the softmax of logits, or what a service answered, which
    may have withheld some and so sums to less than 1."""
    return outputs if getattr(network, "returns_scores", False) else outputs.softmax(dim=1)


def truncate(scores: Tensor, m: int) -> Tensor:
    """Keep the m largest of each row at their positions, zero the others, do not renormalise.

    scores (N, k) -> float32 (N, k). Of equal scores the lower class index is kept, on every device.
    """
    scores = scores.float()
    return torch.where(largest(scores, m), scores, 0.0)


def largest(scores: Tensor, m: int) -> Tensor:
    """Mark the m largest entries of each row: (N, k) -> bool (N, k), ties to the lower class index.

    Raise `ValueError` if m is not in 1..k.
    """
    if not 1 <= m <= scores.shape[1]:
        raise ValueError(f"truncation m={m} must lie in 1..k={scores.shape[1]}.")
    if m == scores.shape[1]:
        return torch.ones_like(scores, dtype=torch.bool)
    # torch.topk promises nothing about which of several equal entries it returns; a stable sort does.
    order = scores.detach().argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :m], True)


def truncate_rows(scores: Tensor, lengths: Tensor) -> Tensor:
    """Truncate each row of scores (N, k) to its own length, (N,) int64 in 1..k; float32 (N, k)."""
    scores = scores.float()
    order = scores.detach().argsort(dim=1, descending=True, stable=True)  # ties as in `largest`
    is_kept = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
    return torch.where(torch.zeros_like(is_kept).scatter_(1, order, is_kept), scores, 0.0)


def released(scores: Tensor, release: config.Release) -> Tensor:
    """Turn full scores (N, k) into what the service publishes, float32 (N, k): truncated, renormalised,
    rounded, in this order, or the label alone. A shield has moved them before, image by image."""
    k = scores.shape[1]
    if release.labels_only:
        return largest(scores.float(), 1).float()
    published = truncate(scores, release.truncation or k)
    if release.renormalised:
        published = _renormalise(published)
    return published if release.decimals is None else published.round(decimals=release.decimals)


def _renormalise(scores: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros, which no softmax gives, stays one."""
    return scores / scores.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def released_length(classes: int, release: config.Release) -> int:
    """Return m: how many entries of each row a release of `classes` scores publishes."""
    return 1 if release.labels_only else release.truncation or classes


@final
class BlackBox:
    """A target model that answers queries with released scores and shows nothing else."""

    def __init__(
        self,
        network: nn.Module,
        release: config.Release,
        batch_size: int = 64,
        moves: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """`moves`: images (N, C, S, S) in [0, 1] and their full scores (N, k) -> the scores that are released
        from; a release with a shield needs it."""
        assert (moves is None) == (release.shield is None), "a shield moves scores, and nothing else does"
        self._network = network.to(memory_format=torch.channels_last)
        self._release = release
        self._batch_size = batch_size
        self._moves = moves
        self.num_queries = 0

    def query(self, images: Tensor) -> Tensor:
        """Return released scores, float32 (N, k), of images (N, C, S, S) in [0, 1], on the images' device."""
        self._network.eval()
        self.num_queries += len(images)
        with torch.inference_mode():
            batches = [self._answer(batch) for batch in images.split(self._batch_size)]
        # Joined outside, so that the answer is an ordinary tensor that an attack may train on.
        return torch.cat(batches).to(images.device)

    def _answer(self, images: Tensor) -> Tensor:
        device = next(self._network.parameters()).device
        with torch.autocast(device.type, enabled=False):
            inputs = images.to(device, torch.float32, memory_format=torch.channels_last)
            scores = as_scores(self._network, self._network(inputs))
        if self._moves is not None:
            scores = self._moves(inputs, scores)
        return released(scores, self._release)


class WhiteBox:
    """A target model whose weights the adversary holds: logits that can be differentiated by the images.

    The network is the box's from then on: its parameters stop requiring gradients for good, so that an
    attack neither computes nor leaves any. Hand over a network that was loaded for this.
    """

    def __init__(self, network: nn.Module) -> None:
        # Channels last, as in training: 1.7 times as fast to differentiate on a CPU (ami-digit, width 0.25).
        self._network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.num_queries = 0

    @property
    def device(self) -> torch.device:
        """Where the network is, and where an attack works without copying."""
        return next(self._network.parameters()).device

    def logits(self, images: Tensor) -> Tensor:
        """Return logits, float32 (N, k), of images (N, C, S, S) in [0, 1], on the images' device.

        Every image counts as one query at every forward pass.
        """
        self._network.eval()
        self.num_queries += len(images)
        with torch.autocast(self.device.type, enabled=False):
            logits = self._network(images.to(self.device, torch.float32))
        return logits.to(images.device, torch.float32)


@final
class FeatureBox(WhiteBox):
    """A white box whose adversary reads the penultimate features too: what a `Classifier`'s head reads."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self._classifier = network

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, float32 (N, k), and features, flattened, float32 (N, d), of images (N, C, S, S) in
        [0, 1], on the images' device; both can be differentiated by the images.

        Both are of one forward pass, in which every image counts as one query.
        """
        self._classifier.eval()
        self.num_queries += len(images)
        with torch.autocast(self.device.type, enabled=False):
            features = self._classifier.features(images.to(self.device, torch.float32))
            logits = self._classifier.head(features)
        return logits.to(images.device, torch.float32), features.flatten(1).to(images.device, torch.float32)

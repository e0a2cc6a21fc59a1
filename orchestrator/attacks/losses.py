"""What AMI leaves as future work: other losses for the inverter G (Yang et al. 2019, sections II-B, IV-B).

Adversarial loss (equation 7): the discriminator ascends on it and G descends, in one optimiser step; a
reversed gradient between the two makes that one loss. Feature loss (Dosovitskiy and Brox 2016): the squared
distance between features of a comparator, here the adversary's own surrogate of the victim. Total variation:
equation 5 with beta 2. The best epoch is the one of the lowest held-out loss without the adversarial part,
which has no minimum.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.image_priors import total_variation
from orchestrator.models.classifier import Classifier
from orchestrator.training.objectives import Objective, squared_error_sum


class Rival(nn.Module):
    """An inverter's network and the discriminator that is trained against it."""

    def __init__(self, network: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.network, self.discriminator = network, discriminator

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct as the network does."""
        return self.network(inputs)


def objective(losses: config.Losses, surrogate: Classifier | None) -> Objective:
    """Return the squared error plus what `losses` asks for; a `Rival` is trained where it is adversarial."""

    def smooth(guesses: Tensor, images: Tensor) -> Tensor:
        total = functional.mse_loss(guesses, images)
        if losses.features and surrogate is not None:
            total = total + losses.features * feature_distance(surrogate, guesses, images)
        if losses.total_variation:
            total = (
                total + losses.total_variation * total_variation(guesses, 2.0).mean() / guesses[0, 0].numel()
            )
        return total

    def loss(model: Any, inputs: Tensor, images: Tensor) -> Tensor:
        guesses = model(inputs).float()
        total = smooth(guesses, images)
        if losses.adversarial:
            total = total + adversarial(model.discriminator, guesses, images, losses.adversarial)
        return total

    def sums(model: Any, inputs: Tensor, images: Tensor) -> dict[str, float]:
        guesses = model(inputs).float()
        total = smooth(guesses, images).item() * len(images)
        return {"loss": squared_error_sum(guesses, images), "total": total}

    return Objective(loss, sums, lambda means: (means["total"],))


def adversarial(discriminator: nn.Module, guesses: Tensor, images: Tensor, weight: float) -> Tensor:
    """Return -(mean log D(x) + mean log(1 - D(G(z)))), equation 7: descending on it trains D, while G feels
    `weight` times the opposite gradient."""
    real = discriminator(images).float()
    fake = discriminator(_Reversed.apply(guesses, weight)).float()
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    on_real = functional.binary_cross_entropy_with_logits(real, ones)
    return on_real + functional.binary_cross_entropy_with_logits(fake, zeros)


def feature_distance(surrogate: Classifier, guesses: Tensor, images: Tensor) -> Tensor:
    """Return the mean squared distance between the surrogate's features of both, a scalar."""
    with torch.no_grad():
        wanted = surrogate.features(images).float()
    return functional.mse_loss(surrogate.features(guesses).float(), wanted)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and weighted."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return -ctx.weight * gradient, None

"""Inverter losses: the other losses that AMI leaves as future work (Yang et al. 2019, sections II-B, IV-B).

Adversarial loss (equation 7): a discriminator ascends on it and the inverter G descends, both from the same
forward pass, each with an optimiser of its own; G's non-saturating form is Goodfellow et al.'s (2014, section
3). Feature loss (Dosovitskiy and Brox 2016): the squared
distance between features of a comparator, here the adversary's own surrogate of the target. Total variation:
equation 5 with beta 2. The best epoch is the one of the lowest held-out loss without the adversarial part,
which has no minimum.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.image_priors import total_variation
from orchestrator.config.attacks import AdversarialForm
from orchestrator.models.classifier import Classifier
from orchestrator.training.loop import Objective
from orchestrator.training.objectives import squared_error_sum
from orchestrator.training.optimizers import Descent, joint_state, load_joint_state
from orchestrator.training.world import World


class Rival(nn.Module):
    """An inverter's network and the discriminator that is trained against it."""

    def __init__(self, network: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.network, self.discriminator = network, discriminator

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1], as the network does."""
        return self.network(inputs)


def objective(losses: config.Losses, surrogate: Classifier | None) -> Objective:
    """Return the squared error plus what `losses` asks for, of images (N, C, S, S) in [0, 1].

    With an adversarial weight the model must be a `Rival`. `surrogate` is needed for the feature loss.
    """

    def smooth(reconstructions: Tensor, images: Tensor) -> Tensor:
        total = functional.mse_loss(reconstructions, images)
        if losses.features and surrogate is not None:
            total = total + losses.features * feature_distance(surrogate, reconstructions, images)
        if losses.total_variation:
            variation = total_variation(reconstructions, 2.0).mean()
            total = total + losses.total_variation * variation / reconstructions[0, 0].numel()
        return total

    def loss(model: Any, inputs: Tensor, images: Tensor) -> Tensor:
        return smooth(model(inputs).float(), images)

    def sums(model: Any, inputs: Tensor, images: Tensor) -> dict[str, float]:
        reconstructions = model(inputs).float()
        total = smooth(reconstructions, images).item() * len(images)
        return {"loss": squared_error_sum(reconstructions, images), "total": total}

    plain = Objective(loss, sums, lambda means: (means["total"],))
    if not losses.adversarial:
        return plain
    weight, form = losses.adversarial, losses.adversarial_form
    return replace(plain, step=partial(AdversarialStep, smooth=smooth, weight=weight, form=form))


class AdversarialStep:
    """Both networks' steps on a batch: the discriminator's down its loss; the inverter's down its smooth loss
    and, times `weight`, up the discriminator's loss or, non-saturating, down -mean log D(G(z)).

    Both optimisers follow the same recipe, and neither sees the other's new weights before the next batch.
    """

    def __init__(
        self,
        model: Rival,
        objective: Objective,
        recipe: config.Recipe,
        world: World,
        *,
        smooth: Callable[[Tensor, Tensor], Tensor],
        weight: float,
        form: AdversarialForm = "minimax",
    ) -> None:
        self.losses, self.world, self.weight = world.wrap(_Losses(model, smooth, form)), world, weight
        inverter, discriminator = model.network, model.discriminator
        rates = {inverter.get_parameter(name): rate for name, rate in objective.own_rates.items()}
        self.descents = {
            "inverter": Descent(inverter.parameters(), recipe, rates=rates),
            "discriminator": Descent(discriminator.parameters(), recipe),
        }

    def begin(self, epoch: int, epochs: int) -> None:
        """Set both learning rates."""
        for descent in self.descents.values():
            descent.begin(epoch)

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Step with both networks; return the sum of the smooth and the discriminator's loss."""
        with self.world.autocast():
            smooth, rivalry, fooling, reconstructions, shown = self.losses(inputs, outputs)
        for descent in self.descents.values():
            descent.clear()
        # By the reconstructions alone: no parameter gets a gradient of it.
        pulls = None if fooling is None else torch.autograd.grad(fooling, shown)[0]
        # The wrapped module averages both gradients over the workers, in the buckets of one backward pass.
        rivalry.backward()
        pull = -self.weight * shown.grad if pulls is None else self.weight * pulls
        torch.autograd.backward((smooth, reconstructions), (None, pull))
        for descent in self.descents.values():
            descent.optimizer.step()
        return {"loss": (smooth + rivalry).detach()}

    def state(self) -> dict[str, Tensor]:
        """Return the state of both optimisers."""
        return joint_state(self.descents)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state of both optimisers; raise `ValueError` if it is of others."""
        load_joint_state(self.descents, tensors)


class _Losses(nn.Module):
    """Both losses of a batch as one module, so that the workers' gradients are averaged."""

    def __init__(
        self, model: Rival, smooth: Callable[[Tensor, Tensor], Tensor], form: AdversarialForm
    ) -> None:
        super().__init__()
        self.model, self.smooth, self.form = model, smooth, form

    def forward(self, inputs: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """Return both losses, G's non-saturating one if it has that, and the reconstructions (N, C, S, S)
        that the first and that the other two are of."""
        reconstructions = self.model(inputs).float()
        shown = reconstructions.detach().requires_grad_()
        smooth = self.smooth(reconstructions, images)
        rivalry = adversarial(self.model.discriminator, shown, images)
        is_minimax = self.form == "minimax"
        fooling = None if is_minimax else non_saturating(self.model.discriminator, shown)
        return smooth, rivalry, fooling, reconstructions, shown


def adversarial(discriminator: nn.Module, reconstructions: Tensor, images: Tensor) -> Tensor:
    """Return -(mean log D(x) + mean log(1 - D(G(z)))), equation 7, for the discriminator to descend on.

    Reconstructions and images (N, C, S, S) in [0, 1] -> a float32 scalar.
    """
    real = discriminator(images).float()
    fake = discriminator(reconstructions).float()
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    on_real = functional.binary_cross_entropy_with_logits(real, ones)
    return on_real + functional.binary_cross_entropy_with_logits(fake, zeros)


def non_saturating(discriminator: nn.Module, reconstructions: Tensor) -> Tensor:
    """Return -mean log D(G(z)) of reconstructions (N, C, S, S) in [0, 1], a float32 scalar for G to descend
    on."""
    fake = discriminator(reconstructions).float()
    return functional.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def feature_distance(surrogate: Classifier, reconstructions: Tensor, images: Tensor) -> Tensor:
    """Return the mean squared distance between the surrogate's features of both, a float32 scalar."""
    with torch.no_grad():
        wanted = surrogate.features(images).float()
    return functional.mse_loss(surrogate.features(reconstructions).float(), wanted)

"""Prior: training of a generator of public images against a critic, for attacks that search its latents.

wgan-gp: GMI (Zhang et al., CVPR 2020) as released: on each batch one critic step on the Wasserstein loss plus
10 times the gradient penalty of Gulrajani et al. (2017), on every fifth batch, counted over the epochs, one
generator step; Adam 2e-4, betas 0.5 and 0.999, batches of 64. Here the last, smaller batch of an epoch is
trained on too, and a share of the images is held out, on which the critic is tested.
hinge: the hinge loss of Miyato et al. (ICLR 2018) on a critic with spectral norms, one critic step for each
generator step; the prior is the moving average of the generator's weights, and the critic sees real and
generated images augmented alike (Zhao et al., NeurIPS 2020).
`inversion_prior` (KEDMI) and `conditional_prior` (PLG-MI) train by the same step.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.config import Prior, Recipe
from orchestrator.models.build import AnyGenerator
from orchestrator.training.augmentation import augmentation
from orchestrator.training.loop import Objective, batch_sizes
from orchestrator.training.optimizers import Descent, joint_state, load_joint_state
from orchestrator.training.world import World

BATCHES = "batches"  # name in the state of the number of batches done


class Adversaries(nn.Module):
    """A generator, the critic that it is trained against, and the average of the generator's weights.

    `average` is the prior: latents (N, `latent_size`), and classes (N,) where it is conditional -> images
    (N, C, S, S) in [0, 1].
    """

    def __init__(self, generator: AnyGenerator, critic: nn.Module) -> None:
        super().__init__()
        self.generator: Any = generator
        self.critic: Any = critic
        self.average: Any = deepcopy(generator).requires_grad_(False)

    def generated(self, images: Tensor) -> Tensor:
        """Return as many generated images as there are `images` (N, C, S, S), from fresh latents."""
        made: Tensor = self.generator(self.latents(images))
        return made

    def latents(self, images: Tensor) -> Tensor:
        """Draw a latent from N(0, 1) for each image, (N, `latent_size`), on their device."""
        return torch.randn(len(images), self.generator.latent_size, device=images.device)


def objective(prior: Prior) -> Objective:
    """Return the objective of `Adversaries` on public images (N, C, S, S) in [0, 1]; outputs are not read.

    Its loss is the critic's. Held-out sums are the critic's outputs for real images and for as many of the
    averaged generator. The last epoch is kept, since neither loss has a minimum.
    """
    augment = augmentation(prior.augmentation)

    def loss(model: Adversaries, images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            generated = model.generated(images).float()
        real, fake = augment(torch.cat([images, generated])).chunk(2)
        return critic_loss(prior, model.critic, real, fake)

    def sums(model: Adversaries, images: Tensor, _: Tensor) -> dict[str, float]:
        fake = model.average(model.latents(images)).float()
        both = {"real": images, "fake": fake}
        return {name: model.critic(part).float().sum().item() for name, part in both.items()}

    def generator_loss(model: Adversaries, images: Tensor) -> Tensor:
        return -model.critic(augment(model.generated(images).float())).float().mean()

    step = partial(AdversarialStep, prior=prior, generator_loss=generator_loss)
    return Objective(loss, sums, lambda means: (0.0,), keeps_last=True, step=step)


class AdversarialStep:
    """A critic step down the objective's loss on every batch, a generator step down `generator_loss` (of the
    networks and the batch's images) on every `prior.critic_steps`-th, counted over the epochs, after which
    the average follows the generator."""

    def __init__(
        self,
        model: Adversaries,
        objective: Objective,
        recipe: Recipe,
        world: World,
        *,
        prior: Prior,
        generator_loss: Callable[[Adversaries, Tensor], Tensor],
    ) -> None:
        self.model, self.objective, self.prior, self.world = model, objective, prior, world
        self.generator_loss = generator_loss
        rates = {"generator": prior.learning_rate, "critic": prior.critic_learning_rate}
        adapt = partial(_with_betas, betas=prior.betas)
        self.descents = {
            name: Descent(model.get_submodule(name).parameters(), recipe.but(learning_rate=rate), adapt)
            for name, rate in rates.items()
        }
        self.num_batches = 0

    def begin(self, epoch: int, epochs: int) -> None:
        """Set both learning rates."""
        for descent in self.descents.values():
            descent.begin(epoch)

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Step with the critic and, if it is due, with the generator; return the critic's loss."""
        with self.world.autocast():
            loss = self.objective.loss(self.model, inputs, outputs)
        self.descents["critic"].descend(loss, self.world)
        self.num_batches += 1
        if self.num_batches % self.prior.critic_steps == 0:
            self._train_generator(inputs)
        return {"loss": loss.detach()}

    def _train_generator(self, inputs: Tensor) -> None:
        model = self.model
        with self.world.autocast():
            loss = self.generator_loss(model, inputs)
        self.descents["generator"].descend(loss, self.world)
        num_steps = self.num_batches // self.prior.critic_steps
        follow(model.average, model.generator, decay_after(num_steps, self.prior.average))

    def state(self) -> dict[str, Tensor]:
        """Return the state of both optimisers and the number of batches done."""
        return {**joint_state(self.descents), BATCHES: torch.tensor(self.num_batches)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `state`; raise `ValueError`, with nothing changed, if it is of another kind of step."""
        if BATCHES not in tensors:
            raise ValueError("it counts no batches, so it is not of a prior's training")
        load_joint_state(self.descents, {name: t for name, t in tensors.items() if name != BATCHES})
        self.num_batches = int(tensors[BATCHES])


def images_of_generator_steps(prior: Prior, num_pairs: int, workers: int) -> int:
    """Return how many images the generator makes in its own steps, of pairs that are trained on."""
    sizes = prior.epochs * batch_sizes(num_pairs, prior.batch_size, workers)
    return sum(sizes[prior.critic_steps - 1 :: prior.critic_steps])


def critic_loss(prior: Prior, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the critic's loss on real and generated images (N, C, S, S), a float32 scalar."""
    on_real, on_fake = critic(torch.cat([real, fake])).float().chunk(2)
    if prior.loss == "hinge":
        return hinge_loss(on_real, on_fake)
    return wasserstein_loss(on_real, on_fake) + prior.penalty * gradient_penalty(critic, real, fake)


def hinge_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Return mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z))) of the critic's outputs, (N,) each."""
    return (1.0 - on_real).relu().mean() + (1.0 + on_fake).relu().mean()


def wasserstein_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Return mean D(G(z)) - mean D(x) of the critic's outputs, (N,) each."""
    return on_fake.mean() - on_real.mean()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean over N of (||grad D|| - 1)^2, float32, at a random point between each pair of images.

    Images are (N, C, S, S); the point is real + a (fake - real), a uniform in [0, 1], one draw for each pair
    (Gulrajani et al. 2017, algorithm 1).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    with torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(real, fake, share).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (slopes.flatten(1).norm(dim=1) - 1.0).square().mean()


def decay_after(num_steps: int, decay: float) -> float:
    """Return the decay of the moving average after some generator steps, from 1: small at first, so that the
    first weights are soon forgotten."""
    return min(decay, (1.0 + num_steps) / (10.0 + num_steps))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move parameters and statistics to decay * average + (1 - decay) * network, in place; copy counters."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1.0 - decay)
        else:
            kept.copy_(new)


def _with_betas(optimizer: Optimizer, batch_size: int, *, betas: tuple[float, float]) -> Optimizer:
    for group in optimizer.param_groups:
        group["betas"] = betas
    return optimizer

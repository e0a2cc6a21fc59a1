"""Conditional prior: PLG-MI's GAN of the target's classes (Yuan et al., AAAI 2023; released code).

Pseudo labels: of each class the n public images that the target, in evaluation mode, gives its highest
scores, whatever their own top class. On these images x with their classes y,
L_D = mean max(0, 1 - D(x, y)) + mean max(0, 1 + D(G(z, c), c)), x with noise from [0, 1/256),
L_G = -mean D(G(z, c), c) + 0.2 mean L_inv(T(view of G(z, c)), c), z from N(0, I) of 128 numbers, c uniform,
L_inv the largest other logit minus that of the class, T the target in evaluation mode, always in float32,
views as in `crops` with colours changed in half of them. Five critic steps for each generator step, Adam
2e-4, betas 0 and 0.9, batches of 64, 30,000 generator steps; n is 30.

Differences: the generator's step follows the critic's five instead of preceding them; a share of the chosen
images is held out, on which the critic is tested. Released code tells the critic images in [0, 1] from a tanh
in [-1, 1] (`prior.output_range`), reseeds numpy from the clock, and shows FaceScrub's public images to the
target and to the GAN in different crops; here both see the same.
"""

from functools import partial

import torch
from torch import Tensor, nn

from orchestrator.attacks.crops import VIEW_NUMBERS, random_views
from orchestrator.attacks.prior import AdversarialStep, Adversaries, hinge_loss
from orchestrator.config import Prior
from orchestrator.training.augmentation import augmentation
from orchestrator.training.loop import Objective

NOISE = 1 / 256  # of real images
JITTER = 0.5  # share of views whose colours change


def chosen(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return positions and classes, (k n,) int64 each, of the n images with the highest score of each class.

    scores (M, k). Classes ascend, scores of each descend, of equal ones the first image is first; an image
    may serve several classes. With fewer than `number` images all are taken.
    """
    best = [one.argsort(descending=True, stable=True)[:number] for one in scores.unbind(dim=1)]
    return torch.cat(best), torch.arange(len(best)).repeat_interleave(len(best[0]))


def max_margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the largest other logit minus that of the class, (N,), of logits (N, k), k > 1, and classes
    (N,)."""
    is_own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, classes[:, None], True)
    own = logits.gather(1, classes[:, None])[:, 0]  # a mask as an index would wait for the device
    return logits.masked_fill(is_own, -torch.inf).amax(dim=1) - own


def objective(prior: Prior, teacher: nn.Module, num_classes: int) -> Objective:
    """Return the objective of `Adversaries` on images (N, C, S, S) in [0, 1] and their classes (N,) int64.

    `teacher`: the target in evaluation mode, images -> logits (N, num_classes); its weights require no
    gradient. Held-out sums are the critic's outputs for real images and for as many of the averaged
    generator, of the same classes. The last epoch is kept.
    """
    augment = augmentation(prior.augmentation)

    def generated(model: Adversaries, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return as many generated images as `images`, and their classes."""
        latents = model.latents(images)
        classes = torch.randint(num_classes, (len(images),), device=images.device)
        return model.generator(latents, classes).float(), classes

    def loss(model: Adversaries, images: Tensor, classes: Tensor) -> Tensor:
        with torch.no_grad():
            fake, of_fake = generated(model, images)
        shown = augment(torch.cat([images + NOISE * torch.rand_like(images), fake]))
        return hinge_loss(*model.critic(shown, torch.cat([classes, of_fake])).float().chunk(2))

    def generator_loss(model: Adversaries, images: Tensor) -> Tensor:
        fake, classes = generated(model, images)
        numbers = torch.rand(len(fake), VIEW_NUMBERS, device=fake.device)
        views = random_views(fake, numbers, jitter=JITTER)
        with torch.autocast(views.device.type, enabled=False):  # T's scores are float32 in every mode
            logits = teacher(views.float()).float()
        realness = model.critic(augment(fake), classes).float().mean()
        return prior.inversion_weight * max_margin(logits, classes).mean() - realness

    def sums(model: Adversaries, images: Tensor, classes: Tensor) -> dict[str, float]:
        both = {"real": images, "fake": model.average(model.latents(images), classes).float()}
        return {name: model.critic(part, classes).float().sum().item() for name, part in both.items()}

    step = partial(AdversarialStep, prior=prior, generator_loss=generator_loss)
    return Objective(loss, sums, lambda means: (0.0,), keeps_last=True, step=step)

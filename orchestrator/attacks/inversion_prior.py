"""Inversion prior: KEDMI's inversion-specific GAN (Chen et al., ICCV 2021, equations 2 to 4; released code).

The critic is a classifier of the target's k classes, how real an image is the log-sum-exp of its logits:
L_D = CE(D(x), T(x)) + 1/2 [mean softplus(lse D(x1)) - mean lse D(x1) + mean softplus(lse D(G(z)))],
L_G = mean over features |mean h(G(z)) - mean h(x2)| + 1e-4 H, with h the features before minibatch
discrimination and H the entropy of softmax D(G(z)), summed over the batch. One generator step for five of the
critic, Adam 2e-4, betas 0.5 and 0.999, batches of 64, 120 epochs.
Released code reads x, x1 and x2 from three shuffles of the public images; here x1 and x2 are drawn with
replacement. Its target labels x in training mode, which `prior.teacher_mode` may do; here it does so in
evaluation mode, once for all epochs; in float32 either way. Released code drops the last, smaller batch of an
epoch; here it is trained on too, with H summed over its images. Means and sums are of a whole batch: one
worker trains it.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from orchestrator.attacks.prior import AdversarialStep, Adversaries
from orchestrator.config import Prior
from orchestrator.training.augmentation import augmentation
from orchestrator.training.loop import Objective
from orchestrator.training.pairs import Rows, as_unit

ENTROPY = 1e-4  # weight of the entropy, summed over a batch


def objective(prior: Prior, public: Rows, teacher: nn.Module | None) -> Objective:
    """Return the objective of `Adversaries` on public images (N, C, S, S) and the target's scores (N, k).

    `public`, (M, C, S, S) uint8, are those that x1 and x2 are drawn from; with `teacher`, logits of images,
    scores are asked again for each batch, in training mode. Held-out sums are log-sum-exps of the critic's
    logits for real and for as many generated images. The last epoch is kept.
    """

    augment = augmentation(prior.augmentation)

    def drawn(images: Tensor) -> Tensor:
        rows = torch.randint(len(public), (len(images),))
        return augment(as_unit(public[rows].to(images.device)))

    def loss(model: Adversaries, images: Tensor, scores: Tensor) -> Tensor:
        with torch.no_grad():
            fake = model.generated(images).float()
            wanted = scores if teacher is None else taught(teacher, images)
        parts = (model.critic(part).float() for part in (augment(images), drawn(images), augment(fake)))
        return critic_loss(wanted, *parts)

    def generator_loss(model: Adversaries, images: Tensor) -> Tensor:
        features = model.critic.features(augment(model.generated(images).float()))
        with torch.no_grad():
            real = model.critic.features(drawn(images)).float()
        entropy = entropy_sum(model.critic.logits(features).float())
        return feature_matching(features.float(), real) + ENTROPY * entropy

    def sums(model: Adversaries, images: Tensor, _: Tensor) -> dict[str, float]:
        both = {"real": images, "fake": model.average(model.latents(images)).float()}
        return {name: realness(model.critic(part).float()).sum().item() for name, part in both.items()}

    step = partial(AdversarialStep, prior=prior, generator_loss=generator_loss)
    return Objective(loss, sums, lambda means: (0.0,), keeps_last=True, step=step)


def taught(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return the target's scores in training mode, float32 (N, k), of images (N, C, S, S) in [0, 1]; it
    always runs in float32."""
    with torch.autocast(images.device.type, enabled=False):
        scores: Tensor = teacher.train()(images.float()).float().softmax(dim=1)
    return scores


def realness(logits: Tensor) -> Tensor:
    """Return the log-sum-exp (N,) of logits (N, k): log of the odds that an image is real."""
    return logits.logsumexp(dim=1)


def critic_loss(scores: Tensor, labelled: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return L_D, a scalar, of the target's scores (N, k) and the critic's logits (N, k) for the images that
    it scored, for other public images, and for generated ones."""
    classes = -(scores * labelled.log_softmax(dim=1)).sum(dim=1).mean()
    on_real = softplus(realness(real)).mean() - realness(real).mean()
    return classes + 0.5 * (on_real + softplus(realness(fake)).mean())


def feature_matching(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean over features of the distance between the means of both sets, (N, d) each."""
    return (fake.mean(dim=0) - real.mean(dim=0)).abs().mean()


def entropy_sum(logits: Tensor) -> Tensor:
    """Return the entropy of the softmax of logits (N, k), in nats, summed over the batch."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum()

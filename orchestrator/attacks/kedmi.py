"""KEDMI: the mean and variance of latents of an inversion-specific prior (Chen et al., ICCV 2021).

min over mu and s of E softplus(-lse D(G(z))) + lambda CE(T(G(z)), y), z = mu + exp(s / 2) eps with eps from
N(0, I), drawn again in each step, D the prior's critic, whose log-sum-exp is how real an image is; no term on
mu and s. Authors' values: lambda 100, Adam 0.02 with betas 0.9 and 0.999, mu from 0, 2400 steps; TL-DMI (Ho
et al., Table 11) takes 3000, the default here. s begins at 1 (KEDMI's and LOMMA's code) or 0 (TL-DMI's, the
default). LOMMA's and TL-DMI's code clips z before G, KEDMI's does not: `clip`.

D compares the images of a batch with each other, which couples 60 identities in released code. Here each is
compared with as many fixed images of the prior as there were others (`beside`), so that rows are independent.
Released evaluation draws five images from one distribution (`candidates: released`); by default each
candidate has a search of its own.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.inversion_prior import realness
from orchestrator.attacks.latent import (
    Adam,
    GenerativePrior,
    Identity,
    LatentSearch,
    Method,
    class_logits,
    cross_entropies,
    normal_rows,
    of_logits,
)
from orchestrator.threat import WhiteBox
from orchestrator.training.seeds import derive_seed

BETAS = (0.9, 0.999)


def search(
    attack: config.KedmiAttack, target: WhiteBox, prior: GenerativePrior, identity: Identity | None = None
) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k).

    `identity` replaces the cross-entropy, weight included.
    """
    prior = prior.to(target.device)
    size = prior.generator.latent_size
    beside = _features_beside(attack, prior, target.device)

    def plausibility(images: Tensor) -> Tensor:
        logits = prior.critic.logits(prior.critic.features(images), beside)
        return attack.prior_weight * doubt(logits)

    method = Method(
        steps=attack.steps,
        start=partial(_start, size=size, log_variance=attack.log_variance),
        latents=partial(_drawn, attack=attack),
        is_drawn=True,
        identity=identity or of_logits(target, cross_entropies, attack.identity_weight),
        plausibility=plausibility,
        optimizer=Adam(attack.learning_rate, BETAS),
        project=lambda variable: variable,
        choice=class_logits,
    )
    return LatentSearch(method, target, prior)


def doubt(logits: Tensor) -> Tensor:
    """Return softplus(-lse) = ln(1 + 1 / sum of the exponentials) of the critic's logits (N, k), (N,)."""
    return functional.softplus(-realness(logits))


def reparametrised(variable: Tensor, noise: Tensor) -> Tensor:
    """Return z = mu + exp(s / 2) * noise, (..., d), of mu and s side by side, (..., 2 d)."""
    mean, log_variance = variable.chunk(2, dim=-1)
    return mean + (log_variance / 2).exp() * noise


def _start(classes: Tensor, *, size: int, log_variance: float) -> Tensor:
    """Return mu = 0 and s for each of classes (n,), (n, 1, 2 d)."""
    ends = torch.cat([torch.zeros(size), torch.full((size,), log_variance)])
    return ends.repeat(len(classes), 1, 1)


def _drawn(variable: Tensor, classes: Tensor, number: int, *, attack: config.KedmiAttack) -> Tensor:
    """Return the z (n, 1, d) of a step, by noise of the attack's seed, the class and the step."""
    size = variable.shape[-1] // 2
    noise = normal_rows(classes, (1, size), "kedmi", attack.seed, number).to(variable.device)
    z = reparametrised(variable, noise)
    return z if attack.clip is None else z.clamp(-attack.clip, attack.clip)


@torch.no_grad()
def _features_beside(attack: config.KedmiAttack, prior: GenerativePrior, device: torch.device) -> Tensor:
    """Return the critic's features of `attack.beside` generated images, (R, F)."""
    drawn = torch.Generator().manual_seed(derive_seed("kedmi", "beside", attack.seed))
    latents = torch.randn(attack.beside, prior.generator.latent_size, generator=drawn)
    features: Tensor = prior.critic.features(prior.generator(latents.to(device)))
    return features

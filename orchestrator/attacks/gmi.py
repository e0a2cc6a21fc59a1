"""GMI: generative model inversion (Zhang et al., CVPR 2020, equations 5 to 7; Ho et al., Table 11).

z* = argmin -D(G(z)) + lambda CE(T(G(z)), y) by Nesterov's momentum, z clipped to a cube after each step.
Authors' values: lambda 100, rate 0.02 (0.01 on MNIST), momentum 0.9, clip 1, 1500 steps, a batch of 100;
KEDMI's and LOMMA's code has 2400 steps, TL-DMI's 3000 with a batch of 60, which are the defaults here. The
first z is N(0, I) and not clipped; G and D are in evaluation mode.

Their loss is a mean over the batch, so that a row's step is proportional to 1 / batch: the setting
`identities` is that number, fixed, while any number of rows descend together. GMI's code keeps the best of
five restarts by the target's logit, the others count each restart: `restarts` is 1, and
`evaluation.candidates` asks for several images. Their best restart starts from a score of 0, so that classes
without a positive logit keep no image; here the best is the best.
"""

from functools import partial

import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks.latent import (
    GenerativePrior,
    Identity,
    LatentSearch,
    Method,
    Nesterov,
    class_logits,
    cross_entropies,
    normal_rows,
    of_logits,
)
from orchestrator.threat import WhiteBox


def search(
    attack: config.GmiAttack, target: WhiteBox, prior: GenerativePrior, identity: Identity | None = None
) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k).

    `identity` replaces the cross-entropy, weight included.
    """
    size = prior.generator.latent_size

    def plausibility(images: Tensor) -> Tensor:
        return (
            -attack.prior_weight * prior.critic(images)
            if attack.needs_critic
            else images.new_zeros(len(images))
        )

    method = Method(
        steps=attack.steps,
        start=lambda classes: normal_rows(classes, (attack.restarts, size), "gmi", attack.seed),
        identity=identity or of_logits(target, cross_entropies, attack.identity_weight),
        plausibility=plausibility,
        optimizer=Nesterov(attack.learning_rate, attack.momentum),
        project=partial(torch.clamp, min=-attack.clip, max=attack.clip),
        choice=class_logits,
        starts=attack.restarts,
        scale=1.0 / attack.identities,
    )
    return LatentSearch(method, target, prior)

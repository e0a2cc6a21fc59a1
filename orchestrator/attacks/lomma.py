"""LOMMA: an identity loss for attacks that search a prior (Nguyen et al., CVPR 2023).

L = mean over the target T and three students S_i of -logit_y + w mean over features of (f_T(x) - p)^2, times
the base attack's identity weight, with p the mean penultimate feature of T over public images. Authors'
values: w = 1, 100 for the whole, 2400 steps of 0.02, on GMI or KEDMI (z clipped to 1). Students:
EfficientNet-B0, -B1 and -B2 from ImageNet weights, KL(softmax T || softmax S) on the GAN's public images, T
in evaluation mode, SGD 0.01, momentum 0.9, weight decay 1e-4, 20 epochs of batches of 64. p is of the first
101 batches of 50 images in a random order. Variants: `logit`, T alone; `augmented`, cross-entropy of all
networks without the feature term, which in released code goes with logits only.

Differences: released code finds T among the networks by a loss that is still 0, so that the feature term
counts twice where T's is exactly 0; here it is T's. It draws p from a normal distribution and overwrites the
draw by the mean. It caches p and students by names of data set and model; here each belongs to the key of
one target. Students are kept at the epoch of the lowest held-out loss; released code keeps that after the
19th epoch under the name of the 20th. Its schedule of rates never acts in 20 epochs, and there is none here.
Means over a batch are sums over rows, weighted as the base attack does.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks.latent import GenerativePrior, Identity, cross_entropies
from orchestrator.threat import FeatureBox


def identity_loss(
    augmentation: config.Augmentation, weight: float, target: FeatureBox, prior: GenerativePrior
) -> Identity:
    """Return the identity loss, weighted, of the target and the prior's students and mean features."""
    prior = prior.to(target.device)
    each = OF_CLASS[augmentation.loss]
    mean = None if prior.features is None else prior.features.to(target.device)

    def identity(views: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = target.answers(views)
        every = (logits, *(student(views).float() for student in prior.students))
        losses = torch.stack([each(one, classes) for one in every]).mean(dim=0)
        if mean is not None:
            losses = losses + augmentation.feature_weight * (features - mean).square().mean(dim=1)
        return weight * losses, logits

    return identity


def minus_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """Return minus the logit (N,) of each row's class, of logits (N, k) and classes (N,)."""
    return -logits.gather(1, classes[:, None])[:, 0]


OF_CLASS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "full": minus_logits,
    "logit": minus_logits,
    "augmented": cross_entropies,
}
"""Value of `Augmentation.loss` -> the loss of one network, logits (N, k) and classes (N,) -> (N,)."""

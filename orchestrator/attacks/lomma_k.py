"""LOMMA-K: LOMMA's identity loss on KEDMI's descent (Nguyen et al., CVPR 2023); values in `lomma`.

KEDMI's prior, which learned from the same target, and its draws are kept: with the same seed it meets the
same noise as KEDMI. s begins at 1 and z is clipped before G, as released.
"""

from orchestrator import config
from orchestrator.attacks import kedmi
from orchestrator.attacks.latent import GenerativePrior, LatentSearch
from orchestrator.attacks.lomma import identity_loss
from orchestrator.threat import FeatureBox


def search(attack: config.LommaKAttack, target: FeatureBox, prior: GenerativePrior) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    identity = identity_loss(attack.identity, attack.identity_weight, target, prior)
    return kedmi.search(attack, target, prior, identity)

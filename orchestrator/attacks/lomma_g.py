"""LOMMA-G: LOMMA's identity loss on GMI's descent (Nguyen et al., CVPR 2023); values in `lomma`.

GMI's critic, momentum, clip and starts are kept: with the same seed it begins where GMI does. Five restarts
all count in print: `restarts` is 1, and `evaluation.candidates` asks for several images.
"""

from orchestrator import config
from orchestrator.attacks import gmi
from orchestrator.attacks.latent import GenerativePrior, LatentSearch
from orchestrator.attacks.lomma import identity_loss
from orchestrator.threat import FeatureBox


def search(attack: config.LommaGAttack, target: FeatureBox, prior: GenerativePrior) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    identity = identity_loss(attack.identity, attack.identity_weight, target, prior)
    return gmi.search(attack, target, prior, identity)

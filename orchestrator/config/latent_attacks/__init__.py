"""Attacks that search the latent space of a generative prior: their settings and traits, a file a family."""

from orchestrator.config.latent_attacks.base import LatentAttack
from orchestrator.config.latent_attacks.brepmi import BrepmiAttack
from orchestrator.config.latent_attacks.gmi import GmiAttack, KedmiAttack
from orchestrator.config.latent_attacks.lomma import LommaGAttack, LommaKAttack
from orchestrator.config.latent_attacks.mirror import MirrorAttack, MirrorBlackBoxAttack
from orchestrator.config.latent_attacks.plg_mi import PlgMiAttack
from orchestrator.config.latent_attacks.ppa import PpaAttack
from orchestrator.config.latent_attacks.vmi import VmiAttack

__all__ = [
    "LATENT_ATTACKS",
    "BrepmiAttack",
    "GmiAttack",
    "KedmiAttack",
    "LatentAttack",
    "LommaGAttack",
    "LommaKAttack",
    "MirrorAttack",
    "MirrorBlackBoxAttack",
    "PlgMiAttack",
    "PpaAttack",
    "VmiAttack",
]

LATENT_ATTACKS = (
    GmiAttack,
    KedmiAttack,
    PpaAttack,
    BrepmiAttack,
    MirrorAttack,
    PlgMiAttack,
    VmiAttack,
    MirrorBlackBoxAttack,
    LommaGAttack,
    LommaKAttack,
)
"""Attacks with a prior, in the order of the list of all attacks."""

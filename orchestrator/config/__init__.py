"""Specs: what a user writes of a sweep point and of a study. Pydantic and YAML only; never torch.

A spec says what is computed, never where or on how many machines. Every stage key is a digest of whole
sub-specs, so a field belongs in one exactly when it changes numbers. Names (data sets, models, attacks) are
plain strings: they are resolved when the stages are planned.
"""

from orchestrator.config.attack_spec import AttackSpec, Surrogate
from orchestrator.config.attacks import (
    ATTACK_SPECS,
    Attack,
    InverterAttack,
    JointAttack,
    Losses,
    MiaAttack,
    OptimizationAttack,
    attack_name,
)
from orchestrator.config.base import Model, Recipe, Seed, Spec
from orchestrator.config.data import Auxiliary, Data
from orchestrator.config.defenses import Bido, Defense, DpSgd, Erasing, Loft, Mid, Smoothing
from orchestrator.config.evaluation import Evaluation, Fisher, Judge, Judges, PublicNetworks, Recogniser
from orchestrator.config.latent_attacks import (
    BrepmiAttack,
    GmiAttack,
    KedmiAttack,
    LommaGAttack,
    LommaKAttack,
    MirrorAttack,
    MirrorBlackBoxAttack,
    PlgMiAttack,
    PpaAttack,
    VmiAttack,
)
from orchestrator.config.prior import Prior
from orchestrator.config.release import Release, Shield
from orchestrator.config.students import Augmentation, Student
from orchestrator.config.target import Pretrain, Target
from orchestrator.config.trial import TrialSpec

__all__ = [
    "ATTACK_SPECS",
    "Attack",
    "AttackSpec",
    "Augmentation",
    "Auxiliary",
    "Bido",
    "BrepmiAttack",
    "Data",
    "Defense",
    "DpSgd",
    "Erasing",
    "Evaluation",
    "Fisher",
    "GmiAttack",
    "KedmiAttack",
    "InverterAttack",
    "JointAttack",
    "Judge",
    "Judges",
    "Loft",
    "LommaGAttack",
    "LommaKAttack",
    "Losses",
    "MiaAttack",
    "Mid",
    "MirrorAttack",
    "MirrorBlackBoxAttack",
    "Model",
    "OptimizationAttack",
    "PlgMiAttack",
    "PpaAttack",
    "Pretrain",
    "Prior",
    "PublicNetworks",
    "Recipe",
    "Recogniser",
    "Release",
    "Seed",
    "Shield",
    "Smoothing",
    "Student",
    "Spec",
    "Surrogate",
    "Target",
    "TrialSpec",
    "VmiAttack",
    "attack_name",
]

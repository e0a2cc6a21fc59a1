"""Attacks by name: each is given what its threat model allows, never an evaluation model or a metric."""

from importlib import import_module

from torch import Tensor

from orchestrator import config
from orchestrator.attacks import inverter
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.attacks.row_search import AtOnce, Search
from orchestrator.threat import BlackBox, WhiteBox


def search(
    attack: config.AttackSpec,
    target: WhiteBox | BlackBox,
    *,
    m: int,
    shape: tuple[int, int, int],
    mean: Tensor | None = None,
    prior: GenerativePrior | None = None,
) -> Search:
    """Return the search of an image (C, S, S) for each row of released scores (N, k) of truncation m.

    `mean` is the mean image (C, S, S) in [0, 1] of an adversary who has images. The module of the attack's
    name, with _ for each -, has `search`, of attacks that need a prior, or else `invert`. Raise
    `ModuleNotFoundError` if there is none: an attack that leaves images has one.
    """
    module = import_module(f"{__name__}.{attack.name.replace('-', '_')}")
    if attack.needs_prior:
        found: Search = module.search(attack, target, prior)
        return found
    own = {} if mean is None else {"mean": mean}
    return AtOnce(lambda scores: module.invert(attack, target, scores, m, shape, **own))


def build_attack(
    attack: config.AttackSpec, *, classes: int, channels: int, image_size: int, named: Tensor | None = None
) -> inverter.Inverter:
    """Build the inverter that a spec names, untrained, for all classes or for those `named`, (n,) int64; of
    attacks that leave an inverter."""
    assert isinstance(attack, config.InverterAttack | config.JointAttack)
    return inverter.build(attack, classes=classes, channels=channels, image_size=image_size, named=named)

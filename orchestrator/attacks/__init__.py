"""Attacks by name. An attack sees released scores and its own images; it never sees a judge or a metric."""

from collections.abc import Callable

from orchestrator import spec
from orchestrator.attacks import inverter

ATTACKS: dict[str, Callable[..., inverter.Inverter]] = {"inverter": inverter.build}
"""Spec and shapes (classes, channels, image_size by keyword) -> an untrained adversary."""


def build_attack(attack: spec.Attack, *, classes: int, channels: int, image_size: int) -> inverter.Inverter:
    """Build the adversary that a spec names, untrained."""
    if attack.name not in ATTACKS:
        raise ValueError(f"attack.name={attack.name} is unknown; choose one of {', '.join(ATTACKS)}.")
    return ATTACKS[attack.name](attack, classes=classes, channels=channels, image_size=image_size)

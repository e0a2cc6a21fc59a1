"""Attacks by name. An attack sees what its threat model gives it; it never sees a judge or a metric."""

from collections.abc import Callable

from orchestrator import config
from orchestrator.attacks import inverter, mia, optimization
from orchestrator.attacks.pixel_search import Found

TRAINED: dict[str, Callable[..., inverter.Inverter]] = {
    "inverter": inverter.build,
    "joint": inverter.build,
}
"""Spec and shapes (classes, channels, image_size by keyword) -> an untrained inverter of scores."""

SEARCHED: dict[str, Callable[..., Found]] = {"mia": mia.invert, "optimization": optimization.invert}
"""Spec, white box, scores (N, k), their m and the image shape -> an image for each row."""


def build_attack(
    attack: config.InverterAttack | config.JointAttack, *, classes: int, channels: int, image_size: int
) -> inverter.Inverter:
    """Build the inverter that a spec names, untrained."""
    return TRAINED[attack.name](attack, classes=classes, channels=channels, image_size=image_size)

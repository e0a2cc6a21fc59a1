"""Inferred classes: what the recognition of class inference is compared by, from a trial's spec and metrics.

No stage records it, so that stored trials have it too.
"""

from collections.abc import Mapping

from orchestrator.config import TrialSpec
from orchestrator.metrics.floors import CLASSES, RECOGNISED, RECOGNISER_CHANCE


def inferred_classes(spec: TrialSpec, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return how many classes a trial's images are of and, beside a recogniser, how often its first choice
    among the target's classes is right by chance; nothing where no judge saw images of classes."""
    if str(RECOGNISED) not in metrics:
        return {}
    chosen = spec.evaluation.classes or range(spec.target.classes)
    chance = {RECOGNISER_CHANCE: 1.0 / spec.target.classes} if spec.judges.recogniser else {}
    return {CLASSES: float(len(chosen)), **chance}

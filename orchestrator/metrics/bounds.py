"""Bounds: which metrics of held-out photographs and of the attack's start stand beside those of the attack.

Photographs are the ceiling of what judges accept, the image that the attack starts from is the floor. Tables
show them as rows of their own below those of attacks. No torch.
"""

from orchestrator.metrics.names import CLASS, METRICS, MetricName

ATTACK = "attack"
LABELS = {"ceiling": "ceiling: held-out photographs", "floor": "floor: start, not optimised"}
"""Bound -> what its rows are called."""

IMAGES = "images"
"""Column: whose images a row is about, `attack` or a bound."""

RECOGNISER_TOP1 = "recogniser/accuracy"
"""How often a recogniser's first choice of a held-out photograph is right: the ceiling of that of images."""


def accepted(part: str, top: int = 1) -> MetricName:
    """Return the metric of what the trial's own judge accepts of a part, test, train or class, as its first
    choice or among its first `top` choices, 5."""
    return METRICS[f"judge_top{top}" if part == CLASS else f"accuracy_top{top}"].on(part)


def bound_of(part: str, bound: str) -> dict[str, str]:
    """Return metric of the attack at a part -> metric of a bound, ceiling or floor, beside it."""
    names = ("class_rank", "class_nearest")
    found = {str(accepted(part)): str(METRICS[f"{bound}_accepted"].on(part))}
    found |= {str(METRICS[name].on(part)): str(METRICS[f"{bound}_{name}"].on(part)) for name in names}
    recognised = {str(METRICS["recogniser_top1"].on(part)): RECOGNISER_TOP1} if bound == "ceiling" else {}
    return found | recognised

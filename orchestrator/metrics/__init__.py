"""Metrics by name: what a number means, for tables and plots."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Unit, and which way the number moves when more leaks; None where it measures utility."""

    unit: str
    leaks: Literal["up", "down"] | None


METRICS: dict[str, Metric] = {
    "mse": Metric("squared intensity, pixels in [0, 1]", "down"),
    "mse_mean": Metric("squared intensity to the class's mean training image", "down"),
    "mse_nearest": Metric("squared intensity to the class's nearest training image", "down"),
    "psnr": Metric("dB", "up"),
    "ssim": Metric("1, in [-1, 1]", "up"),
    "accuracy_top1": Metric("share in [0, 1]", "up"),
    "accuracy_top5": Metric("share in [0, 1]", "up"),
    "judge_top1": Metric("share of classes in [0, 1]", "up"),
    "judge_top5": Metric("share of classes in [0, 1]", "up"),
    "target_top1": Metric("share of classes in [0, 1]", "up"),
    "target_confidence": Metric("mean score in [0, 1]", "up"),
    "accuracy": Metric("share in [0, 1]", None),
}
"""Last part of a metric's name, as in `inversion/mse` -> its meaning. `accuracy` is a classifier's on its own
test images; `accuracy_top1` and `accuracy_top5` are the judge's on reconstructions, `judge_top1` and
`judge_top5` its on the images of classes, `target_top1` and `target_confidence` the victim's on these."""

PARTS = ("train", "test")

MEASURED = (
    "target/accuracy",
    "target/theta_c_millions",
    "target/theta_t_millions",
    "judge/accuracy",
    "predictions/images",
    "predictions/classes_seen",
    "predictions/classes_chao1",
    "predictions/shared_identities",
    "attack/queries",
    *(
        f"{stage}/{name}"
        for stage in ("target", "joint", "judge")
        for name in ("validation_loss", "validation_accuracy")
    ),
    "joint/validation_mse",
    *(f"{stage}/best_epoch" for stage in ("target", "joint", "judge", "surrogate", "inversion")),
    *(f"surrogate/validation_{name}" for name in ("loss", "agreement")),
    *(f"inversion/validation_{name}" for name in ("loss", "total")),
    *(f"optimization/{name}" for name in ("steps", "cost")),
    *(f"inversion/{name}_{part}" for name in ("mse", "psnr", "ssim") for part in PARTS),
    *(f"attack/accuracy_top{k}_{part}" for k in (1, 5) for part in PARTS),
    *(f"class/{name}" for name in ("mse_mean", "mse_nearest", "target_top1", "target_confidence")),
    *(f"class/judge_top{k}" for k in (1, 5)),
)
"""Every metric that a finished trial may have, by its full name; a pretrained one has `pretrain/...` too."""


def describe(metric: str) -> str:
    """Return unit and direction of a `stage/name` or `stage/name_part` metric, for titles."""
    name = metric.rsplit("/", 1)[-1].removesuffix("_test").removesuffix("_train")
    if name not in METRICS:
        return "no unit"
    known = METRICS[name]
    direction = {"up": "higher leaks more", "down": "lower leaks more", None: "utility"}[known.leaks]
    return f"{known.unit}; {direction}"

"""Metrics by name: what a number means, for tables and plots."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Unit, and which way the number moves when more leaks; None where it measures utility."""

    unit: str
    leaks: Literal["up", "down"] | None
    needs: str | None = None
    """Field of `evaluation.networks` that it needs; None: it is always measured."""


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
    "knn_distance": Metric("squared distance of judge features to the nearest training image", "down"),
    "centroid_distance": Metric("distance of judge features to the mean of the class", "down"),
    "delta_facenet": Metric("squared distance of FaceNet features", "down", "facenet"),
    "lpips_vgg": Metric("LPIPS to the nearest training image", "down", "vgg"),
    "lpips_alex": Metric("LPIPS to the nearest training image", "down", "alex"),
    "fid": Metric("Frechet distance of Inception features", "down", "inception"),
    "precision": Metric("share in [0, 1]", "up", "inception"),
    "recall": Metric("share in [0, 1]", "up", "inception"),
    "density": Metric("mean count over k, >= 0", "up", "inception"),
    "coverage": Metric("share in [0, 1]", "up", "inception"),
    "epsilon": Metric("privacy loss of DP-SGD", None),
    "early_share_classification": Metric("share of Fisher information in the first layers", None),
    **{
        f"early_share_{distance}": Metric("share of Fisher information in the first layers", None)
        for distance in ("l2", "l1")
    },
    "early_share_lpips-vgg": Metric("share of Fisher information in the first layers", None, "vgg"),
    "early_share_lpips-alex": Metric("share of Fisher information in the first layers", None, "alex"),
    "accuracy": Metric("share in [0, 1]", None),
}
"""Last part of a metric's name, as in `inversion/mse` -> its meaning. `accuracy` is a classifier's on its own
test images; `accuracy_top1` and `accuracy_top5` are the judge's on reconstructions, `judge_top1` and
`judge_top5` its on the images of classes, `target_top1` and `target_confidence` the victim's on these."""

PARTS = ("train", "test")

LIKENESS = (
    "knn_distance",
    "centroid_distance",
    "delta_facenet",
    "lpips_vgg",
    "lpips_alex",
    *("fid", "precision", "recall", "density", "coverage"),
)
"""Likeness of attack images to private ones in what networks see: `attack/NAME_PART` or `class/NAME`."""

MEASURED = (
    "target/accuracy",
    "target/theta_c_millions",
    "target/theta_t_millions",
    "target/epsilon",
    "pretrain/accuracy",
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
    *(f"attack/{name}_{part}" for name in ("target_confidence", *LIKENESS) for part in PARTS),
    *(f"class/{name}" for name in ("mse_mean", "mse_nearest", "target_top1", "target_confidence")),
    *(f"class/judge_top{k}" for k in (1, 5)),
    *(f"class/{name}" for name in LIKENESS),
    *(f"fisher/early_share_{name}" for name in ("classification", "l2", "l1", "lpips-vgg", "lpips-alex")),
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


UTILITY = "target/accuracy"
VICTIMS = ("snapshot", "target", "joint")  # the first of these that a trial has left the victim it attacks


@dataclass(frozen=True)
class ImageField:
    """Where a metric's values by image are."""

    stages: tuple[str, ...]  # the first of these that the trial has
    file: str
    field: str


def image_field(metric: str) -> ImageField | None:
    """Return where a metric's values by image are: `stage/name_part`, `class/name` or `target/accuracy`."""
    stage, _, name = metric.rpartition("/")
    if metric == UTILITY:
        return ImageField(VICTIMS, "accuracy_test.npy", "accuracy")
    if stage == "class":
        return ImageField(("evaluation",), "per_image_class.npy", name)
    for part in ("train", "test"):
        if name.endswith(f"_{part}"):
            return ImageField(("evaluation",), f"per_image_{part}.npy", name.removesuffix(f"_{part}"))
    return None


def measure(metric: str) -> str:
    """Return what is measured, without the stage and the part: the name in `METRICS`."""
    place = image_field(metric)
    return place.field if place else metric.rpartition("/")[2]

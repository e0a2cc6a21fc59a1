"""Metric names: the one table of metrics, and the type of full names such as `attack/knn_distance_test`.

A new metric is a row of `METRICS` and a function of this package. Validation, measuring, tables, plots and
the store's listing take names, units, directions and files from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, Self

from orchestrator.config.base import Refused

PARTS = ("test", "train")
"""Private images of the target that are reconstructed; the part that tables show comes first."""

CLASS = "class"
"""Stage and part of class inference, which makes one image for each class."""


JUDGEMENT = "judgement"
"""The stage in which a further judge judges the stored reconstructions."""

GUESSES = ("grey", "mean", "label", "bins", "nearest")
"""Yardsticks of reconstructions: what is guessed without training. `grey` is for adversaries without images,
the others for those with some."""

CLASS_GUESSES = ("grey", "label", "random")
"""Yardsticks of class inference, likewise."""


BOUNDS = ("ceiling", "floor")
"""What the evaluation model makes of held-out photographs, and of the image that the attack starts from."""


@dataclass(frozen=True)
class Metric:
    """What a number means and where it is reported."""

    name: str

    unit: str
    """Empty for counts and losses of training: tables and plots write `no unit`."""

    leaks: Literal["up", "down"] | None
    """Direction of the number when more leaks; None where it measures utility or effort."""

    of: Literal["image", "images", "stage"]
    """image: the mean of one value for each reconstruction, which are kept; images: one value for all
    reconstructions of a part; stage: one number of a stage, without parts."""

    stages: tuple[str, ...]
    """Texts before the slash. Metrics of reconstructions have the parts test and train under each of them but
    `class`."""

    needs: str | None = None
    """Field of `evaluation.networks` that it needs; None: it is always measured."""

    kept_by: str = "evaluation"
    """The stage that keeps the value of each image."""

    version: int = 1
    """Version of the stage `evaluation` since which reconstructions are measured like this. A new metric and
    a changed formula take the one after `evaluation_version()`, so that stored trials are measured again."""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of images or classes, in [0, 1]."""
        return self.unit.startswith("share")

    def parts(self, stage: str) -> tuple[str, ...]:
        """Return the parts that it has under a stage: none, `("",)`, `("class",)` or test and train."""
        if stage not in self.stages:
            return ()
        if self.of == "stage":
            return ("",)
        return (CLASS,) if stage == CLASS else PARTS

    def names(self) -> Iterator["MetricName"]:
        """Yield its full names."""
        for stage in self.stages:
            yield from (MetricName(stage, self, part) for part in self.parts(stage))

    def on(self, part: str) -> "MetricName":
        """Return its full name for the reconstructions of a part: test, train or class."""
        return next(name for name in self.names() if name.part == part)


_TRAINED = ("target", "joint", "judge", "pretrain")
_TESTED = ("target", "shield", "judge", "recogniser")
_SIMILAR = ("attack", CLASS)
_TO_MEAN = "squared intensity to the class's mean training image"
_PIXELS = "squared intensity, pixels in [0, 1]"
_FISHER = "share of Fisher information in the first layers"


def _yardstick(name: str, unit: str, stages: tuple[str, ...]) -> Metric:
    return Metric(name, unit, "down", "image", stages, kept_by="yardsticks")


def _recognised(name: str, unit: str, leaks: Literal["up", "down"]) -> Metric:
    return Metric(name, unit, leaks, "image", _SIMILAR, kept_by="recognition")


def _placed(name: str, unit: str, leaks: Literal["up", "down"] | None, stages: tuple[str, ...]) -> Metric:
    return Metric(name, unit, leaks, "image", stages, kept_by="retrieval")


_OVER_CHANCE = "(share - chance) / (1 - chance), at most 1"
_IMAGE_RANK = "expected rank, 1: the own image is the nearest of its class's"
_NEARER = "share of its class's other images that are nearer than the own one"
_CLASS_RANK = "rank, 1: the right class has the judge's largest score"
_NEAREST = "share whose nearest training image is of the right class"
_ROWS = (
    # Classifiers on test images of their own.
    Metric("accuracy", "share in [0, 1]", None, "stage", (*_TESTED, "pretrain")),
    Metric("epsilon", "privacy loss of DP-SGD", None, "stage", ("target",)),
    # Reconstructions beside the private images that they are of.
    Metric("mse", _PIXELS, "down", "image", ("inversion",)),
    Metric("psnr", "dB", "up", "image", ("inversion",)),
    Metric("ssim", "1, in [-1, 1]", "up", "image", ("inversion",)),
    # What the evaluation model and the target make of reconstructions.
    Metric("accuracy_top1", "share in [0, 1]", "up", "image", ("attack",)),
    Metric("accuracy_top5", "share in [0, 1]", "up", "image", ("attack",)),
    Metric("judge_top1", "share of classes in [0, 1]", "up", "image", (CLASS,), version=2),
    Metric("judge_top5", "share of classes in [0, 1]", "up", "image", (CLASS,), version=2),
    Metric("target_top1", "share of classes in [0, 1]", "up", "image", (CLASS,), version=2),
    Metric("target_confidence", "mean score in [0, 1]", "up", "image", _SIMILAR, version=3),
    # Of a further judge: whether it and the trial's own judge say the same of an image.
    Metric("agreement", "share of images in [0, 1]", None, "image", _SIMILAR, kept_by=JUDGEMENT),
    Metric("kappa", "Cohen's kappa, at most 1", None, "images", _SIMILAR),
    # Of a recogniser that others trained, by distance to the class's private images.
    _recognised("recogniser_accepted", "share of images in [0, 1]", "up"),
    _recognised("recogniser_top1", "share of images in [0, 1]", "up"),
    _recognised("recogniser_rank", "rank of the right class, 1 is the nearest", "down"),
    Metric("false_positives", "share of what the judge accepts, in [0, 1]", None, "images", _SIMILAR),
    Metric("threshold", "distance of descriptors", None, "stage", ("recogniser",)),
    Metric("false_accepts", "share of other persons' photographs", None, "stage", ("recogniser",)),
    Metric("false_rejects", "share of own photographs", None, "stage", ("recogniser",)),
    # Reconstructions beside the target's training images of their class, in pixels and in networks' features.
    Metric("mse_mean", _TO_MEAN, "down", "image", (CLASS,), version=2),
    Metric(
        "mse_nearest",
        "squared intensity to the class's nearest training image",
        "down",
        "image",
        (CLASS,),
        version=2,
    ),
    Metric(
        "knn_distance",
        "squared distance of judge features to the nearest training image",
        "down",
        "image",
        _SIMILAR,
        version=4,
    ),
    Metric(
        "centroid_distance",
        "distance of judge features to the mean of the class",
        "down",
        "image",
        _SIMILAR,
        version=4,
    ),
    Metric(
        "delta_facenet",
        "squared distance of FaceNet features",
        "down",
        "image",
        _SIMILAR,
        "facenet",
        version=3,
    ),
    Metric("lpips_vgg", "LPIPS to the nearest training image", "down", "image", _SIMILAR, "vgg", version=3),
    Metric("lpips_alex", "LPIPS to the nearest training image", "down", "image", _SIMILAR, "alex", version=3),
    Metric(
        "fid", "Frechet distance of Inception features", "down", "images", _SIMILAR, "inception", version=3
    ),
    Metric("precision", "share in [0, 1]", "up", "images", _SIMILAR, "inception", version=3),
    Metric("recall", "share in [0, 1]", "up", "images", _SIMILAR, "inception", version=3),
    Metric("density", "mean count over k, >= 0", "up", "images", _SIMILAR, "inception", version=3),
    Metric("coverage", "share in [0, 1]", "up", "images", _SIMILAR, "inception", version=3),
    # Where the own private image stands among those of its class, and the right class among all.
    Metric("retrieval_over_chance", _OVER_CHANCE, "up", "images", ("attack",)),
    _placed("retrieval_top1", "share in [0, 1]", "up", ("attack",)),
    _placed("retrieval_rank", _IMAGE_RANK, "down", ("attack",)),
    _placed("retrieval_nearer", _NEARER, "down", ("attack",)),
    _placed("retrieval_feature_top1", "share in [0, 1]", "up", ("attack",)),
    _placed("retrieval_feature_rank", _IMAGE_RANK, "down", ("attack",)),
    _placed("retrieval_feature_nearer", _NEARER, "down", ("attack",)),
    _placed("retrieval_chance", "share in [0, 1]", None, ("attack",)),
    _placed("class_rank", _CLASS_RANK, "down", _SIMILAR),
    _placed("class_nearest", _NEAREST, "up", _SIMILAR),
    # The same of photographs that neither F nor the judge was trained on, and of the image that the attack
    # starts from.
    *(
        _placed(f"{bound}_{name}", unit, None, _SIMILAR)
        for bound in BOUNDS
        for name, unit in (
            ("accepted", "share in [0, 1]"),
            ("class_rank", _CLASS_RANK),
            ("class_nearest", _NEAREST),
        )
    ),
    # The attack beside guesses without training and beside chance: of other metrics, in `skill.derived`.
    Metric(
        "skill", "1 - error / error of the best yardstick, at most 1", "up", "images", ("inversion", CLASS)
    ),
    Metric("over_chance", _OVER_CHANCE, "up", "images", _SIMILAR),
    Metric("over_floor", "(share - floor) / (1 - floor), at most 1", "up", "images", (CLASS,)),
    # Guesses without training: errors, and whether the evaluation model finds the class in those of classes.
    *(_yardstick(f"{guess}_mse", _PIXELS, ("yardstick",)) for guess in GUESSES),
    *(_yardstick(f"yardstick_{guess}_mse", _TO_MEAN, (CLASS,)) for guess in CLASS_GUESSES),
    *(
        replace(_yardstick(f"yardstick_{guess}_top1", "share of classes in [0, 1]", (CLASS,)), leaks="up")
        for guess in CLASS_GUESSES
    ),
    # What a recognition by chance gives, and the most frequent class on the test images of F and the judge.
    Metric("chance", "share in [0, 1]", None, "stage", ("yardstick",)),
    Metric("target_chance", "share in [0, 1]", None, "stage", ("yardstick",)),
    Metric("judge_chance", "share in [0, 1]", None, "stage", ("yardstick",)),
    Metric("recogniser_chance", "share in [0, 1]", None, "stage", ("yardstick",)),
    # Fisher information of layers.
    Metric("early_share_classification", _FISHER, None, "stage", ("fisher",)),
    Metric("early_share_l2", _FISHER, None, "stage", ("fisher",)),
    Metric("early_share_l1", _FISHER, None, "stage", ("fisher",)),
    Metric("early_share_lpips-vgg", _FISHER, None, "stage", ("fisher",), "vgg"),
    Metric("early_share_lpips-alex", _FISHER, None, "stage", ("fisher",), "alex"),
    # What training and searching leave.
    Metric("validation_accuracy", "", None, "stage", _TRAINED),
    Metric("validation_loss", "", None, "stage", (*_TRAINED, "surrogate", "student", "inversion")),
    Metric("validation_real", "", None, "stage", ("prior",)),
    Metric("validation_fake", "", None, "stage", ("prior",)),
    Metric("spread", "", None, "stage", ("prior",)),
    Metric("generated_fid", "", None, "stage", ("prior_quality",), "inception"),
    Metric("validation_agreement", "", None, "stage", ("surrogate", "student")),
    Metric("validation_mse", "", None, "stage", ("joint",)),
    Metric("validation_total", "", None, "stage", ("inversion",)),
    Metric("best_epoch", "", None, "stage", (*_TRAINED, "surrogate", "student", "inversion")),
    Metric("cost", "", None, "stage", ("optimization",)),
    Metric("steps", "", None, "stage", ("optimization",)),
    # Counts.
    Metric("queries", "", None, "stage", ("attack", "prior", "answers")),
    Metric("queries_beyond_release", "", None, "stage", ("attack",)),
    Metric("target_images", "", None, "stage", ("yardstick",)),
    Metric("judge_images", "", None, "stage", ("yardstick",)),
    Metric("classes_inferred", "", None, "stage", ("yardstick",)),
    Metric("images", "", None, "stage", ("predictions", "prior", "answers")),
    Metric("classes_estimated", "", None, "stage", ("attack",)),
    Metric("classes_seen", "", None, "stage", ("predictions",)),
    Metric("classes_chao1", "", None, "stage", ("predictions",)),
    Metric("shared_identities", "", None, "stage", ("predictions",)),
    Metric("theta_c_millions", "", None, "stage", ("target",)),
    Metric("theta_t_millions", "", None, "stage", ("target",)),
)

BY_FURTHER_JUDGES = ("agreement", "kappa")
"""Metrics that only further judges leave, under `attack.NAME` and `class.NAME`."""

BY_RECOGNISER = ("recogniser_accepted", "recogniser_top1", "recogniser_rank", "false_positives")
"""Metrics of reconstructions that a recogniser leaves."""

BY_JUDGES = ("accuracy_top1", "accuracy_top5", "judge_top1", "judge_top5", *BY_FURTHER_JUDGES)
"""Metrics of reconstructions that a further judge leaves."""

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}
"""Name -> row, the most telling first: a list of artifacts shows the first metric that one has."""


@dataclass(frozen=True)
class ImageFile:
    """Where values by image are kept: a structured array, a row for each image, with `label` and `field`."""

    stages: tuple[str, ...]
    """The first of these that the trial has keeps the file."""

    file: str
    field: str


@dataclass(frozen=True)
class MetricName:
    """A metric's full name: `stage/name`, `stage/name_part` or `class/name`."""

    stage: str
    metric: Metric
    part: str = ""

    def __str__(self) -> str:
        part = f"_{self.part}" if self.part in PARTS else ""
        return f"{self.stage}/{self.metric.name}{part}"

    @classmethod
    @cache
    def parse(cls, text: str, field: str = "metric") -> Self:
        """Return the name that a text spells; raise `Refused` of `field` if no stage leaves such a metric.

        A stage that a trial uses several times has its instance after a dot: `surrogate.b0/best_epoch`.
        """
        stage, _, rest = text.rpartition("/")
        family = stage.partition(".")[0]
        endings = {"": CLASS if family == CLASS else ""} | {f"_{part}": part for part in PARTS}
        for ending, part in endings.items():
            metric = METRICS.get(rest.removesuffix(ending)) if rest.endswith(ending) else None
            if metric and part in metric.parts(family):
                return cls(stage, metric, part)
        raise Refused(field, text, "is not measured", f"choose from {', '.join(measured())}")

    @property
    def instance(self) -> str:
        """Which of several uses of a stage it is of: the name of a further judge in `attack.NAME`."""
        return self.stage.partition(".")[2]

    def of_judge(self, name: str) -> "MetricName":
        """Return the same metric of a further judge."""
        return replace(self, stage=f"{self.stage}.{name}")

    def describe(self) -> str:
        """Return unit and direction, for titles."""
        if not self.metric.unit:
            return "no unit"
        direction = {"up": "higher leaks more", "down": "lower leaks more", None: "utility"}[
            self.metric.leaks
        ]
        return f"{self.metric.unit}; {direction}"

    def file(self) -> ImageFile | None:
        """Return where its values by image are kept; None where it has only one value."""
        if (self.stage, self.metric.name) == ("target", "accuracy"):
            return ImageFile(("snapshot", "target", "given", "joint"), "accuracy_test.npy", "accuracy")
        if self.metric.of != "image":
            return None
        kept_by = f"{JUDGEMENT}.{self.instance}" if self.instance else self.metric.kept_by
        return ImageFile((kept_by,), per_image_file(self.part), self.metric.name)


def measured() -> list[str]:
    """Return every full name that a finished trial may have, in the table's order. Any further judge's name
    may stand for `NAME`."""
    names = (name for metric in METRICS.values() for name in metric.names())
    return [str(name.of_judge("NAME") if name.metric.name in BY_FURTHER_JUDGES else name) for name in names]


def is_by_others(name: str) -> bool:
    """Return whether a full name is of reconstructions as further judges or a recogniser see them."""
    family, _, rest = name.partition("/")
    stage, _, judge = family.partition(".")
    return stage in _SIMILAR and (bool(judge) or rest.startswith(BY_RECOGNISER))


def per_image_file(part: str) -> str:
    """Return the file of a stage with the values of each reconstruction, or yardstick, of a part."""
    return f"per_image_{part}.npy"


def evaluation_version() -> int:
    """Return the version of the stage `evaluation`: that of the latest metric of reconstructions."""
    return max(metric.version for metric in METRICS.values() if metric.of != "stage")

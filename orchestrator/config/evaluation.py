"""Evaluation: the evaluation model (judge), public networks, analyses, and what is reconstructed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import (
    NO_VALUE,
    Count,
    InstanceName,
    Model,
    Recipe,
    Refused,
    Seed,
    Share,
    Spec,
    added_field,
    first_set,
)

Label = Annotated[int, Field(ge=0, le=10_000_000)]


class Judge(Spec):
    """An evaluation classifier of every class of the private set, trained here or given; never shown to the
    attack."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    recipe: Recipe = Recipe()
    """Training on the `images` of every class."""

    seed: Seed = 1_000_003
    """Differs from any target's seed, so that judge and target share no initial weights."""

    images: Literal["train", "auxiliary"] = added_field("train")
    """Part of every class that it is trained on: the target's, or `auxiliary`, of which neither the target
    nor the adversary may have images of the private classes."""

    weights: str | None = added_field(None)
    """Name of public weights staged with `python -m jobs.stage_weights` that its training starts from, as
    TL-DMI's evaluation model does from a face recogniser's; None: random first weights."""

    trained: bool = added_field(True)
    """False takes `weights` whole, head included, for the judge and trains nothing: output i is of the i-th
    class of the staged set, which all have one. `recipe`, `seed` and `images` then keep their defaults."""

    minimum_accuracy: Share = added_field(0.0)
    """Of a judge that is not trained here: a lower accuracy on the evaluation images of every class fails the
    stage."""

    @model_validator(mode="after")
    def _is_trained_or_given(self) -> Self:
        if self.trained and self.minimum_accuracy:
            rule = "is of a judge that is not trained here"
            way_out = "set trained=false or leave it out"
            raise Refused("minimum_accuracy", self.minimum_accuracy, rule, way_out)
        if self.trained:
            return self
        if self.weights is None:
            raise Refused("trained", "false", "needs weights that are the judge", "name them in weights")
        if field := first_set(self, ("recipe", "seed", "images")):
            value, rule = getattr(self, field), "is of a training, and trained=false has none"
            raise Refused(field, NO_VALUE if isinstance(value, Spec) else value, rule, "leave it out")
        return self


class Recogniser(Spec):
    """A face descriptor that others trained: accepts an image by its mean distance to the target's training
    images of the class, at a threshold found on real pairs."""

    weights: str
    """Name of the face descriptor's weights staged with `python -m jobs.stage_weights`."""

    pairs: Annotated[int, Field(ge=4, le=10_000_000)] = 2000
    """At most this many test images of the private classes are paired with their own person and with another
    one each: every second pair finds the threshold, the others its errors."""

    seed: Seed = 0
    """Draws these images and the other persons."""


class Judges(Spec):
    """Judges beside the trial's own. Each sees the stored reconstructions in a stage of its own, so that one
    is added without another attack."""

    classifiers: dict[InstanceName, Judge] = Field({})
    """By name: evaluation classifiers of other networks, seeds or images."""

    recogniser: Recogniser | None = None
    """A recogniser of people that others trained; None leaves its metrics out."""


class PublicNetworks(Spec):
    """Networks that measure pictures; names of weights staged with `python -m jobs.stage_weights`. A metric
    whose network is None is left out, and tables say so."""

    inception: str | None = None
    """torchvision's Inception-v3: FID, precision, recall, density, coverage."""

    facenet: str | None = None
    """InceptionResnetV1 trained on VGGFace2: delta_FaceNet."""

    vgg: str | None = None
    """torchvision's VGG16: LPIPS, and a distance of the Fisher analysis."""

    alex: str | None = None
    """torchvision's AlexNet: LPIPS, and a distance of the Fisher analysis."""


class Fisher(Spec):
    """Fisher information of each layer for classification and for inversion (TL-DMI, Figures 4 and 5)."""

    images: Count = 128
    """Private training images that the expectation runs over, at most."""

    distances: Annotated[tuple[Literal["l2", "l1", "lpips-vgg", "lpips-alex"], ...], Field(min_length=1)] = (
        "l2",
    )
    """Between reconstructions and private images."""

    iterations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 10, 100)
    """Of a descending attack (mia, gmi, kedmi): after which updates; an inverter has one profile."""


class Evaluation(Spec):
    """What is rebuilt and how it is measured."""

    task: Literal["reconstruction", "class-inference"] = "reconstruction"
    """reconstruction: private images from their released scores (AMI, scenario 1); class-inference: one
    image for each class from its one-hot vector (scenario 2)."""

    images: Count = 2048
    """At most this many training and this many test images of the target are reconstructed; class inference
    has one for each class."""

    grid: Annotated[int, Field(ge=1, le=64)] = 16
    """Private images in the picture of originals above their reconstructions."""

    classes: Annotated[tuple[Label, ...], Field(min_length=1)] | None = added_field(None)
    """Of class inference: which of the target's classes 0..k-1 get images; None: all of them."""

    candidates: Annotated[int, Field(gt=0, le=10_000)] = added_field(1)
    """Of class inference: images for each class: each of a search of its own, the first with `attack.seed`
    and the others with seeds drawn from it, or all of one search (VMI; PPA, KEDMI and LOMMA-K with
    `attack.candidates: released`)."""

    networks: PublicNetworks = PublicNetworks()
    """Public networks that some metrics need."""

    fisher: Fisher | None = None
    """None leaves the Fisher analysis out."""

    seed: Seed = 0
    """Draws which images are reconstructed."""

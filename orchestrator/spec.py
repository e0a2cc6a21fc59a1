"""What one sweep point computes: a frozen `TrialSpec`, never where or on how many machines.

Every stage key is a digest of whole sub-specs of this file, so a field belongs here exactly when it changes
numbers. Names (datasets, models, attacks) are plain strings: they are resolved when the plan is made.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from orchestrator.attack_specs import (
    ATTACK_SPECS,
    Attack,
    InverterAttack,
    JointAttack,
    Losses,
    MiaAttack,
    OptimizationAttack,
    Surrogate,
    attack_name,
)
from orchestrator.spec_parts import Model, Recipe, Seed, Spec

__all__ = [
    "ATTACK_SPECS",
    "Attack",
    "Auxiliary",
    "Data",
    "Evaluation",
    "InverterAttack",
    "JointAttack",
    "Judge",
    "Losses",
    "MiaAttack",
    "Model",
    "OptimizationAttack",
    "Pretrain",
    "Recipe",
    "Release",
    "Seed",
    "Spec",
    "Surrogate",
    "Target",
    "TrialSpec",
    "attack_name",
]


class Data(Spec):
    """The private data set: which images, which classes may be private, which split file."""

    dataset: str
    """A built-in name (`digits`) or the name of a staged data set under the data location."""

    image_size: Annotated[int, Field(ge=8, le=512)] = 32
    """Side of the square images in pixels; bilinear with antialias where the stored size differs."""

    channels: Literal[1, 3] = 1
    """1 converts to grey (ITU-R 601), 3 to RGB."""

    normalisation: Literal["fixed", "per-position"] = "fixed"
    """fixed divides by 255. per-position is AMI's released code: each pixel position is stretched over its
    least and greatest value in its whole data set, test images included, and rounded to 8 bits."""

    split: str = "default"
    """Split file of the data set: every image is in `train`, `auxiliary` or `evaluation`."""

    class_pool: PositiveInt | None = None
    """Classes that may be private; pretraining and the generic auxiliary set use the others. None: all."""

    class_seed: Seed = 0
    """Orders the classes once; a target of k classes takes the first k, so smaller k are nested in larger."""


class Pretrain(Spec):
    """Public training of the same network before the private classes are seen (TL-DMI, section 9)."""

    dataset: str | None = None
    """None: the public classes of the private data set (those outside `data.class_pool`)."""

    recipe: Recipe = Recipe()
    """Training on the public classes."""

    seed: Seed = 0
    """Of weights, order and held-out images; the same for every target, like downloaded weights."""


class Target(Spec):
    """The victim: classifier F over k private classes."""

    classes: Annotated[int, Field(ge=2)]
    """k, the full prediction size."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    pretrain: Pretrain | None = None
    """None trains from random weights."""

    budget: str | Annotated[float, Field(gt=0.0)] = "full"
    """Frozen-layer budget: `full` trains everything, a cut point's name freezes up to and including it, a
    number is |theta_C| in millions and picks the nearest cut point (TL-DMI, Table 8)."""

    freeze: Literal["weights", "weights+statistics"] = "weights"
    """Whether frozen batch norms go on absorbing private data (as released) or are fixed too."""

    recipe: Recipe = Recipe()
    """Training on the private classes."""

    selection: Literal["held-out", "last", "test"] = "held-out"
    """Which epoch is kept: the best on held-out training images, the last, or the best on the test images,
    which AMI's released code takes."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


class Release(Spec):
    """What the victim's service gives away about each prediction."""

    truncation: PositiveInt | None = None
    """Largest scores kept per prediction (m); None releases all k of them."""

    decimals: Annotated[int, Field(ge=1, le=7)] | None = None
    """Kept scores are rounded to this many decimals; None releases float32."""

    renormalised: bool = False
    """True divides the kept scores by their sum, before rounding; AMI's victim does not."""

    labels_only: bool = False
    """True releases the top label without its score (entry 1), whatever the truncation."""


class Auxiliary(Spec):
    """The adversary's own images (AMI, section IV-A and Table I)."""

    kind: Literal["same-train", "same-heldout", "same-test", "generic", "distinct", "augmented"] = (
        "same-heldout"
    )
    """same-train: F's training images; same-heldout: other images of the same classes; same-test: F's test
    images themselves (Table I); generic: same kind of object, disjoint classes; distinct: unrelated images;
    augmented: same-train and generic together."""

    dataset: str | None = None
    """Source of generic, distinct or augmented images. None: the public classes of the private data set
    (generic, augmented) or the built-in photograph patches (distinct)."""

    overlap: Literal["refuse", "remove", "allow"] = "refuse"
    """Classes of a generic set that are also in the private pool, by name: refuse the study, leave their
    images out, or use them all the same."""

    size: PositiveInt | None = None
    """Images in the set; smaller sets are nested in larger ones. None takes all there are."""

    seed: Seed = 0
    """Orders the images before `size` cuts."""


class Judge(Spec):
    """The evaluation classifier: trained on every class of the private set, never shown to the attack."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    recipe: Recipe = Recipe()
    """Training on the `train` part of every class."""

    seed: Seed = 1_000_003
    """Differs from any target's seed, so that judge and target share no initial weights."""


class Evaluation(Spec):
    """What is rebuilt and how it is measured."""

    task: Literal["reconstruction", "class-inference"] = "reconstruction"
    """reconstruction: the victims' images from their released scores (AMI, scenario 1); class-inference: one
    image for each class from its one-hot vector (scenario 2)."""

    images: PositiveInt = 2048
    """At most this many training and this many test images of the target are reconstructed; class inference
    has one for each class."""

    grid: Annotated[int, Field(ge=1, le=64)] = 16
    """Images in the picture of victims above their reconstructions."""

    seed: Seed = 0
    """Draws which images are reconstructed."""


class TrialSpec(Spec):
    """One sweep point."""

    data: Data
    """The private data set."""

    target: Target
    """The victim."""

    release: Release = Release()
    """What the victim publishes."""

    auxiliary: Auxiliary = Auxiliary()
    """What the adversary has."""

    attack: Attack
    """What the adversary does."""

    judge: Judge
    """Who recognises reconstructions."""

    evaluation: Evaluation = Evaluation()
    """What is measured."""

    @model_validator(mode="after")
    def _releases_what_the_target_has(self) -> Self:
        k, m = self.target.classes, self.release.truncation
        if m is not None and m > k:
            raise ValueError(
                f"release.truncation={m} must lie in 1..target.classes={k}; use null to release every score."
            )
        pool = self.data.class_pool
        if pool is not None and k > pool:
            raise ValueError(
                f"target.classes={k} must lie in 1..data.class_pool={pool}; "
                "enlarge the pool or lower target.classes."
            )
        return self

    @model_validator(mode="after")
    def _attack_can_use_what_it_gets(self) -> Self:
        if isinstance(self.attack, JointAttack) and self.release.labels_only:
            raise ValueError(
                "release.labels_only=true passes no gradient to the classifier, so attack.name=joint has "
                "nothing to train; release scores or choose another attack."
            )
        if isinstance(self.attack, OptimizationAttack) and self.release.renormalised:
            raise ValueError(
                "release.renormalised=true hides the sum of the kept scores, which attack.name=optimization "
                "fits; release them as they are or choose another attack."
            )
        if isinstance(self.attack, MiaAttack) and self.evaluation.task == "reconstruction":
            raise ValueError(
                "attack.name=mia makes one image for each class, not for each prediction; set "
                "evaluation.task=class-inference or use attack.name=optimization."
            )
        return self

"""What one sweep point computes: a frozen `TrialSpec`, never where or on how many machines.

Every stage key is a digest of whole sub-specs of this file, so a field belongs here exactly when it changes
numbers. Names (datasets, models, attacks) are plain strings: they are resolved when the plan is made.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Spec(BaseModel):
    """A frozen record that refuses unknown fields; its canonical JSON enters stage keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Model(Spec):
    """A network by name and channel width."""

    name: str
    """Key of `models.CLASSIFIERS` or `models.INVERTERS`."""

    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on every hidden channel count; 1 is the printed network, 0.125 suits a laptop."""


class Recipe(Spec):
    """How a network is trained. Defaults: AMI's released code (Adam with AMSGrad, betas 0.5 and 0.999)."""

    epochs: PositiveInt = 100
    """Passes over the training images; the epoch that is best on held-out images is kept."""

    batch_size: PositiveInt = 128
    """Images in one optimiser step, over all workers together."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Adam step size."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """L2 penalty of the trainable parameters."""

    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the stage's own images held out to choose the best epoch; never the victim's test images."""


class Data(Spec):
    """The private data set: which images, which classes may be private, which split file."""

    dataset: str
    """A built-in name (`digits`) or the name of a staged data set under the data location."""

    image_size: Annotated[int, Field(ge=8, le=512)] = 32
    """Side of the square images in pixels; bilinear with antialias where the stored size differs."""

    channels: Literal[1, 3] = 1
    """1 converts to grey (ITU-R 601), 3 to RGB."""

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

    classes: PositiveInt
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

    seed: Seed = 0
    """Of weights, order and held-out images."""


class Release(Spec):
    """What the victim's service gives away about each prediction."""

    truncation: PositiveInt | None = None
    """Largest scores kept per prediction (m); None releases all k of them."""

    decimals: Annotated[int, Field(ge=1, le=7)] | None = None
    """Kept scores are rounded to this many decimals; None releases float32."""

    labels_only: bool = False
    """True releases the top label without its score (entry 1), whatever the truncation."""


class Auxiliary(Spec):
    """The adversary's own images (AMI, section 4.2)."""

    kind: Literal["same-train", "same-heldout", "generic", "distinct", "augmented"] = "same-heldout"
    """same-train: F's training images; same-heldout: other images of the same classes; generic: same kind of
    object, disjoint classes; distinct: unrelated images; augmented: same-train and generic together."""

    dataset: str | None = None
    """Source of generic, distinct or augmented images. None: the public classes of the private data set
    (generic, augmented) or the built-in photograph patches (distinct)."""

    size: PositiveInt | None = None
    """Images in the set; smaller sets are nested in larger ones. None takes all there are."""

    seed: Seed = 0
    """Orders the images before `size` cuts."""


class Attack(Spec):
    """The adversary: for AMI the inverter G, trained on auxiliary images to undo F."""

    name: str = "inverter"
    """Key of `attacks.ATTACKS`."""

    model: Model
    """An inverter of `models.INVERTERS`."""

    align: bool = True
    """Train on scores truncated as released (AMI, section 4.3); False is the TB baseline, on full scores."""

    offset: Annotated[float, Field(ge=0.0)] = 50.0
    """c in z = log F(x) + c: its value, or its start when learnable."""

    offset_learnable: bool = False
    """True optimises c with the inverter, as printed; False keeps it constant, as released."""

    zero_policy: Literal["zero-after-log", "log-clamp", "floor"] = "zero-after-log"
    """What a dropped score becomes: 0 in z; log 0 clamped at -1000; or log(1e-6)."""

    recipe: Recipe = Recipe()
    """Training on the auxiliary images; some are held out to choose the best epoch."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


class Judge(Spec):
    """The evaluation classifier: trained on every class of the private set, never shown to the attack."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    recipe: Recipe = Recipe()
    """Training on the `train` part of every class."""

    seed: Seed = 1_000_003
    """Differs from any target's seed, so that judge and target share no initial weights."""


class Evaluation(Spec):
    """How the reconstructions are measured."""

    images: PositiveInt = 2048
    """At most this many training and this many test images of the target are reconstructed."""

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

"""What one sweep point computes: a frozen `TrialSpec`, never where or on how many machines.

Every stage key is a digest of whole sub-specs of this file, so a field belongs here exactly when it changes
numbers. Names (datasets, models, attacks) are plain strings: they are resolved when the plan is made.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveInt, Tag, model_validator

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Weight = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Intensity = Annotated[float, Field(ge=0.0, le=1.0)]


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


class Surrogate(Spec):
    """The adversary's own classifier, trained on the victim's answers to auxiliary images."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    recipe: Recipe = Recipe()
    """Training on (auxiliary image, released scores) pairs."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


class Losses(Spec):
    """What the inverter minimises beside the squared error (AMI, section IV-B, left there as future work)."""

    adversarial: Weight = 0.0
    """Weight of the adversarial loss (equation 7) against a discriminator trained with the inverter."""

    features: Weight = 0.0
    """Weight of the mean squared distance between features of the surrogate (Dosovitskiy and Brox, 2016)."""

    total_variation: Weight = 0.0
    """Weight of the total variation of reconstructions (equation 5 with beta 2), mean over pixels."""

    surrogate: Surrogate | None = None
    """Whose features `features` compares; it needs one."""

    @model_validator(mode="after")
    def _features_need_a_surrogate(self) -> Self:
        if self.features and self.surrogate is None:
            raise ValueError(
                f"features={self.features} needs a surrogate to compare with; "
                "set attack.losses.surrogate, for example to {model: {name: ami-digit}}."
            )
        return self


class InverterAttack(Spec):
    """AMI's inversion model G, trained on auxiliary images to undo the victim (section IV). Black-box."""

    name: Literal["inverter"] = "inverter"
    """How studies call this attack; it may be left out."""

    model: Model
    """An inverter of `models.INVERTERS`."""

    align: bool = True
    """Train on scores truncated as released (section IV-B); False is the TB baseline, on full scores."""

    offset: Weight = 50.0
    """c in z = log F(x) + c: its value, or its start when learnable."""

    offset_learnable: bool = False
    """True optimises c with the inverter, as printed; False keeps it constant, as released."""

    zero_policy: Literal["zero-after-log", "log-clamp", "floor"] = "zero-after-log"
    """What a dropped score becomes: 0 in z; log 0 clamped at -1000; or log(1e-6)."""

    losses: Losses = Losses()
    """Losses beside the squared error."""

    recipe: Recipe = Recipe()
    """Training on the auxiliary images."""

    selection: Literal["held-out", "last", "victim-train"] = "held-out"
    """Which epoch is kept: the best on held-out auxiliary images, the last, or the best on the victim's
    training images, which AMI's released code takes and no adversary has."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


class JointAttack(Spec):
    """AMI's malicious developer: trains F and G together on F's training images by `target.recipe`
    (section IV-C, equation 11). F pays with accuracy."""

    name: Literal["joint"]
    """How studies call this attack."""

    model: Model
    """An inverter of `models.INVERTERS`."""

    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """lambda of the reconstruction loss beside the cross-entropy; the paper gives none."""

    reduction: Literal["mean", "sum"] = "mean"
    """Whether an image's squared error is averaged over pixels or summed; the paper does not say."""

    offset: Weight = 50.0
    """c in z = log F(x) + c: its value, or its start when learnable."""

    offset_learnable: bool = False
    """True optimises c with F and G."""

    zero_policy: Literal["zero-after-log", "log-clamp", "floor"] = "zero-after-log"
    """What a dropped score becomes, as for the inverter."""

    log_floor: Annotated[float, Field(lt=0.0)] = -50.0
    """Logarithms of scores are clamped here: the gradient of log p explodes where p vanishes."""

    seed: Seed = 0
    """Of G's first weights; F's, the order and the held-out images go by `target.seed`."""


class MiaAttack(Spec):
    """Model inversion of Fredrikson et al. (2015): one image for a class, by gradient descent on the cost
    1 - F(x)_y from one start. White-box."""

    name: Literal["mia"]
    """How studies call this attack."""

    cost: Literal["probability", "cross-entropy"] = "probability"
    """probability is theirs; its gradient vanishes where F is sure of another class, that of cross-entropy
    does not."""

    steps: PositiveInt = 5000
    """Steps at most (their alpha)."""

    patience: PositiveInt = 100
    """Stop when a cost is not below the largest of the last so many (their beta)."""

    score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99
    """Stop when F(x)_y reaches it (their gamma, read as a bound on the score)."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 0.1
    """Step size (their lambda)."""

    start: Intensity = 0.0
    """Grey level of the first image."""

    noise: Weight = 0.0
    """Standard deviation of the noise added to it."""

    process: Literal["none", "denoise-sharpen"] = "none"
    """What is done to the image between steps: nothing, or a median filter followed by unsharp masking."""

    process_every: PositiveInt = 100
    """Steps between two such treatments."""

    seed: Seed = 0
    """Draws the noise."""


class OptimizationAttack(Spec):
    """Optimisation-based inversion of a given prediction (AMI, equations 4 and 5): the image whose scores
    come closest, under hand-made image priors. White-box."""

    name: Literal["optimization"]
    """How studies call this attack."""

    steps: PositiveInt = 500
    """Steps for every image."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """sgd has momentum 0.9."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 0.05
    """Step size."""

    start: Intensity = 0.5
    """Grey level of the first image."""

    noise: Weight = 0.1
    """Standard deviation of the noise added to it."""

    alpha: Annotated[float, Field(ge=1.0)] = 6.0
    """Exponent of the alpha-norm of the mean-free image: 2 (Simonyan et al.) or 6 (Mahendran, Vedaldi)."""

    alpha_weight: Weight = 0.0
    """Weight of the alpha-norm, a sum over pixels."""

    variation_beta: Annotated[float, Field(ge=1.0, le=2.0)] = 2.0
    """beta of the total variation (equation 5)."""

    variation_weight: Weight = 0.0
    """Weight of the total variation, a sum over pixels."""

    jitter: Annotated[int, Field(ge=0, le=16)] = 0
    """Largest random shift in pixels before each forward pass; 0 shifts nothing."""

    blur: Weight = 0.0
    """Width in pixels of a Gaussian blur every `treat_every` steps; 0 does not blur (Yosinski et al.)."""

    clip_norm: Share = 0.0
    """Share of pixels of the smallest norm set to 0 every `treat_every` steps (Yosinski et al.)."""

    clip_contribution: Share = 0.0
    """Share of pixels that contribute least, abs(x * dcost/dx), set to 0 every `treat_every` steps."""

    treat_every: PositiveInt = 4
    """Steps between two blurs or clippings."""

    seed: Seed = 0
    """Draws noise and jitter."""


def attack_name(value: Any) -> str | None:
    """Return which attack a raw or finished spec is; the inverter where no name is given."""
    name = value.get("name", "inverter") if isinstance(value, Mapping) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


Attack = Annotated[
    Annotated[InverterAttack, Tag("inverter")]
    | Annotated[JointAttack, Tag("joint")]
    | Annotated[MiaAttack, Tag("mia")]
    | Annotated[OptimizationAttack, Tag("optimization")],
    Discriminator(attack_name),
]
"""What the adversary does, by name."""

ATTACK_SPECS: Mapping[str, type[Spec]] = {
    "inverter": InverterAttack,
    "joint": JointAttack,
    "mia": MiaAttack,
    "optimization": OptimizationAttack,
}
"""The settings of each attack."""


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

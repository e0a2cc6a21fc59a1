"""What the adversary does, by name: each attack has settings of its own. Part of `spec`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from orchestrator.config.base import Intensity, Model, Recipe, Seed, Share, Spec, Weight


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

    @model_validator(mode="after")
    def _learns_from_scores(self) -> Self:
        if self.recipe.augmentation != "none":
            raise ValueError(
                f"attack.recipe.augmentation={self.recipe.augmentation} changes images, but an inverter "
                "learns from scores; set it to none."
            )
        return self


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

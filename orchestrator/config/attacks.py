"""Attacks: the settings of each, and its traits, which planning and validation go by.

An attack is added here: a class with traits, named in `ATTACK_SPECS`; those that search a prior are in
`config/latent_attacks/`. One that searches images has its function in `orchestrator/attacks/<name>.py`:
`invert`, or `search` with a prior.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, Union, get_args

from pydantic import (
    Discriminator,
    Field,
    PlainValidator,
    SerializeAsAny,
    Tag,
    TypeAdapter,
    model_validator,
)

from orchestrator.config.attack_spec import BOTH_TASKS, AttackSpec, Surrogate
from orchestrator.config.base import (
    Count,
    Intensity,
    Model,
    Positive,
    Recipe,
    Refused,
    Seed,
    Share,
    Spec,
    Weight,
    added_field,
)
from orchestrator.config.latent_attacks import LATENT_ATTACKS
from orchestrator.config.release import EVERYTHING, Release, shielded_as

SearchStep = Annotated[float, Field(gt=0.0, le=1000.0)]
StepSize = Annotated[float, Field(gt=0.0, le=10.0)]
Offset = Weight | Literal["log-k"]
Encoding = Literal["log", "logit", "log-ratio"]
ZeroPolicy = Literal["zero-after-log", "log-clamp", "floor"]
AdversarialForm = Literal["minimax", "non-saturating"]


class Losses(Spec):
    """Losses of the inverter beside the squared error (AMI, section IV-B, left there as future work)."""

    adversarial: Weight = 0.0
    """Weight of the adversarial loss (equation 7) against a discriminator trained with the inverter."""

    adversarial_form: AdversarialForm = added_field("minimax")
    """What G descends on: minimax, mean log(1 - D(G(z))), as printed, which passes little where D is sure; or
    non-saturating, -mean log D(G(z)) (Goodfellow et al., 2014), which passes most there; D's loss stays."""

    features: Weight = 0.0
    """Weight of the mean squared distance between features of the surrogate (Dosovitskiy and Brox, 2016)."""

    total_variation: Weight = 0.0
    """Weight of the total variation of reconstructions (equation 5 with beta 2), mean over pixels."""

    surrogate: Surrogate | None = None
    """Whose features `features` compares; it needs one."""

    @model_validator(mode="after")
    def _features_need_a_surrogate(self) -> Self:
        if self.features and self.surrogate is None:
            raise Refused(
                "features",
                self.features,
                "needs a surrogate to compare with",
                "set attack.losses.surrogate, for example to {model: {name: ami-digit}}",
            )
        return self


class InverterAttack(AttackSpec):
    """AMI's inversion model G, trained on auxiliary images to undo F (section IV). Black-box."""

    access = "scores"
    tasks = BOTH_TASKS
    leaves = "inverter"
    owns_images = queries_target = reports_epochs = True
    profile = "inverter"

    name: Literal["inverter"] = "inverter"
    """How studies call this attack; it may be left out."""

    model: Model
    """An inverter of `models.INVERTERS`."""

    align: bool | Literal["random"] = True
    """Train on scores truncated as released (section IV-B); False is the TB baseline, on full scores; random,
    ours, truncates each full row to an m drawn from 1..k in every epoch: one inverter for every m."""

    classes: Literal["given", "estimated"] = added_field("given")
    """Which classes G has inputs for: given, all k; estimated, those that the released answers to the
    auxiliary images name (section IV-B). Class inference makes no image of others, and each is a failure."""

    encoding: Encoding = added_field("log")
    """What precedes c: log F(x), as printed; logit, log of F(x) / (1 - F(x)), which resolves scores near 1;
    or log-ratio, log F(x) minus its mean over the row."""

    offset: Offset = 10.0
    """c in z = log F(x) + c, a number or log-k, the logarithm of the number of classes: its value, or its
    start when learnable; AMI's released code has 50. With 0 a single score leaves nothing in z, not even its
    class."""

    offset_learnable: bool = False
    """True optimises c with the inverter, as printed; False keeps it constant, as released."""

    offset_learning_rate: StepSize | None = added_field(None)
    """Step size of a learnable c, which follows the recipe in all else; None takes the recipe's, whose 2e-4
    hardly moves a c of 50."""

    zero_policy: ZeroPolicy = "zero-after-log"
    """What a dropped score becomes: 0 in z; log 0 clamped at -1000; or log(1e-6)."""

    losses: Losses = Losses()
    """Losses beside the squared error."""

    recipe: Recipe = Recipe()
    """Training on the auxiliary images."""

    selection: Literal["held-out", "last", "victim-train"] = "held-out"
    """Which epoch is kept: the best on held-out auxiliary images, the last, or the best on the target's
    training images, which AMI's released code takes and no adversary has."""

    seed: Seed = 0
    """Of weights, order and held-out images."""

    @property
    def inverter(self) -> Model:
        """G."""
        return self.model

    @property
    def classifiers(self) -> Mapping[str, Model]:
        """The surrogate, used or not."""
        named = self.losses.surrogate
        return {} if named is None else {"attack.losses.surrogate.model": named.model}

    @property
    def recipes(self) -> Mapping[str, tuple[str, Recipe]]:
        """G's, and that of a surrogate that a loss uses."""
        own = {"inversion": ("attack.recipe", self.recipe)}
        if self.surrogate is None:
            return own
        return {"surrogate": ("attack.losses.surrogate.recipe", self.surrogate.recipe), **own}

    @property
    def surrogate(self) -> Surrogate | None:
        """The classifier whose features a loss compares."""
        return self.losses.surrogate if self.losses.features else None

    @property
    def estimates_classes(self) -> bool:
        """Whether G has inputs for the classes seen alone."""
        return self.classes == "estimated"

    @property
    def has_discriminator(self) -> bool:
        """Whether the adversarial loss is on."""
        return self.losses.adversarial > 0.0

    @property
    def selects_on_target(self) -> bool:
        """Whether the epoch is the best on the target's training images."""
        return self.selection == "victim-train"

    def canonical(self) -> Self:
        """Leave out a surrogate and a form that no loss uses, and the step size of a constant c."""
        rate = self.offset_learning_rate if self.offset_learnable else None
        form = self.losses.adversarial_form if self.has_discriminator else "minimax"
        losses = self.losses.but(surrogate=self.surrogate, adversarial_form=form)
        return self.but(losses=losses, offset_learning_rate=rate)

    def made_from(self, release: Release) -> tuple[Self, Release]:
        """Unaligned, G never sees the release, so all truncations share one training; alignment is in the
        release, so a full release has one inverter, aligned or not. Nor does G at random truncations. A
        shield moves every answer before."""
        everything = shielded_as(EVERYTHING, release)
        if self.align == "random":
            return self, everything
        return self.but(align=True), release if self.align else everything

    @model_validator(mode="after")
    def _counts_classes_in_released_answers(self) -> Self:
        if self.estimates_classes and self.align is not True:
            align = str(self.align).lower()
            raise Refused(
                "classes",
                self.classes,
                f"counts classes in released answers, but attack.align={align} trains on all scores, which "
                "name every class",
                "set attack.align to true or use given",
            )
        return self

    @model_validator(mode="after")
    def _learns_from_scores(self) -> Self:
        if self.recipe.augmentation != "none":
            raise Refused(
                "recipe.augmentation",
                self.recipe.augmentation,
                "changes images, but an inverter learns from scores",
                "set it to none",
            )
        return self


class JointAttack(AttackSpec):
    """AMI's malicious developer: trains F and G together on F's training images by `target.recipe`
    (section IV-C, equation 11). F pays with accuracy."""

    access = "training"
    tasks = BOTH_TASKS
    leaves = "inverter"
    trains_target = True
    profile = "inverter"
    cannot_use = MappingProxyType(
        {
            "labels_only": "passes no gradient to the classifier, so attack.name=joint has nothing to train",
        }
    )

    name: Literal["joint"]
    """How studies call this attack."""

    model: Model
    """An inverter of `models.INVERTERS`."""

    weight: Positive = 1.0
    """lambda of the reconstruction loss beside the cross-entropy; the paper gives none."""

    reduction: Literal["mean", "sum"] = "mean"
    """Whether an image's squared error is averaged over pixels or summed; the paper does not say."""

    encoding: Encoding = added_field("log")
    """What precedes c, as for the inverter."""

    offset: Offset = 50.0
    """c in z = log F(x) + c, as for the inverter, but as released."""

    offset_learnable: bool = False
    """True optimises c with F and G."""

    offset_learning_rate: StepSize | None = added_field(None)
    """Step size of a learnable c; None takes that of `target.recipe`."""

    zero_policy: ZeroPolicy = "zero-after-log"
    """What a dropped score becomes, as for the inverter."""

    log_floor: Annotated[float, Field(lt=0.0, ge=-1e9)] = -50.0
    """Logarithms of scores are clamped here: the gradient of log p explodes where p vanishes."""

    seed: Seed = 0
    """Of G's first weights; F's, the order and the held-out images go by `target.seed`."""

    @property
    def inverter(self) -> Model:
        """G."""
        return self.model

    def canonical(self) -> Self:
        """Leave out the step size of a constant c."""
        return self if self.offset_learnable else self.but(offset_learning_rate=None)


class MiaAttack(AttackSpec):
    """Model inversion of Fredrikson et al. (2015): one image for a class, by gradient descent on the cost
    1 - F(x)_y from one start. White-box."""

    access = "gradients"
    tasks = frozenset({"class-inference"})
    leaves = "images"
    profile = "updates"

    name: Literal["mia"]
    """How studies call this attack."""

    cost: Literal["probability", "cross-entropy"] = "probability"
    """probability is theirs; its gradient vanishes where F is sure of another class, that of cross-entropy
    does not."""

    steps: Count = 5000
    """Steps at most (their alpha)."""

    patience: Count = 100
    """Stop when a cost is not below the largest of this many before it (their beta)."""

    score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99
    """Stop when F(x)_y reaches it (their gamma, read as a bound on the score)."""

    learning_rate: SearchStep = 0.1
    """Step size (their lambda)."""

    start: Intensity | Literal["auxiliary-mean"] = 0.0
    """First image: a grey level, or the mean of the auxiliary images, which the adversary then has."""

    noise: Weight = 0.0
    """Standard deviation of the noise added to it."""

    process: Literal["none", "denoise-sharpen"] = "none"
    """What is done to the image between steps: nothing, or a median filter followed by unsharp masking."""

    process_every: Count = 100
    """Steps between two such treatments."""

    seed: Seed = 0
    """Draws the noise."""

    @property
    def has_images(self) -> bool:
        """Whether the first image is made of the auxiliary set."""
        return self.start == "auxiliary-mean"

    @property
    def first_level(self) -> float | None:
        """Grey level of the first image; None where that is the mean of the auxiliary images."""
        return None if isinstance(self.start, str) else self.start

    @property
    def draws(self) -> bool:
        """Whether the first image has noise."""
        return self.noise > 0.0

    def check_profile(self) -> None:
        """Raise `Refused` if images are processed between updates, or the first one is no grey level."""
        if self.has_images:
            rule = "is an image that evaluation.fisher has not"
            raise Refused("attack.start", self.start, rule, "use a grey level or leave the analysis out")
        if self.process != "none":
            raise Refused(
                "attack.process",
                self.process,
                "is no part of the update that evaluation.fisher differentiates",
                "use none or leave the analysis out",
            )

    @property
    def passes(self) -> tuple[float, float]:
        """Every step."""
        return float(self.steps), 1.0


class OptimizationAttack(AttackSpec):
    """Optimisation-based inversion of a given prediction (AMI, equations 4 and 5): the image whose scores
    come closest, under hand-made image priors. White-box."""

    access = "gradients"
    tasks = BOTH_TASKS
    leaves = "images"
    cannot_use = MappingProxyType(
        {"renormalised": "hides the sum of the kept scores, which attack.name=optimization fits"}
    )

    name: Literal["optimization"]
    """How studies call this attack."""

    steps: Count = 500
    """Steps for every image."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """sgd has momentum 0.9."""

    learning_rate: SearchStep = 0.05
    """Step size."""

    start: Intensity = 0.5
    """Grey level of the first image."""

    noise: Weight = 0.1
    """Standard deviation of the noise added to it."""

    alpha: Annotated[float, Field(ge=1.0, le=100.0)] = 6.0
    """Exponent of the alpha-norm of the mean-free image: 2 (Simonyan et al.) or 6 (Mahendran, Vedaldi)."""

    alpha_weight: Weight = 0.0
    """Weight of the alpha-norm, a sum over pixels."""

    variation_beta: Annotated[float, Field(ge=1.0, le=2.0)] = 2.0
    """beta of the total variation (equation 5)."""

    variation_weight: Weight = 0.0
    """Weight of the total variation, a sum over pixels."""

    jitter: Annotated[int, Field(ge=0, le=16)] = 0
    """Largest random shift in pixels before each forward pass; 0 shifts nothing."""

    blur: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """Width in pixels of a Gaussian blur every `treat_every` steps; 0 does not blur (Yosinski et al.)."""

    clip_norm: Share = 0.0
    """Share of pixels of the smallest norm set to 0 every `treat_every` steps (Yosinski et al.)."""

    clip_contribution: Share = 0.0
    """Share of pixels that contribute least, abs(x * dcost/dx), set to 0 every `treat_every` steps."""

    treat_every: Count = 4
    """Steps between two blurs or clippings."""

    seed: Seed = 0
    """Draws noise and jitter."""

    @property
    def first_level(self) -> float | None:
        """Grey level of the first image."""
        return self.start

    @property
    def draws(self) -> bool:
        """Whether the first image has noise, or steps see shifted images."""
        return self.noise > 0.0 or self.jitter > 0

    @property
    def passes(self) -> tuple[float, float]:
        """Every step."""
        return float(self.steps), 1.0


ATTACK_SPECS: dict[str, type[AttackSpec]] = {
    get_args(one.model_fields["name"].annotation)[0]: one
    for one in (InverterAttack, JointAttack, MiaAttack, OptimizationAttack, *LATENT_ATTACKS)
}
"""Attack by name -> its settings: the one list of attacks."""


def attack_name(value: Any) -> str | None:
    """Return which attack a raw or finished spec is; the inverter where no name is given."""
    name = value.get("name", "inverter") if isinstance(value, Mapping) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


def _validated(value: Any) -> AttackSpec:
    """Return the attack of `ATTACK_SPECS` that a value is; raise `ValidationError`."""
    return _adapter(tuple(ATTACK_SPECS.items())).validate_python(value)


@functools.cache
def _adapter(attacks: tuple[tuple[str, type[AttackSpec]], ...]) -> TypeAdapter[AttackSpec]:
    tagged: Any = tuple(Annotated[one, Tag(name)] for name, one in attacks)
    union: Any = Union[tagged]  # noqa: UP007 - of as many as there are
    return TypeAdapter(Annotated[union, Discriminator(attack_name)])


Attack = Annotated[
    SerializeAsAny[AttackSpec],
    PlainValidator(_validated, json_schema_input_type=Union[tuple(ATTACK_SPECS.values())]),  # noqa: UP007
]
"""What the adversary does, by name: a member of `ATTACK_SPECS`."""


def alternatives(attack: AttackSpec, suits: Callable[[type[AttackSpec]], bool]) -> str:
    """Return the attacks with as much access as `attack` that suit, else all that suit, as a way out."""
    suited = {name: one for name, one in ATTACK_SPECS.items() if suits(one)}
    alike = [name for name, one in suited.items() if one.access == attack.access]
    return f"attack.name={' or '.join(alike or suited)}"

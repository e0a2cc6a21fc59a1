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
from orchestrator.defense_specs import Bido, Defense, DpSgd, Mid, Smoothing
from orchestrator.spec_parts import Model, Recipe, Seed, Share, Spec

__all__ = [
    "ATTACK_SPECS",
    "Attack",
    "Auxiliary",
    "Bido",
    "Data",
    "Defense",
    "DpSgd",
    "Evaluation",
    "Fisher",
    "InverterAttack",
    "JointAttack",
    "Judge",
    "Losses",
    "MiaAttack",
    "Mid",
    "Model",
    "OptimizationAttack",
    "Pretrain",
    "PublicNetworks",
    "Recipe",
    "Release",
    "Seed",
    "Smoothing",
    "Spec",
    "Surrogate",
    "Target",
    "TrialSpec",
    "attack_name",
]


BUDGET = r"^[A-Za-z_][A-Za-z0-9_.-]*$|^(100|[1-9][0-9]?)(\.[0-9]+)?%$"
"""A name, or a percentage."""


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
    """Public training of the same network before the private classes are seen (TL-DMI, section 9): trained
    here, or weights that somebody else has trained."""

    weights: str | None = None
    """Name of public weights staged with `python -m jobs.stage_weights`; None trains them here."""

    dataset: str | None = None
    """What to train on; None: the public classes of the private data set (those outside `data.class_pool`).
    With `weights`, a set that their accuracy is checked on; None: they are not checked."""

    minimum_accuracy: Share = 0.0
    """A lower accuracy (on held-out images; of `weights`, on `dataset`) fails before F is trained."""

    recipe: Recipe = Recipe()
    """Training on the public classes; not used with `weights`."""

    seed: Seed = 0
    """Of weights, order and held-out images; the same for every target, like downloaded weights."""

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if self.weights and self.minimum_accuracy and self.dataset is None:
            raise ValueError(
                f"target.pretrain.minimum_accuracy={self.minimum_accuracy} of weights={self.weights} needs a "
                "labelled set to check them on; name target.pretrain.dataset or use 0."
            )
        return self


class Target(Spec):
    """The victim: classifier F over k private classes."""

    classes: Annotated[int, Field(ge=2)]
    """k, the full prediction size."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    pretrain: Pretrain | None = None
    """None trains from random weights."""

    budget: Annotated[str, Field(pattern=BUDGET)] | Annotated[float, Field(gt=0.0)] = "full"
    """Frozen-layer budget: `full` trains everything; a cut point's name freezes up to and including it; a
    number is |theta_C| in millions and `40%` a share of |theta_T|, either of the cut point within 5 %;
    `first`, `middle` and `last` are the layers trained, the last ones always (TL-DMI, supplement B.2)."""

    freeze: Literal["weights", "weights+statistics"] = "weights"
    """Whether frozen batch norms go on absorbing private data (as released) or are fixed too. With
    weights+statistics what frozen layers make of an image is computed once, unless images are augmented."""

    freezes_random: bool = False
    """True lets a budget freeze random first weights where there is no pretraining (VMI's ResNet-34)."""

    defense: Defense = Defense()
    """What else protects the training images; combines with the budget."""

    recipe: Recipe = Recipe()
    """Training on the private classes."""

    selection: Literal["held-out", "last", "test"] = "held-out"
    """Which epoch is kept: the best on held-out training images, the last, or the best on the test images,
    which AMI's released code takes."""

    snapshots: tuple[PositiveInt, ...] = ()
    """Epochs whose weights are kept as well, to be attacked by `snapshot`."""

    snapshot: PositiveInt | None = None
    """One of `snapshots`: F as it was after that epoch (TL-DMI, Figure 1). None: as `selection` says."""

    seed: Seed = 0
    """Of weights, order and held-out images."""

    @model_validator(mode="after")
    def _private_training_sees_no_statistics(self) -> Self:
        if self.defense.dp and self.budget != "full" and self.freeze == "weights":
            raise ValueError(
                "target.freeze=weights lets frozen batch norms absorb private images, which "
                "target.defense.dp cannot protect; set target.freeze=weights+statistics."
            )
        return self

    @model_validator(mode="after")
    def _snapshots_exist(self) -> Self:
        late = [epoch for epoch in self.snapshots if epoch > self.recipe.epochs]
        if late:
            raise ValueError(
                f"target.snapshots={late[0]} must lie in 1..target.recipe.epochs={self.recipe.epochs}; "
                "leave it out or train longer."
            )
        if self.snapshot is not None and self.snapshot not in self.snapshots:
            raise ValueError(
                f"target.snapshot={self.snapshot} must be one of target.snapshots={list(self.snapshots)}; "
                "add it there."
            )
        return self


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

    images: PositiveInt = 128
    """Private training images that the expectation runs over, at most."""

    distances: tuple[Literal["l2", "l1", "lpips-vgg", "lpips-alex"], ...] = ("l2",)
    """Between reconstructions and private images."""

    iterations: tuple[PositiveInt, ...] = (1, 10, 100)
    """Of a descending attack (mia): after which updates; an inverter has one profile."""


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

    networks: PublicNetworks = PublicNetworks()
    """Public networks that some metrics need."""

    fisher: Fisher | None = None
    """None leaves the Fisher analysis out."""

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
    def _profiles_can_be_made(self) -> Self:
        fisher, attack = self.evaluation.fisher, self.attack
        if fisher is None:
            return self
        if isinstance(attack, OptimizationAttack):
            raise ValueError(
                "evaluation.fisher differentiates an inverter or the last update of a descent, but "
                "attack.name=optimization is neither here; use null or attack.name=mia."
            )
        if isinstance(attack, MiaAttack) and attack.process != "none":
            raise ValueError(
                f"attack.process={attack.process} is no part of the update that evaluation.fisher "
                "differentiates; use none or leave the analysis out."
            )
        if not isinstance(attack, MiaAttack) and self.release.labels_only:
            raise ValueError(
                "release.labels_only=true leaves evaluation.fisher nothing to differentiate; release scores "
                "or leave the analysis out."
            )
        for kind in ("vgg", "alex"):
            if f"lpips-{kind}" in fisher.distances and getattr(self.evaluation.networks, kind) is None:
                raise ValueError(
                    f"evaluation.fisher.distances has lpips-{kind}, which needs evaluation.networks.{kind}; "
                    "name staged weights there or leave the distance out."
                )
        return self

    @model_validator(mode="after")
    def _attack_can_use_what_it_gets(self) -> Self:
        if isinstance(self.attack, JointAttack) and self.target.defense != Defense():
            raise ValueError(
                "target.defense protects from others, but with attack.name=joint the developer is the "
                "adversary; leave the defense out or choose another attack."
            )
        if isinstance(self.attack, JointAttack) and self.target.snapshot is not None:
            raise ValueError(
                f"target.snapshot={self.target.snapshot} has no inverter of its own under attack.name=joint; "
                "use null or choose another attack."
            )
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

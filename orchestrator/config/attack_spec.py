"""Base of all attacks: the traits that planning, validation and scheduling go by."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self, get_args

from pydantic import model_validator

from orchestrator.config.base import Model, Recipe, Refused, Seed, Spec
from orchestrator.config.release import Release
from orchestrator.config.students import FIELD as STUDENTS
from orchestrator.config.students import Augmentation, Student

Task = Literal["reconstruction", "class-inference"]
BOTH_TASKS: frozenset[Task] = frozenset(get_args(Task))

RELEASED_INSTEAD = {"labels_only": "scores", "renormalised": "them as they are"}
"""What to release where an attack cannot use a switch of the release."""


class Surrogate(Spec):
    """The adversary's own classifier, trained on the target's answers to auxiliary images."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    recipe: Recipe = Recipe()
    """Training on (auxiliary image, released scores) pairs."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


class AttackSpec(Spec):
    """The settings of an attack; its traits, class attributes, are no part of any key."""

    access: ClassVar[Literal["labels", "scores", "gradients", "features", "training"]]
    """What the adversary has of the target model: released labels or scores, the weights, of which it uses
    gradients alone or features too, or its training."""

    tasks: ClassVar[frozenset[Task]]
    """Values of `evaluation.task` that the attack can do."""

    leaves: ClassVar[Literal["inverter", "images"]]
    """What the attack's stage stores: a trained inverter of scores, or an image for each row of scores."""

    owns_images: ClassVar[bool] = False
    """Whether the adversary has images whatever the settings: the auxiliary set."""

    needs_prior: ClassVar[bool] = False
    """Whether it searches the latent space of a generator, which was trained on its images."""

    prior_losses: ClassVar[tuple[str, ...]] = ("hinge", "wgan-gp")
    """Values of `prior.loss` that it can search; of attacks that need a prior."""

    stops_early: ClassVar[bool] = False
    """Whether the target's answers decide how many `passes` an image takes."""

    queries_target: ClassVar[bool] = False
    """Whether it sends its images to the target's service and learns from the answers."""

    trains_target: ClassVar[bool] = False
    """Whether the adversary is the developer: one training leaves the target model and the inverter."""

    profile: ClassVar[Literal["inverter", "updates"] | None] = None
    """What `evaluation.fisher` differentiates: the inverter, single updates of the search, or nothing."""

    reports_epochs: ClassVar[bool] = False
    """Whether the attack's own training reports epochs to a scheduler, which may stop it early."""

    cannot_use: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Switch of `release` -> why the attack cannot work with what is released when it is on."""

    name: str
    """How studies call the attack."""

    seed: Seed = 0
    """Of everything that the attack draws."""

    @property
    def draws_candidates(self) -> bool:
        """Whether one search serves all candidates of a class: draws, or its best starts."""
        return False

    def check_release(self, release: Release) -> None:
        """Raise `Refused` if the attack cannot work with what is released."""
        for field, reason in self.cannot_use.items():
            if getattr(release, field):
                way_out = f"release {RELEASED_INSTEAD[field]} or choose another attack"
                raise Refused(f"release.{field}", "true", reason, way_out)

    def check_candidates(self, number: int) -> None:
        """Raise `Refused` if a search cannot give this many candidates of a class."""

    @property
    def has_weights(self) -> bool:
        """Whether the adversary has the target's weights."""
        return self.access in ("gradients", "features")

    @property
    def has_images(self) -> bool:
        """Whether the adversary has the auxiliary set, with these settings."""
        return self.owns_images

    @property
    def looks_up(self) -> Literal["auxiliary", "training", "none"]:
        """Which images the adversary has without an attack, with the target's answers to them: the auxiliary
        set, F's own training images as its developer, or none. Who has F's weights has its answers too."""
        if self.trains_target:
            return "training"
        has_answers = self.queries_target or self.has_weights
        return "auxiliary" if self.has_images and has_answers else "none"

    @property
    def first_level(self) -> float | None:
        """Grey level in [0, 1] of the image that a search starts from, before its noise; None where there is
        no such image, or it is the mean of the adversary's images."""
        return None

    @property
    def inverter(self) -> Model | None:
        """The network that rebuilds images from scores; None if the attack leaves images."""
        return None

    @property
    def classifiers(self) -> Mapping[str, Model]:
        """Field -> classifier that the adversary trains."""
        return {f"{STUDENTS}.{name}.model": one.model for name, one in self.students.items()}

    @property
    def recipes(self) -> Mapping[str, tuple[str, Recipe]]:
        """Stage -> field and recipe of the networks that are trained on the auxiliary images."""
        return {}

    @property
    def passes(self) -> tuple[float, float]:
        """How often a search passes an image through the target there and back, for its gradient, and there
        alone, for each image that it makes: at most, where it may stop early. No part of any key."""
        return 0.0, 0.0

    @property
    def shared_queries(self) -> int:
        """Images that a search sends to the target once for all classes: for each candidate, if each has a
        search of its own."""
        return 0

    @property
    def needs_critic(self) -> bool:
        """Whether it reads the critic that its prior was trained against."""
        return False

    @property
    def draws(self) -> bool:
        """Whether another seed gives another image of the same class."""
        return self.leaves == "images"

    @property
    def estimates_classes(self) -> bool:
        """Whether the adversary knows of the classes alone that the target's answers to its images name."""
        return False

    @property
    def surrogate(self) -> Surrogate | None:
        """The classifier trained on the target's answers; None if no loss needs one."""
        return None

    @property
    def augmentation(self) -> Augmentation | None:
        """The identity loss that reads students and features; None for any other."""
        return None

    @property
    def students(self) -> Mapping[str, Student]:
        """Name -> copy of the target that a search reads; it learns from answers to the prior's images."""
        return self.augmentation.read_students if self.augmentation else {}

    @property
    def reads_features(self) -> bool:
        """Whether a search compares the target's features with their mean over the prior's images."""
        return self.augmentation is not None and self.augmentation.reads_features

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator of images is trained beside the attack."""
        return False

    @property
    def selects_on_target(self) -> bool:
        """Whether an epoch is chosen by the target's answers to its own training images."""
        return False

    @model_validator(mode="after")
    def _inverters_read_scores(self) -> Self:
        if self.inverter and self.inverter.scaling != "unit":
            rule = "is of a classifier's images, and an inverter reads scores"
            raise Refused("model.scaling", self.inverter.scaling, rule, "leave it out")
        return self

    def canonical(self) -> Self:
        """Return the attack without settings that change nothing."""
        return self

    def made_from(self, release: Release) -> tuple[Self, Release]:
        """Return the settings and the release that the attack's own stage depends on."""
        return self, release

    def check_profile(self) -> None:
        """Raise `Refused` if `evaluation.fisher` cannot differentiate the attack with these settings."""

"""Attacks that search the latent space of a generative prior: their settings and traits.

Rows never influence each other. Where released code couples them, a setting holds what it amounts to.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.base import Count, Positive, Refused, Seed, Share, Weight

Steps = Annotated[int, Field(ge=0, le=10_000_000)]
Restarts = Annotated[int, Field(ge=1, le=1000)]


class LatentAttack(AttackSpec):
    """What all of them are: a search for an image of a class that needs a prior."""

    tasks = frozenset({"class-inference"})
    leaves = "images"
    needs_prior = True


class GmiAttack(LatentAttack):
    """GMI (Zhang et al., CVPR 2020): descent on the identity loss and the critic's with momentum, from a
    random latent vector. White-box."""

    access = "gradients"

    name: Literal["gmi"]
    """How studies call this attack."""

    steps: Steps = 3000
    """Steps of every image (Ho et al.; 1500 in GMI's code, 2400 in KEDMI's); 0 leaves the start, a random
    G(z): the floor of every attack with this prior."""

    learning_rate: Positive = 0.02
    """Step size (0.01 on MNIST)."""

    momentum: Share = 0.9
    """Nesterov's momentum."""

    identity_weight: Weight = 100.0
    """lambda of the cross-entropy of the target's answer."""

    prior_weight: Weight = 1.0
    """Weight of the critic's answer; 0 leaves the critic out."""

    clip: Positive = 1.0
    """Each number of z is clipped to -clip..clip after a step."""

    identities: Count = 60
    """Images whose mean the released loss is, so that a step follows 1/60 of an image's gradient (100 in
    GMI's code); 1 follows the whole. It is a factor: no image's search depends on another's."""

    restarts: Restarts = 1
    """Starts of an image, of which the one with the target's largest logit is kept: 5 in GMI's code, 1 where
    all restarts count."""

    seed: Seed = 0
    """Draws the first z."""


class KedmiAttack(LatentAttack):
    """KEDMI (Chen et al., ICCV 2021): descent on the mean and variance of latent vectors, with a prior that
    learned from the target's answers. White-box."""

    access = "gradients"
    prior_losses = ("kedmi",)

    name: Literal["kedmi"]
    """How studies call the attack."""

    steps: Steps = 3000
    """Steps of every image (Ho et al.; 2400 in KEDMI's and LOMMA's code)."""

    learning_rate: Positive = 0.02
    """Step size of Adam."""

    identity_weight: Weight = 100.0
    """lambda of the cross-entropy of the target's answer."""

    prior_weight: Weight = 1.0
    """Weight of the critic's doubt that an image is real; 0 leaves the critic out."""

    log_variance: Annotated[float, Field(ge=-20.0, le=20.0)] = 0.0
    """First logarithm of the variance of each number of z: 0 in TL-DMI's code, 1 in KEDMI's and LOMMA's."""

    clip: Positive | None = 1.0
    """Each number of z is clipped to -clip..clip before G, as in LOMMA's and TL-DMI's code; None: not, as in
    KEDMI's."""

    beside: Count = 59
    """Generated images that the critic compares each image with, in place of the other identities of a batch
    of 60, so that no image's search depends on another's."""

    seed: Seed = 0
    """Draws z in each step, and the images beside."""


class PpaAttack(LatentAttack):
    """Plug & play attacks (Struppek et al., ICML 2022): starts chosen from a pool, descent on the Poincare
    distance of random crops, the most robust start kept; in z instead of StyleGAN2's w. White-box."""

    access = "gradients"

    name: Literal["ppa"]
    """How studies call this attack."""

    pool: Count = 2000
    """Latent vectors that all classes choose their starts from (5000 on CelebA)."""

    starts: Restarts = 4
    """Best of the pool that an image starts from, of which one is kept (200 for 50 images)."""

    steps: Steps = 50
    """Steps of every start (70 on CelebA, 100 on Stanford Dogs); 0 leaves the starts: with `starts: 1` the
    best of the pool."""

    learning_rate: Positive = 0.005
    """Step size of Adam, theirs for w."""

    betas: tuple[Share, Share] = (0.1, 0.1)
    """Decay of Adam's moments."""

    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Least area of the random crop that the target sees in a step, of 1 (0.75 on Stanford Dogs)."""

    views: Count = 100
    """Random crops over which the last images of the starts are compared."""

    mirrors: bool = True
    """Whether pool and last images are mirrored too; False suits digits."""

    clip: Positive = 1.5
    """Each number of z is clipped to -clip..clip, in the pool and after a step."""

    seed: Seed = 0
    """Draws pool and crops."""

    @property
    def shared_queries(self) -> int:
        """The pool, and its mirror images."""
        return self.pool * (2 if self.mirrors else 1)

    @model_validator(mode="after")
    def _starts_are_in_the_pool(self) -> Self:
        if self.starts > self.pool:
            rule = f"must be at most pool={self.pool}"
            raise Refused("starts", self.starts, rule, "enlarge the pool or lower attack.starts")
        return self


class BrepmiAttack(LatentAttack):
    """BREPMI (Kahla et al., CVPR 2022): moves away from a class's boundary by labels alone. Black-box."""

    access = "labels"

    name: Literal["brepmi"]
    """How studies call this attack."""

    points: Count = 32
    """Points of the sphere that are queried before a move."""

    margin: Share = 0.75
    """The radius grows when points of the class outnumber the others by more than this share of all: from 29
    of 32 on."""

    radius: Positive = 2.0
    """First radius of the sphere."""

    growth: Annotated[float, Field(gt=1.0, le=10.0)] = 1.3
    """Factor of the radius."""

    patience: Count = 1000
    """Moves that the target accepts since the radius last grew, after which a search ends; a radius of ten
    diameters of the cube of z ends it too."""

    signs: Literal["outside", "both"] = "outside"
    """outside: only points of other classes repel, as released; both: those of the class attract too."""

    clip: Positive = 1.5
    """Each number of z is clipped to -clip..clip, at the start and after a move."""

    batch: Count = 256
    """Random z that are queried together until one is of the class."""

    budget: Count = 500_000
    """Queries for an image at most, `batch` at least; released code has no bound."""

    seed: Seed = 0
    """Draws starts and directions."""

    @model_validator(mode="after")
    def _budgets_hold_a_batch(self) -> Self:
        if self.budget < self.batch:
            rule = f"must be at least batch={self.batch}"
            raise Refused("budget", self.budget, rule, "raise it or lower attack.batch")
        return self


LATENT_ATTACKS = (GmiAttack, KedmiAttack, PpaAttack, BrepmiAttack)
"""Attacks with a prior, in the order of the list of all attacks."""

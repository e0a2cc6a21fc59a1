"""Settings of MIRROR, with weights and with scores: searches among the styles of a generator."""

from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Intensity, Positive, Refused, Seed, Weight
from orchestrator.config.latent_attacks.base import LatentAttack, Restarts, Steps, check_in_pool
from orchestrator.config.release import Release

Layers = Annotated[int, Field(ge=0, le=100)]


class StylePoolAttack(LatentAttack):
    """What both share: a pool of styles w that the search starts from and stays near."""

    pool: Count = 100_000
    """Styles w that are drawn for all classes together: their starts, and their mean and deviation."""

    psi: Intensity = 0.7
    """Truncation of w before synthesis: the share of its distance from the mean that remains; without effect
    where z itself is the style."""

    cutoff: Layers = 8
    """Layers that read truncated styles, the first ones."""

    deviations: Positive = 1.0
    """Each number of w stays within this many deviations of its mean over the pool, taken before the last
    activation of the mapping (P space), or of z where that is the style."""

    seed: Seed = 0
    """Draws everything."""

    @property
    def shared_queries(self) -> int:
        """The pool."""
        return self.pool


class MirrorAttack(StylePoolAttack):
    """MIRROR (An et al., NDSS 2022): descent on the cross-entropy in styles, from the best of a pool, clipped
    in P space. White-box."""

    access = "gradients"

    name: Literal["mirror"]
    """How studies call this attack."""

    steps: Steps = 500
    """Steps of every start (Ho et al.; 20,000 by default in the code)."""

    learning_rate: Positive = 0.25
    """Step size of Adam after a warm-up of a twentieth of the steps; in the last quarter it falls to 0."""

    identity_weight: Positive = 10.0
    """Weight of the cross-entropy of the target's answer."""

    starts: Restarts = 8
    """Best of the pool that an image starts from, of which one is kept."""

    mirrors: bool = True
    """Whether the target sees half of the images mirrored; False suits digits."""

    coupling: Literal["none", "released"] = "none"
    """none: each start has a coin of its own for mirroring in each step, and keeps the w of its lowest loss;
    released: the starts of an image share one coin, and keep the w after the step whose mean loss is the
    lowest."""

    @model_validator(mode="after")
    def _starts_are_in_the_pool(self) -> Self:
        check_in_pool("starts", self.starts, self.pool)
        return self

    @property
    def passes(self) -> tuple[float, float]:
        """Every step of every start."""
        return float(self.steps * self.starts), float(self.starts)


class MirrorBlackBoxAttack(StylePoolAttack):
    """MIRROR with scores alone (An et al., NDSS 2022): a genetic search among styles, by what the service
    releases. Black-box."""

    access = "scores"
    stops_early = True
    cannot_use = MappingProxyType(
        {"labels_only": "gives attack.name=mirror-black-box no scores to breed by"},
    )

    name: Literal["mirror-black-box"]
    """How studies call this attack."""

    population: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Styles of a generation, all of which are queried (1000 in their scripts; 100 is their default)."""

    generations: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Generations at most; 0 leaves the best of the pool."""

    score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """A search ends when the released score of its class reaches it."""

    crossover: Literal["corrected", "released"] = "corrected"
    """A child takes each number from its first parent with probability p1 / (p1 + p2); released: with the
    logarithms of the scores p, which prefers the worse parent."""

    mutation: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability that a number of a child is moved in P space."""

    reach: Weight = 0.1
    """It moves by a uniform number within this many deviations of the pool."""

    moves: Literal["corrected", "released"] = "corrected"
    """corrected: of each child by numbers of its own; released: all children of a generation by the same."""

    @model_validator(mode="after")
    def _populations_are_in_the_pool(self) -> Self:
        check_in_pool("population", self.population, self.pool)
        return self

    def check_release(self, release: Release) -> None:
        """Raise `Refused` if labels are released, or scores that are 0 or 1: one, divided by itself."""
        super().check_release(release)
        if release.truncation == 1 and release.renormalised:
            rule = f"with release.renormalised=true gives attack.name={self.name} only 0 and 1 to breed by"
            way_out = "release more scores, set release.renormalised=false or choose another attack"
            raise Refused("release.truncation", 1, rule, way_out)

    @property
    def passes(self) -> tuple[float, float]:
        """Every style of every generation."""
        return 0.0, float(self.population * max(1, self.generations))

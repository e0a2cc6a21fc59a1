"""Settings of PPA: plug & play attacks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Intensity, Positive, Refused, Seed, Share, added_field
from orchestrator.config.latent_attacks.base import Candidates, LatentAttack, Restarts, Steps, check_in_pool


class PpaAttack(LatentAttack):
    """Plug & play attacks (Struppek et al., ICML 2022): starts chosen from a pool, descent on the Poincare
    distance of random crops, the most robust start kept; in w where the generator has a mapping, else in z.
    White-box."""

    access = "gradients"

    name: Literal["ppa"]
    """How studies call this attack."""

    pool: Count = 2000
    """Latent vectors that all classes choose their starts from (5000 on CelebA)."""

    starts: Restarts = 4
    """Best of the pool that an image starts from, of which one is kept (200 for 50 images)."""

    candidates: Candidates = added_field("own")
    """own: each of `evaluation.candidates` images of a class has a pool and `starts` of its own, of which the
    most robust is kept; released: they are the most robust of the `starts` of one search (theirs: 50 of 200),
    and as many as there are starts are all of them, the unfiltered figure."""

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
    """Each number of z is clipped to -clip..clip, in the pool and after a step; w is not."""

    psi: Intensity = added_field(0.5)
    """Share of w that truncation leaves of its distance from the mean, for a generator with a mapping; others
    have nothing to truncate."""

    cutoff: Count = added_field(8)
    """First layers of such a generator that are truncated."""

    truncation: Literal["released", "corrected"] = added_field("released")
    """released: the first layer's w of a candidate, truncated, is searched for all layers, so that the start
    is another image than the one that was scored; corrected: w before truncation is searched, and every image
    is truncated as the candidates are."""

    seed: Seed = 0
    """Draws pool and crops."""

    @property
    def draws_candidates(self) -> bool:
        """Released: they are the best of one search."""
        return self.candidates == "released"

    def check_candidates(self, number: int) -> None:
        """Raise `Refused` if one search has fewer starts than there are candidates."""
        if self.draws_candidates and number > self.starts:
            rule = f"is fewer than evaluation.candidates={number}, which candidates=released takes from them"
            raise Refused("attack.starts", self.starts, rule, "raise it or set attack.candidates=own")

    @property
    def shared_queries(self) -> int:
        """The pool, and its mirror images."""
        return self.pool * (2 if self.mirrors else 1)

    @model_validator(mode="after")
    def _starts_are_in_the_pool(self) -> Self:
        check_in_pool("starts", self.starts, self.pool)
        return self

    @property
    def passes(self) -> tuple[float, float]:
        """Every step of every start, then the views of the last images."""
        return float(self.steps * self.starts), float(self.starts * (self.views if self.starts > 1 else 1))

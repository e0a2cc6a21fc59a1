"""Settings of GMI and KEDMI: descent on the identity loss and that of the prior's critic."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import Count, Positive, Refused, Seed, Share, Weight, added_field
from orchestrator.config.latent_attacks.base import Candidates, LatentAttack, Restarts, Steps


class GmiAttack(LatentAttack):
    """GMI (Zhang et al., CVPR 2020): descent on the identity loss and the critic's with momentum, from a
    random latent vector. White-box."""

    access = "gradients"
    profile = "updates"

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

    def check_profile(self) -> None:
        """Raise `Refused` if an image has several starts, of which the analysis would not know the best."""
        if self.restarts > 1:
            rule = "leaves evaluation.fisher several starts"
            raise Refused("attack.restarts", self.restarts, rule, "use 1 or leave the analysis out")

    @property
    def needs_critic(self) -> bool:
        """Whether its answer has a weight."""
        return self.prior_weight > 0

    @property
    def passes(self) -> tuple[float, float]:
        """Every step of every start."""
        return float(self.steps * self.restarts), float(self.restarts)


class KedmiAttack(LatentAttack):
    """KEDMI (Chen et al., ICCV 2021): descent on the mean and variance of latent vectors, with a prior that
    learned from the target's answers. White-box."""

    access = "gradients"
    profile = "updates"
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

    candidates: Candidates = added_field("own")
    """own: each of `evaluation.candidates` images of a class has a search of its own; released: they are
    draws from the mean and variance that one search found (theirs: 5), at the cost of one."""

    seed: Seed = 0
    """Draws z in each step, and the images beside."""

    @property
    def draws_candidates(self) -> bool:
        """Released: they are draws from what one search found."""
        return self.candidates == "released"

    @property
    def passes(self) -> tuple[float, float]:
        """Every step."""
        return float(self.steps), 1.0

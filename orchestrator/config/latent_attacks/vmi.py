"""Settings of VMI: a distribution of latents for each class."""

from typing import Annotated, Literal, Self

from pydantic import Field

from orchestrator.config.base import Count, Positive, Seed, Share, Weight
from orchestrator.config.latent_attacks.base import LatentAttack, Steps


class VmiAttack(LatentAttack):
    """VMI (Wang et al., NeurIPS 2021): a distribution of latents for each style input, near N(0, I), whose
    images the target takes for the class; all images of a class are draws from it. White-box."""

    access = "gradients"

    name: Literal["vmi"]
    """How studies call this attack."""

    family: Literal["flow", "gaussian"] = "flow"
    """flow: Glow on vectors, as released; gaussian: mean and deviation of each number, much cheaper."""

    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """Levels of a flow, each on half of the numbers of the one before; those with fewer than two numbers are
    left out."""

    couplings: Annotated[int, Field(ge=1, le=100)] = 10
    """Normalisations, permutations and couplings of a level."""

    width: Annotated[int, Field(ge=1, le=4096)] = 100
    """Hidden units of a coupling's network."""

    normalisation: Literal["released", "identity"] = "released"
    """First scale and shift of a flow's normalisations: released, of 100 draws from N(0, I), which leaves the
    flow some nats from N(0, I); identity, which leaves it N(0, I) itself."""

    steps: Steps = 3140
    """Steps for a class. Released code saves the flow that it draws from after 20 epochs of 157, and trains
    on to 31 (4,867 steps); Ho et al. print 320."""

    samples: Count = 64
    """Images in a step, of a class."""

    learning_rate: Positive = 1e-4
    """Step size of momentum."""

    momentum: Share = 0.9
    """Of the descent."""

    divergence_weight: Weight = 1e-3
    """Weight of the divergence from N(0, I) in nats, mean over the style inputs."""

    seed: Seed = 0
    """Draws everything."""

    @property
    def draws_candidates(self) -> bool:
        """All of them are draws from the class's distribution."""
        return True

    def canonical(self) -> Self:
        """Leave out a flow's settings where there is none."""
        if self.family == "flow":
            return self
        names = ("levels", "couplings", "width", "normalisation")
        return self.but(**{name: type(self).model_fields[name].default for name in names})

    @property
    def passes(self) -> tuple[float, float]:
        """Every sample of every step."""
        return float(self.steps * self.samples), 1.0

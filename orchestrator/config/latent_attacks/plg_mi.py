"""Settings of PLG-MI: descent on the target's max-margin loss with a conditional prior of its classes."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import Positive, Seed
from orchestrator.config.latent_attacks.base import LatentAttack, Restarts, Steps


class PlgMiAttack(LatentAttack):
    """PLG-MI (Yuan et al., AAAI 2023): descent on the max-margin loss of random views, with a conditional
    prior that learned the target's classes. White-box."""

    access = "gradients"
    prior_losses = ("plg",)

    name: Literal["plg-mi"]
    """How studies call the attack."""

    steps: Steps = 600
    """Steps of every image; 0 leaves the start, a random image of the class by the prior."""

    learning_rate: Positive = 0.1
    """Step size of Adam."""

    augmentations: Annotated[int, Field(ge=1, le=1000)] = 2
    """Random views of the image that the target sees in a step."""

    restarts: Restarts = 1
    """Starts of an image, of which the one with the target's largest logit is kept; released code has 5 and
    counts them all, as `evaluation.candidates` does."""

    seed: Seed = 0
    """Draws the first z, and the views in each step."""

    @property
    def passes(self) -> tuple[float, float]:
        """Every view in every step of every start."""
        return float(self.steps * self.restarts * self.augmentations), float(self.restarts)

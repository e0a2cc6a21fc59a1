"""Prior: the generator of public images that attacks search, and its training against a critic.

`hinge` is this project's recipe: spectral norm, one critic step for each generator step, averaged weights and
augmentation of real and generated images alike. `wgan-gp` is GMI's, as released (Zhang et al., CVPR 2020),
`kedmi` the inversion-specific GAN of Chen et al. (ICCV 2021), which learns from a target's answers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Model, Recipe, Refused, Seed, Share, Spec, Weight, added_field

StepSize = Annotated[float, Field(gt=0.0, le=10.0)]

RELEASED: Mapping[str, Mapping[str, Any]] = {
    loss: {
        "epochs": epochs,
        "critic_learning_rate": 2e-4,
        "critic_steps": 5,
        "average": 0.0,
        "augmentation": "none",
    }
    for loss, epochs in (("wgan-gp", 280), ("kedmi", 120))
}
"""Loss -> its released values where they are not the defaults."""

HELD_OUT = 0.05
"""Share of the public images that the critic is tested on and not trained."""


class Prior(Spec):
    """A generative prior, trained on public images. But for `kedmi` it depends on no target, so that all of
    them share it.

    With `loss: wgan-gp` or `kedmi`, fields that are left out have the values of their release.
    """

    loss: Literal["hinge", "wgan-gp", "kedmi"] = "hinge"
    """hinge: on a critic with spectral norms; wgan-gp: Wasserstein loss with a gradient penalty; kedmi: on a
    classifier of the target's answers to the public images, one prior for each target."""

    model: Model = Model(name="gmi")
    """A generator of `models.GENERATORS`; the critic has the same width."""

    dataset: str | None = None
    """Public images, with or without classes, none of them private. None: the public classes of the private
    data set (those outside `data.class_pool`)."""

    epochs: Annotated[int, Field(gt=0, le=100_000)] = 100
    """Passes over the public images; wgan-gp: 280 (GMI; 120 in LOMMA); kedmi: 120. The last epoch is kept."""

    batch_size: Annotated[int, Field(gt=0, le=65_536)] = 64
    """Images in one step of the critic, over all workers together."""

    learning_rate: StepSize = 2e-4
    """Step size of the generator (Adam, betas 0.5 and 0.999)."""

    critic_learning_rate: StepSize = 4e-4
    """Step size of the critic; wgan-gp and kedmi: 0.0002."""

    critic_steps: Count = 1
    """Steps of the critic, one for each batch, before each step of the generator; wgan-gp and kedmi:
    5."""

    average: Share = 0.99
    """Decay of the moving average of the generator's weights, which is the prior; 0 keeps the weights
    themselves; wgan-gp and kedmi: 0."""

    augmentation: Literal["none", "brightness-shift"] = "brightness-shift"
    """Of real and generated images before the critic: brightness-shift changes brightness by up to 0.25 and
    moves images by up to an eighth of their side; wgan-gp and kedmi: none."""

    penalty: Weight = 10.0
    """Weight of the gradient penalty; of wgan-gp."""

    teacher_mode: Literal["eval", "train"] = added_field("eval")
    """Mode in which the target labels public images, of kedmi: train, as released, with statistics of each
    batch and dropout."""

    seed: Seed = 0
    """Of weights, order and latents."""

    @model_validator(mode="before")
    @classmethod
    def _released_values(cls, raw: Any) -> Any:
        loss = raw.get("loss") if isinstance(raw, Mapping) else None
        return {**RELEASED[loss], **raw} if isinstance(loss, str) and loss in RELEASED else raw

    @model_validator(mode="after")
    def _generators_read_latents(self) -> Self:
        if self.model.scaling != "unit":
            rule = "is of a classifier's images, and a generator reads latents"
            raise Refused("model.scaling", self.model.scaling, rule, "leave it out")
        return self

    def canonical(self) -> Self:
        """Leave out the settings that the loss does not read."""
        defaults = type(self)()
        penalty = self.penalty if self.loss == "wgan-gp" else defaults.penalty
        teacher_mode = self.teacher_mode if self.needs_target else defaults.teacher_mode
        return self.but(penalty=penalty, teacher_mode=teacher_mode)

    @property
    def needs_target(self) -> bool:
        """Whether it is trained on the answers of a target, and so is another for each."""
        return self.loss == "kedmi"

    @property
    def recipe(self) -> Recipe:
        """The epochs and batches of the training loop; each network has a learning rate of its own."""
        sizes = {"epochs": self.epochs, "batch_size": self.batch_size}
        return Recipe(**sizes, optimizer="adam", validation_fraction=HELD_OUT)

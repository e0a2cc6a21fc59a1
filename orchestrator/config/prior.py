"""Prior: the generator of public images that attacks search, and its training against a critic.

`hinge` is this project's recipe: spectral norm, one critic step for each generator step, averaged weights and
augmentation of real and generated images alike. `wgan-gp` is GMI's, as released (Zhang et al., CVPR 2020),
`kedmi` the inversion-specific GAN of Chen et al. (ICCV 2021), which learns from a target's answers, `plg` the
conditional GAN of Yuan et al. (AAAI 2023), which learns images of each of its classes.
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
    for loss, epochs in (("wgan-gp", 280), ("kedmi", 120), ("plg", 320))
}
"""Loss -> its released values where they are not the defaults."""

GENERATOR = {"plg": {"name": "plg"}}
"""Loss -> its generator where it is not the default."""

OWN: Mapping[str, tuple[str, ...]] = {
    "wgan-gp": ("penalty",),
    "kedmi": ("teacher_mode",),
    "plg": ("images_per_class", "inversion_weight", "output_range"),
}
"""Loss -> the settings that it alone reads."""

HELD_OUT = 0.05
"""Share of the public images that the critic is tested on and not trained."""


class Prior(Spec):
    """A generative prior, trained on public images. But for `kedmi` and `plg` it depends on no target, so
    that all of them share it.

    With another loss than `hinge`, fields that are left out have the values of its release.
    """

    loss: Literal["hinge", "wgan-gp", "kedmi", "plg"] = "hinge"
    """hinge: on a critic with spectral norms; wgan-gp: Wasserstein loss with a gradient penalty; kedmi: on a
    classifier of the target's answers to the public images; plg: images of each of the target's classes,
    hinge loss and the target's max-margin loss. kedmi and plg are one prior for each target."""

    model: Model = Model(name="gmi")
    """A generator of `models.GENERATORS`, of plg: plg; the critic has the same width."""

    dataset: str | None = None
    """Public images, with or without classes, none of them private. None: the public classes of the private
    data set (those outside `data.class_pool`)."""

    epochs: Annotated[int, Field(gt=0, le=100_000)] = 100
    """Passes over the public images; wgan-gp: 280 (GMI; 120 in LOMMA); kedmi: 120. plg: over the chosen
    images of all classes, 320: for 1000 classes with 30 images each, a twentieth of them held out, 28,544
    steps of the generator (30,000 in its code). The last epoch is kept."""

    batch_size: Annotated[int, Field(gt=0, le=65_536)] = 64
    """Images in one step of the critic, over all workers together."""

    learning_rate: StepSize = 2e-4
    """Step size of the generator (Adam, betas 0.5 and 0.999; plg: 0 and 0.9)."""

    critic_learning_rate: StepSize = 4e-4
    """Step size of the critic; other losses than hinge: 0.0002."""

    critic_steps: Count = 1
    """Steps of the critic, one for each batch, before each step of the generator; other losses
    than hinge: 5."""

    average: Share = 0.99
    """Decay of the moving average of the generator's weights, which is the prior; 0 keeps the weights
    themselves; other losses than hinge: 0."""

    augmentation: Literal["none", "brightness-shift"] = "brightness-shift"
    """Of real and generated images before the critic: brightness-shift changes brightness by up to 0.25 and
    moves images by up to an eighth of their side; other losses than hinge: none."""

    penalty: Weight = 10.0
    """Weight of the gradient penalty; of wgan-gp."""

    teacher_mode: Literal["eval", "train"] = added_field("eval")
    """Mode in which the target labels public images, of kedmi: train, as released, with statistics of each
    batch and dropout."""

    images_per_class: Count = added_field(30)
    """Public images of each class, those that the target gives its highest scores; of plg. An image may serve
    several classes."""

    inversion_weight: Weight = added_field(0.2)
    """Weight of the target's max-margin loss of generated images in the generator's loss; of plg."""

    output_range: Literal["corrected", "released"] = added_field("corrected")
    """Of the generator of plg: released: a tanh, in -1..1, trained against images in 0..1; corrected: the
    same brought to 0..1."""

    weights: str | None = added_field(None)
    """A generator that others trained, staged with `python -m jobs.stage_weights` and its `--model stylegan2`
    or `dcgan`, in place of the training, whose settings it leaves unused; it has no critic. Its images become
    grey or RGB and are resized as the data's."""

    crop: Annotated[float, Field(gt=0.0, le=1.0)] = added_field(1.0)
    """Side of the centre crop of the images of `weights`, of 1, before they are resized (PPA: 0.78125 of FFHQ
    and MetFaces, 800 of 1024 pixels)."""

    seed: Seed = 0
    """Of weights, order and latents."""

    @model_validator(mode="before")
    @classmethod
    def _released_values(cls, raw: Any) -> Any:
        loss = raw.get("loss") if isinstance(raw, Mapping) else None
        if not isinstance(loss, str) or loss not in RELEASED:
            return raw
        model = {"model": GENERATOR[loss]} if loss in GENERATOR else {}
        return {**RELEASED[loss], **model, **raw}

    @model_validator(mode="after")
    def _generators_read_latents(self) -> Self:
        if self.model.scaling != "unit":
            rule = "is of a classifier's images, and a generator reads latents"
            raise Refused("model.scaling", self.model.scaling, rule, "leave it out")
        return self

    def canonical(self) -> Self:
        """Leave out the settings that the loss does not read, and with `weights` all of the training."""
        if self.weights:
            return type(self)(weights=self.weights, crop=self.crop)
        defaults = type(self)()
        unread = (name for loss, names in OWN.items() if loss != self.loss for name in names)
        return self.but(**{name: getattr(defaults, name) for name in unread}, crop=defaults.crop)

    @property
    def needs_target(self) -> bool:
        """Whether it is trained on the answers of a target, and so is another for each."""
        return self.loss in ("kedmi", "plg")

    def num_trained_on(self, num_images: int, classes: int) -> int:
        """Return how many images it learns from, of so many public ones, held-out ones included."""
        return classes * min(self.images_per_class, num_images) if self.loss == "plg" else num_images

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the moments of Adam, for both networks."""
        return (0.0, 0.9) if self.loss == "plg" else (0.5, 0.999)

    @property
    def recipe(self) -> Recipe:
        """The epochs and batches of the training loop; each network has a learning rate of its own."""
        sizes = {"epochs": self.epochs, "batch_size": self.batch_size}
        return Recipe(**sizes, optimizer="adam", validation_fraction=HELD_OUT)

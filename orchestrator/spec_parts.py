"""What every spec is made of: a frozen record, and the parts that several of them have."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Weight = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Intensity = Annotated[float, Field(ge=0.0, le=1.0)]


class Spec(BaseModel):
    """A frozen record that refuses unknown fields; its canonical JSON enters stage keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Model(Spec):
    """A network by name and channel width."""

    name: str
    """Key of `models.CLASSIFIERS` or `models.INVERTERS`."""

    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on every hidden channel count; 1 is the printed network, 0.125 suits a laptop."""


class Recipe(Spec):
    """How a network is trained. Defaults: AMI's released code (Adam with AMSGrad, betas 0.5 and 0.999)."""

    epochs: PositiveInt = 100
    """Passes over the training images; the epoch that is best on held-out images is kept."""

    batch_size: PositiveInt = 128
    """Images in one optimiser step, over all workers together."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Adam step size."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """L2 penalty of the trainable parameters."""

    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the stage's own images held out to choose the best epoch; never the victim's test images."""

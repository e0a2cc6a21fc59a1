"""Settings of LOMMA: GMI's or KEDMI's descent on another identity loss."""

from typing import Annotated, Literal, Self

from pydantic import Field

from orchestrator.config.base import Spec, Weight
from orchestrator.config.latent_attacks.base import Steps
from orchestrator.config.latent_attacks.gmi import GmiAttack, KedmiAttack
from orchestrator.config.students import Augmentation


class Lomma(Spec):
    """The identity loss that both have."""

    identity_weight: Weight = 100.0
    """Weight of the identity loss."""

    identity: Augmentation = Augmentation()
    """The identity loss."""

    @property
    def augmentation(self) -> Augmentation:
        """Its identity loss."""
        return self.identity

    def canonical(self) -> Self:
        """Leave out what the identity loss does not read."""
        return self.but(identity=self.identity.canonical())


class LommaGAttack(Lomma, GmiAttack):
    """LOMMA on GMI (Nguyen et al., CVPR 2023): GMI's descent on the class's logit of the target and of its
    students, with the target's features held near their mean. White-box."""

    access = "features"  # type: ignore[assignment]
    profile = None  # type: ignore[assignment]  # features are not differentiated by theta

    name: Literal["lomma-g"]  # type: ignore[assignment]
    """How studies call this attack."""

    steps: Steps = 2400
    """Steps of every image (Ho et al., Table 11, and LOMMA's code); 0 leaves the start, a random G(z)."""


class LommaKAttack(Lomma, KedmiAttack):
    """LOMMA on KEDMI (Nguyen et al., CVPR 2023): KEDMI's descent and prior, on the class's logit of the
    target and of its students, with the target's features held near their mean. White-box."""

    access = "features"  # type: ignore[assignment]
    profile = None  # type: ignore[assignment]  # features are not differentiated by theta

    name: Literal["lomma-k"]  # type: ignore[assignment]
    """How studies call this attack."""

    steps: Steps = 2400
    """Steps of every image (Ho et al., Table 11, and LOMMA's code)."""

    log_variance: Annotated[float, Field(ge=-20.0, le=20.0)] = 1.0
    """First logarithm of the variance of each number of z, as in LOMMA's code."""

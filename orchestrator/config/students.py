"""Students: the adversary's copies of the target, and the identity loss that reads them (LOMMA)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import InstanceName, Model, Recipe, Refused, Seed, Spec, Weight

FIELD = "attack.identity.students"
"""Where an attack that has students names them."""

DISTILLATION = Recipe(
    epochs=20, batch_size=64, optimizer="sgd", learning_rate=0.01, momentum=0.9, weight_decay=1e-4
)
"""How LOMMA's students learn."""


class Student(Spec):
    """The adversary's copy of the target, trained on its answers to the prior's public images."""

    model: Model
    """A classifier of `models.CLASSIFIERS`."""

    weights: str | None = None
    """Name of public weights staged with `python -m jobs.stage_weights` that its training starts from, as
    LOMMA's do from ImageNet's; None: random first weights."""

    recipe: Recipe = DISTILLATION
    """Training on pairs of a public image and its scores; by default 20 epochs of batches of 64, SGD 0.01."""

    seed: Seed = 0
    """Of weights, order and held-out images."""


EFFICIENT_NETS = {name: Student(model=Model(name=f"efficientnet_{name}")) for name in ("b0", "b1", "b2")}
"""LOMMA's students, without their first weights."""


class Augmentation(Spec):
    """The identity loss of LOMMA: the class's logit of several networks, and the target's features."""

    loss: Literal["full", "logit", "augmented"] = "full"
    """full: minus the class's logit, mean over target and students, and the feature term; logit: the same
    without students (L_logit); augmented: cross-entropy, mean over target and students, without the feature
    term (L_aug)."""

    feature_weight: Weight = 1.0
    """Weight of the mean squared distance of the target's features from their mean over public images."""

    students: dict[InstanceName, Student] = Field(EFFICIENT_NETS)
    """By name: copies of the target, each trained once for a target; by default EfficientNet-B0, -B1 and -B2
    from random weights."""

    @property
    def read_students(self) -> dict[str, Student]:
        """Those that the loss reads."""
        return {} if self.loss == "logit" else self.students

    @property
    def reads_features(self) -> bool:
        """Whether the loss has a feature term."""
        return self.loss != "augmented" and self.feature_weight > 0.0

    def canonical(self) -> Self:
        """Leave out what the loss does not read."""
        weight = 1.0 if self.loss == "augmented" else self.feature_weight
        return self.but(feature_weight=weight, students=self.read_students)

    @model_validator(mode="after")
    def _has_students(self) -> Self:
        if not self.students and self.loss != "logit":
            rule = f"names none, and loss={self.loss} averages over them"
            raise Refused("students", "{}", rule, "leave it out for three EfficientNets or use loss=logit")
        return self

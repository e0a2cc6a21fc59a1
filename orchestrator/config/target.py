"""Target model F: its network, public pretraining, frozen-layer budget and training, or given weights."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import (
    NO_VALUE,
    Count,
    Model,
    Recipe,
    Refused,
    Seed,
    Share,
    Spec,
    added_field,
    first_set,
)
from orchestrator.config.budget import FULL, Budget
from orchestrator.config.defenses import Defense

TRAINING = ("pretrain", "freezes_random", "recipe", "selection", "snapshots", "seed")
"""Settings of a training of F, which given weights have not here."""

FOREIGN = {"program": Model(name="program"), "service": Model(name="service")}
"""Field that names an F which is no network of this project -> what stands for its network."""


class Pretrain(Spec):
    """Public training of the same network before the private classes are seen (TL-DMI, section 9): trained
    here, or public weights."""

    weights: str | None = None
    """Name of public weights staged with `python -m jobs.stage_weights`; None trains them here."""

    dataset: str | None = None
    """What to train on; None: the public classes of the private data set (those outside `data.class_pool`).
    With `weights`, a set that their accuracy is checked on; None: they are not checked."""

    minimum_accuracy: Share = 0.0
    """A lower accuracy (on held-out images; of `weights`, on `dataset`) fails before F is trained."""

    recipe: Recipe = Recipe()
    """Training on the public classes; not used with `weights`."""

    seed: Seed = 0
    """Of weights, order and held-out images; the same for every target, like downloaded weights."""

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if self.weights and self.minimum_accuracy and self.dataset is None:
            raise Refused(
                "minimum_accuracy",
                self.minimum_accuracy,
                f"of weights={self.weights} needs a labelled set to check them on",
                "name target.pretrain.dataset or use 0",
            )
        return self


class Target(Spec):
    """Target model F: a classifier of k private classes."""

    classes: Annotated[int, Field(ge=2, le=10_000_000)]
    """k, the full prediction size."""

    model: Model
    """A classifier of `models.CLASSIFIERS`; left out with `program` and `service`, which are their own
    network."""

    program: str | None = added_field(None)
    """Name of a classifier staged with `python -m jobs.stage_weights --program` that is F: TorchScript,
    torch.export or ONNX. As with `weights`, nothing is trained. It has no layers by name: no `budget`, no
    `defense` that changes the network, no attack that reads features; ONNX has no gradients either."""

    service: str | None = added_field(None)
    """Name of a service staged with `python -m jobs.stage_weights --service` that is F: it answers over HTTP,
    within a budget of requests, with what it releases; answers are stored once. As with `program` nothing is
    trained and there are no layers, and there are no gradients either."""

    weights: str | None = added_field(None)
    """Name of weights staged with `python -m jobs.stage_weights` that are F, head included: a model that
    exists is attacked, and nothing is trained. Output i is of the i-th private class (`data.class_order`);
    the part `train` of `data.split` is what F was trained on. Settings of a training (`pretrain`,
    `freezes_random`, `recipe`, `selection`, `snapshots`, `seed`) keep their defaults. None trains F here."""

    minimum_accuracy: Share = added_field(0.0)
    """Of `weights`, `program` or `service`: a lower accuracy on the private test images fails before any
    attack. Part of the keys of the stage `given` and of what follows: another value repeats the attacks."""

    pretrain: Pretrain | None = None
    """None trains from random weights."""

    budget: Budget = FULL
    """Frozen-layer budget: `full` trains everything; a cut point's name freezes up to and including it; a
    number is |theta_C| in millions and `40%` a share of |theta_T|, either of the cut point within 5 %;
    `first`, `middle` and `last` are the layers trained, the last ones always (TL-DMI, supplement B.2). Of
    `weights` it says what was frozen when they were trained, for theta_C in tables."""

    freeze: Literal["weights", "weights+statistics"] = "weights"
    """Whether the statistics of frozen batch norms go on following private data (as released) or are fixed
    too. With weights+statistics frozen activations are computed once, unless images are augmented."""

    freezes_random: bool = False
    """True lets a budget freeze random first weights where there is no pretraining (VMI's ResNet-34)."""

    defense: Defense = Defense()
    """What else protects the training images; combines with the budget. Of `weights` it says how they were
    trained: `mid`, `loft`, `rolss` and `dp` change the network, which the file must hold so; the others only
    label results."""

    recipe: Recipe = Recipe()
    """Training on the private classes."""

    selection: Literal["held-out", "last", "test"] = "held-out"
    """Which epoch is kept: the best on held-out training images, the last, or the best on the test images,
    which AMI's and TL-DMI's released code takes; then all training images are trained on."""

    snapshots: tuple[Count, ...] = ()
    """Epochs whose weights are kept as well, to be attacked by `snapshot`."""

    snapshot: Count | None = None
    """One of `snapshots`: F as it was after that epoch (TL-DMI, Figure 1). None: as `selection` says."""

    seed: Seed = 0
    """Of weights, order and held-out images."""

    @model_validator(mode="after")
    def _private_training_sees_no_statistics(self) -> Self:
        if self.defense.dp and self.budget != FULL and self.freeze == "weights":
            raise Refused(
                "freeze",
                self.freeze,
                "lets frozen batch norms absorb private images, which target.defense.dp cannot protect",
                "set target.freeze=weights+statistics",
            )
        return self

    @property
    def given(self) -> str | None:
        """The field that names F where it exists: `weights`, `program` or `service`; None where F is trained
        here."""
        return next((field for field in ("weights", *FOREIGN) if getattr(self, field) is not None), None)

    @property
    def foreign(self) -> str | None:
        """The field that names F where it is no network of this project, `program` or `service`."""
        return self.given if self.given in FOREIGN else None

    @property
    def named(self) -> str:
        """The field that names F where it exists, with the name."""
        return f"target.{self.given}={getattr(self, str(self.given))}"

    @model_validator(mode="before")
    @classmethod
    def _others_are_their_own_network(cls, value: Any) -> Any:
        given = value if isinstance(value, dict) else {}
        model = next((model for field, model in FOREIGN.items() if given.get(field) is not None), None)
        return value if model is None else {**value, "model": given.get("model") or model}

    @model_validator(mode="after")
    def _others_are_as_they_are(self) -> Self:
        others = [field for field in ("weights", *FOREIGN) if getattr(self, field) is not None]
        field = next((one for one in others if one in FOREIGN), None)
        if field is None:
            return self
        rule = f"is of a network of this project, but target.{field}={getattr(self, field)} is F as it is"
        if len(others) > 1:
            other = next(one for one in others if one != field)
            if other == "weights":
                rule = rule.replace("is of", "are of", 1)
            else:
                rule = rule.replace("of a network of this project", "another F", 1)
            raise Refused(other, getattr(self, other), rule, "leave one of them out")
        if self.model != FOREIGN[field]:
            raise Refused("model.name", self.model.name, rule, "leave target.model out")
        if setting := first_set(self, ("budget", "freeze")):
            raise Refused(setting, getattr(self, setting), rule, "leave it out")
        if change := next(
            (one for one in ("mid", "loft", "rolss", "dp") if getattr(self.defense, one)), None
        ):
            raise Refused(f"defense.{change}", NO_VALUE, rule, "leave it out")
        return self

    @model_validator(mode="after")
    def _what_is_given_is_not_trained(self) -> Self:
        given = self.given
        field = first_set(self, TRAINING) if given else None
        if given is None or field is None:
            return self
        value = getattr(self, field)
        are = "are F as they are" if given == "weights" else "is F as it is"
        rule = f"is of a training, but {self.named} {are}"
        way_out = "sweep attack.seed in place of seed" if field == "seed" else "leave it out"
        raise Refused(field, NO_VALUE if isinstance(value, Spec) else value, rule, way_out)

    @model_validator(mode="after")
    def _snapshots_exist(self) -> Self:
        late = [epoch for epoch in self.snapshots if epoch > self.recipe.epochs]
        if late:
            raise Refused(
                "snapshots",
                late[0],
                f"must lie in 1..target.recipe.epochs={self.recipe.epochs}",
                "leave it out or train longer",
            )
        if self.snapshot is not None and self.snapshot not in self.snapshots:
            raise Refused(
                "snapshot",
                self.snapshot,
                f"must be one of target.snapshots={list(self.snapshots)}",
                "add it there",
            )
        return self

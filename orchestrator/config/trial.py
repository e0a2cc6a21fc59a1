"""Trial: the frozen spec of one sweep point, never where or on how many machines it runs.

Every stage key is a digest of whole sub-specs of this file, so a field belongs here exactly when it changes
numbers. Names (datasets, models, attacks) are plain strings: they are resolved when the plan is made.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import model_validator

from orchestrator.config.attack_spec import Task
from orchestrator.config.attacks import Attack, alternatives
from orchestrator.config.base import NO_VALUE, Refused, Spec, added_field
from orchestrator.config.data import Auxiliary, Data
from orchestrator.config.defenses import Defense
from orchestrator.config.evaluation import Evaluation, Judge, Judges
from orchestrator.config.prior import Prior
from orchestrator.config.release import Release
from orchestrator.config.students import FIELD as STUDENTS
from orchestrator.config.students import Student
from orchestrator.config.target import Target

IMAGE_FOR: Mapping[Task, str] = {"reconstruction": "prediction", "class-inference": "class"}
"""What an attack makes an image for."""


class TrialSpec(Spec):
    """One sweep point."""

    data: Data
    """The private data set."""

    target: Target
    """The target model."""

    release: Release = Release()
    """What its service releases."""

    auxiliary: Auxiliary = Auxiliary()
    """What the adversary has."""

    prior: Prior | None = added_field(None)
    """The generator of public images that the adversary trains; None: none."""

    attack: Attack
    """What the adversary does."""

    judge: Judge
    """Who recognises reconstructions."""

    judges: Judges = added_field(Judges())
    """Who else does."""

    evaluation: Evaluation = Evaluation()
    """What is measured."""

    @property
    def every_judge(self) -> dict[str, Judge]:
        """The judge and further classifiers by the path of their field."""
        further = {f"judges.classifiers.{name}": judge for name, judge in self.judges.classifiers.items()}
        return {"judge": self.judge} | further

    @property
    def started(self) -> dict[str, Judge | Student]:
        """The classifiers beside F that may start from public weights, by the path of their field."""
        return self.every_judge | {f"{STUDENTS}.{name}": one for name, one in self.attack.students.items()}

    @model_validator(mode="after")
    def _releases_what_the_target_has(self) -> Self:
        k, m = self.target.classes, self.release.truncation
        if m is not None and m > k:
            raise Refused(
                "release.truncation",
                m,
                f"must lie in 1..target.classes={k}",
                "use null to release every score",
            )
        pool = self.data.class_pool
        if pool is not None and k > pool:
            raise Refused(
                "target.classes",
                k,
                f"must lie in 1..data.class_pool={pool}",
                "enlarge the pool or lower target.classes",
            )
        return self

    @model_validator(mode="after")
    def _order_of_weights_has_weights(self) -> Self:
        if self.data.class_order == "weights" and self.target.given is None:
            rule = "is the order of the outputs of target.weights, which are not named"
            raise Refused("data.class_order", "weights", rule, "name them, or use staged or seeded")
        return self

    @model_validator(mode="after")
    def _profiles_can_be_made(self) -> Self:
        fisher, attack = self.evaluation.fisher, self.attack
        if fisher is None:
            return self
        if attack.profile is None:
            others = alternatives(attack, lambda other: other.profile is not None)
            raise Refused(
                "evaluation.fisher",
                NO_VALUE,
                f"differentiates an inverter or the last update of a descent, but attack.name={attack.name} "
                "is neither here",
                f"use null or {others}",
            )
        attack.check_profile()
        if attack.profile == "inverter" and self.release.labels_only:
            raise Refused(
                "release.labels_only",
                "true",
                "leaves evaluation.fisher nothing to differentiate",
                "release scores or leave the analysis out",
            )
        for kind in ("vgg", "alex"):
            if f"lpips-{kind}" in fisher.distances and getattr(self.evaluation.networks, kind) is None:
                raise Refused(
                    "evaluation.fisher.distances",
                    NO_VALUE,
                    f"has lpips-{kind}, which needs evaluation.networks.{kind}",
                    "name staged weights there or leave the distance out",
                )
        return self

    @model_validator(mode="after")
    def _developers_defend_from_others(self) -> Self:
        target, name = self.target, self.attack.name
        if not self.attack.trains_target:
            return self
        if target.defense != Defense():
            raise Refused(
                "target.defense",
                NO_VALUE,
                f"protects from others, but with attack.name={name} the developer is the adversary",
                "leave the defense out or choose another attack",
            )
        if target.snapshot is not None:
            raise Refused(
                "target.snapshot",
                target.snapshot,
                f"has no inverter of its own under attack.name={name}",
                "use null or choose another attack",
            )
        if given := target.given:
            are, them = ("are F as they are", "them") if given == "weights" else ("is F as it is", "it")
            raise Refused(
                f"target.{given}",
                getattr(target, given),
                f"{are}, but attack.name={name} trains F",
                f"leave {them} out or choose another attack",
            )
        return self

    @model_validator(mode="after")
    def _attack_can_use_the_release(self) -> Self:
        self.attack.check_release(self.release)
        return self

    @model_validator(mode="after")
    def _shield_moves_what_is_read(self) -> Self:
        shield, name = self.release.shield, self.attack.name
        if shield is None:
            return self
        is_read = not self.attack.has_weights or self.evaluation.task == "reconstruction"
        reason = "" if is_read else f"moves answers, and attack.name={name} asks for none: it has F's weights"
        if self.attack.trains_target or (self.evaluation.fisher and self.attack.profile == "inverter"):
            needs = f"attack.name={name}" if self.attack.trains_target else "evaluation.fisher"
            reason = f"draws classes, through which {needs} cannot differentiate"
        if reason:
            raise Refused("release.shield", NO_VALUE, reason, "set it to null or choose another attack")
        if self.target.service is not None:
            rule = f"moves what {self.target.named} is asked for of every training image"
            raise Refused("release.shield", NO_VALUE, rule, "set it to null: a service has its own shield")
        if shield.means == "held-out" and self.target.selection == "test":
            rule = "needs images held out from training, and target.selection=test holds out none"
            way_out = "use train or another target.selection"
            raise Refused("release.shield.means", shield.means, rule, way_out)
        if shield.means == "held-out" and self.target.given:
            rule = f"needs images held out from training, and which {self.target.named} had "
            raise Refused("release.shield.means", shield.means, f"{rule}not seen is unknown", "use train")
        return self

    @model_validator(mode="after")
    def _attack_can_do_the_task(self) -> Self:
        task, attack = self.evaluation.task, self.attack
        if task not in attack.tasks:
            own, other = IMAGE_FOR[min(attack.tasks)], IMAGE_FOR[task]
            others = alternatives(attack, lambda one: task in one.tasks)
            raise Refused(
                "attack.name",
                attack.name,
                f"makes one image for each {own}, not for each {other}",
                f"set evaluation.task={min(attack.tasks)} or use {others}",
            )
        return self

    @model_validator(mode="after")
    def _attack_has_its_prior(self) -> Self:
        if self.attack.needs_prior and self.prior is None:
            raise Refused(
                "prior",
                NO_VALUE,
                f"is what attack.name={self.attack.name} searches",
                "set it, for example to {} for a generator of the public classes",
            )
        self._check_brought()
        losses = self.attack.prior_losses
        if self.attack.needs_prior and self.prior and self.prior.loss not in losses:
            raise Refused(
                "prior.loss",
                self.prior.loss,
                f"is none that attack.name={self.attack.name} searches",
                f"use {' or '.join(losses)}, or choose another attack",
            )
        return self

    def _check_brought(self) -> None:
        """Raise `Refused` if the attack needs more of its prior than a generator that others trained."""
        weights, attack = self.prior and self.prior.weights, self.attack
        if not weights or not attack.needs_prior:
            return
        if attack.needs_critic:
            rule = "has no critic, which attack.prior_weight above 0 reads"
            raise Refused("prior.weights", weights, rule, "set attack.prior_weight=0 or train a prior")
        if "hinge" not in attack.prior_losses:
            losses = " or ".join(attack.prior_losses)
            rule = f"was trained elsewhere, and attack.name={attack.name} searches prior.loss={losses}"
            raise Refused("prior.weights", weights, rule, "train that prior or choose another attack")
        if attack.students or attack.reads_features:
            rule = f"brings no public images, for which attack.name={attack.name} asks the target"
            raise Refused("prior.weights", weights, rule, "train a prior or choose another attack")

    @model_validator(mode="after")
    def _others_have_no_layers(self) -> Self:
        if self.target.foreign is None:
            return self
        if self.evaluation.fisher:
            rule = f"profiles F's layers, and {self.target.named} has none by name"
            raise Refused("evaluation.fisher", NO_VALUE, rule, "set it to null")
        if self.prior and self.prior.teacher_mode == "train":
            rule = f"is a mode that {self.target.named} has not"
            raise Refused("prior.teacher_mode", "train", rule, "leave it out")
        return self

    @model_validator(mode="after")
    def _judges_differ(self) -> Self:
        target, earlier = self.target, dict[str, str]()
        start = (target.pretrain.weights or "trained here") if target.pretrain else None
        of_target = (target.model, target.seed, start, "train")
        for field, one in self.started.items():
            if one.weights is not None and one.weights == target.weights:
                rule = "are the target itself, which must not judge what is made of it"
                if field not in self.every_judge:
                    rule = "is the target itself, which the adversary does not have"
                raise Refused(f"{field}.weights", one.weights, rule, "name other weights or leave them out")
        for field, judge in self.every_judge.items():
            is_like_target = (judge.model, judge.seed, judge.weights, judge.images) == of_target
            if is_like_target and judge.trained and target.given is None:
                raise Refused(
                    f"{field}.seed",
                    judge.seed,
                    "is target.seed, and network and images are the target's too, which must not judge it",
                    "use another seed, model or images",
                )
            own = judge.but(minimum_accuracy=0.0).text
            if same := earlier.get(own):
                raise Refused(
                    field,
                    NO_VALUE,
                    f"is the same as {same}, with which it would always agree",
                    "give it another seed, model or images, or leave it out",
                )
            earlier[own] = field
        return self

    @model_validator(mode="after")
    def _classes_can_be_inferred(self) -> Self:
        evaluation, k, name = self.evaluation, self.target.classes, self.attack.name
        asked = {"classes": evaluation.classes, "candidates": evaluation.candidates}
        if evaluation.task != "class-inference":
            for field, value in asked.items():
                if value != Evaluation.model_fields[field].default:
                    raise Refused(
                        f"evaluation.{field}",
                        value,
                        "is of class inference",
                        "leave it out or set evaluation.task=class-inference",
                    )
        for label in evaluation.classes or ():
            if label >= k or (evaluation.classes or ()).count(label) > 1:
                raise Refused(
                    "evaluation.classes",
                    label,
                    f"must lie in 0..target.classes-1={k - 1} and be named once",
                    "correct it or use null for all classes",
                )
        self.attack.check_candidates(evaluation.candidates)
        if evaluation.candidates > 1 and not self.attack.draws:
            raise Refused(
                "evaluation.candidates",
                evaluation.candidates,
                f"would be the same image each time, as attack.name={name} draws nothing",
                "use 1" if self.attack.leaves == "inverter" else "use 1 or set attack.noise above 0",
            )
        return self

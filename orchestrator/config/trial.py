"""What one sweep point computes: a frozen `TrialSpec`, never where or on how many machines.

Every stage key is a digest of whole sub-specs of this file, so a field belongs here exactly when it changes
numbers. Names (datasets, models, attacks) are plain strings: they are resolved when the plan is made.
"""

from typing import Self

from pydantic import model_validator

from orchestrator.config.attacks import Attack, JointAttack, MiaAttack, OptimizationAttack
from orchestrator.config.base import Spec
from orchestrator.config.data import Auxiliary, Data
from orchestrator.config.defenses import Defense
from orchestrator.config.evaluation import Evaluation, Judge
from orchestrator.config.release import Release
from orchestrator.config.target import Target


class TrialSpec(Spec):
    """One sweep point."""

    data: Data
    """The private data set."""

    target: Target
    """The victim."""

    release: Release = Release()
    """What the victim publishes."""

    auxiliary: Auxiliary = Auxiliary()
    """What the adversary has."""

    attack: Attack
    """What the adversary does."""

    judge: Judge
    """Who recognises reconstructions."""

    evaluation: Evaluation = Evaluation()
    """What is measured."""

    @model_validator(mode="after")
    def _releases_what_the_target_has(self) -> Self:
        k, m = self.target.classes, self.release.truncation
        if m is not None and m > k:
            raise ValueError(
                f"release.truncation={m} must lie in 1..target.classes={k}; use null to release every score."
            )
        pool = self.data.class_pool
        if pool is not None and k > pool:
            raise ValueError(
                f"target.classes={k} must lie in 1..data.class_pool={pool}; "
                "enlarge the pool or lower target.classes."
            )
        return self

    @model_validator(mode="after")
    def _profiles_can_be_made(self) -> Self:
        fisher, attack = self.evaluation.fisher, self.attack
        if fisher is None:
            return self
        if isinstance(attack, OptimizationAttack):
            raise ValueError(
                "evaluation.fisher differentiates an inverter or the last update of a descent, but "
                "attack.name=optimization is neither here; use null or attack.name=mia."
            )
        if isinstance(attack, MiaAttack) and attack.process != "none":
            raise ValueError(
                f"attack.process={attack.process} is no part of the update that evaluation.fisher "
                "differentiates; use none or leave the analysis out."
            )
        if not isinstance(attack, MiaAttack) and self.release.labels_only:
            raise ValueError(
                "release.labels_only=true leaves evaluation.fisher nothing to differentiate; release scores "
                "or leave the analysis out."
            )
        for kind in ("vgg", "alex"):
            if f"lpips-{kind}" in fisher.distances and getattr(self.evaluation.networks, kind) is None:
                raise ValueError(
                    f"evaluation.fisher.distances has lpips-{kind}, which needs evaluation.networks.{kind}; "
                    "name staged weights there or leave the distance out."
                )
        return self

    @model_validator(mode="after")
    def _attack_can_use_what_it_gets(self) -> Self:
        if isinstance(self.attack, JointAttack) and self.target.defense != Defense():
            raise ValueError(
                "target.defense protects from others, but with attack.name=joint the developer is the "
                "adversary; leave the defense out or choose another attack."
            )
        if isinstance(self.attack, JointAttack) and self.target.snapshot is not None:
            raise ValueError(
                f"target.snapshot={self.target.snapshot} has no inverter of its own under attack.name=joint; "
                "use null or choose another attack."
            )
        if isinstance(self.attack, JointAttack) and self.release.labels_only:
            raise ValueError(
                "release.labels_only=true passes no gradient to the classifier, so attack.name=joint has "
                "nothing to train; release scores or choose another attack."
            )
        if isinstance(self.attack, OptimizationAttack) and self.release.renormalised:
            raise ValueError(
                "release.renormalised=true hides the sum of the kept scores, which attack.name=optimization "
                "fits; release them as they are or choose another attack."
            )
        if isinstance(self.attack, MiaAttack) and self.evaluation.task == "reconstruction":
            raise ValueError(
                "attack.name=mia makes one image for each class, not for each prediction; set "
                "evaluation.task=class-inference or use attack.name=optimization."
            )
        return self

"""Canonical form of a trial: one spelling for one meaning, and nothing that changes no number.

A `TrialSpec` is what a user writes; a `PlannedSpec` is what stages are planned from and has, for each stage
that reads less than the whole trial, the part that it depends on. No torch: the cut point that a budget means
comes from `sweep/validation`.
"""

from typing import Self

from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.base import Recipe
from orchestrator.config.budget import FULL, NamedBudget
from orchestrator.config.data import Data
from orchestrator.config.evaluation import Evaluation
from orchestrator.config.release import EVERYTHING, LABELS, Release, shielded_as
from orchestrator.config.target import Pretrain, Target
from orchestrator.config.trial import TrialSpec

SHOWN = Evaluation()


class PlannedSpec(TrialSpec):
    """A trial in canonical form, as `normalise` returns it."""

    @property
    def trained_target(self) -> Target:
        """F's training: it does not depend on the epoch that is attacked."""
        return self.target.but(snapshot=None)

    @property
    def made_attack(self) -> AttackSpec:
        """The settings that the attack's own stage depends on."""
        return self.attack.made_from(self.release)[0]

    @property
    def attacked_release(self) -> Release:
        """The release that the attack's own stage depends on.

        A developer's training is given unrounded scores, because rounding passes no gradient; a search for
        classes is given one-hot vectors, for every release, and asks the target by its own access: for its
        labels, for what is released, or for all that its weights give.
        """
        if self.attack.trains_target:
            return self.release.but(decimals=None)
        if self.attack.leaves == "images" and self.evaluation.task == "class-inference":
            answered = {"labels": LABELS, "scores": self.release}.get(self.attack.access, EVERYTHING)
            return shielded_as(answered, self.release)
        return self.attack.made_from(self.release)[1]

    @property
    def public_data(self) -> Data:
        """The settings of the images that a prior is trained on: of the private set only where its public
        classes are they."""
        return self._shown_like(self.prior.dataset if self.prior else None)

    @property
    def pretrain_data(self) -> Data:
        """The settings of the images that the target is pretrained on: of the private set only where its
        public classes are they."""
        pretrain = self.target.pretrain
        return self._shown_like(pretrain.dataset if pretrain else None)

    def _shown_like(self, name: str | None) -> Data:
        """Return the settings of all images of another set, shown to a network like those of the private set;
        the private set's own if there is none."""
        if name is None:
            return self.data
        shown = {one: getattr(self.data, one) for one in ("image_size", "channels", "normalisation")}
        return Data(dataset=name, **shown)

    @property
    def drawn_images(self) -> Evaluation:
        """The settings that draw what is attacked: class inference has classes and no images."""
        shown, asked = SHOWN, self.evaluation
        if asked.task == "class-inference":
            return SHOWN.but(task=asked.task, classes=asked.classes, candidates=asked.candidates)
        return asked.but(grid=shown.grid, networks=shown.networks, fisher=shown.fisher)

    @property
    def measured(self) -> Evaluation:
        """The evaluation without the Fisher analysis, which is a stage of its own."""
        return self.evaluation.but(fisher=None)

    @classmethod
    def of(cls, spec: TrialSpec, **changes: object) -> Self:
        """Return the trial as this type with fields replaced, validated."""
        return cls.model_validate({name: getattr(spec, name) for name in TrialSpec.model_fields} | changes)


def normalise(
    spec: TrialSpec, *, cut: NamedBudget | None = None, has_norm: bool | None = None
) -> PlannedSpec:
    """Return the canonical form of a trial whose budget means `cut`; None leaves the budget as written.

    `has_norm`: whether a batch norm stands between F's features and its head; None leaves what MID does to it
    as written. Beside what `respelled` does: labels have no truncation, rounding or sum; a surrogate that no
    loss uses, a prior that no attack searches and the training of weights that were trained elsewhere are
    left out.
    """
    spec = respelled(spec, cut=cut, has_norm=has_norm)
    release = shielded_as(LABELS, spec.release) if spec.release.labels_only else spec.release
    target = spec.target.but(pretrain=_used(spec.target.pretrain))
    if target.given is None:
        target = target.but(minimum_accuracy=0.0)
    attack = spec.attack.canonical()
    prior = spec.prior.canonical() if spec.prior and attack.needs_prior else None
    return PlannedSpec.of(spec, attack=attack, release=release, target=target, prior=prior)


def respelled(spec: TrialSpec, *, cut: NamedBudget | None = None, has_norm: bool | None = None) -> TrialSpec:
    """Return the trial in the spelling that identifies a sweep point.

    Releasing k of k scores is releasing all of them; a budget is its cut point; where nothing is frozen there
    is one way of freezing; a network without a batch norm before its head has none that MID could replace.
    """
    release, target = spec.release, spec.target
    if release.truncation == target.classes:
        release = release.but(truncation=None)
    if cut is not None:
        is_full = cut == FULL
        frozen = {"freeze": "weights", "freezes_random": False} if is_full else {}
        target = target.but(budget=cut, **frozen)
    mid = target.defense.mid
    replaces = mid.replaces_norm is not False if mid and has_norm else None
    if mid and has_norm is not None and mid.replaces_norm is not replaces:
        target = target.but(defense=target.defense.but(mid=mid.but(replaces_norm=replaces)))
    is_same = release is spec.release and target is spec.target
    return spec if is_same else spec.but(release=release, target=target)


def _used(pretrain: Pretrain | None) -> Pretrain | None:
    """Leave out how weights that were trained elsewhere would be trained here."""
    return pretrain.but(recipe=Recipe(), seed=0) if pretrain and pretrain.weights else pretrain

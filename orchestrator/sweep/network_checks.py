"""Validation of a trial's networks: names, sizes, budgets, and public weights that F starts from."""

from collections.abc import Hashable, Sequence
from typing import Any

from orchestrator.config import Data, Model, Prior, TrialSpec
from orchestrator.config.base import Refused
from orchestrator.config.budget import FULL, NamedBudget
from orchestrator.datasets import Description
from orchestrator.datasets.sources.exclusion import folded
from orchestrator.datasets.weights_manifest import Weights
from orchestrator.models import CRITICS, GENERATORS, INVERTERS, find, outline
from orchestrator.models.budgets import resolve_budget
from orchestrator.models.outlines import count_halvings, gan_channels
from orchestrator.sweep.apart import Apart

Shapes = dict[str, tuple[int, ...]]


class NetworkChecks:
    """Checks the networks of trials; each distinct one once."""

    def __init__(self) -> None:
        self._cuts: dict[Hashable, NamedBudget] = {}
        self._checked: set[Hashable] = set()
        self._apart = Apart()

    def check(self, spec: TrialSpec) -> None:
        """Raise `Refused` if a network of the trial is unknown or does not admit its sizes."""
        channels, image_size, attack = spec.data.channels, spec.data.image_size, spec.attack
        shapes = {"classes": spec.target.classes, "channels": channels, "image_size": image_size}
        judging = {f"{field}.model": judge.model for field, judge in spec.every_judge.items()}
        of_target = {} if spec.target.foreign else {"target.model": spec.target.model}
        classifiers = {**of_target, **judging, **attack.classifiers}
        for field, model in classifiers.items():
            has_skips = field != "target.model" or not spec.target.defense.rolss
            known = (field, model, has_skips, *shapes.values())
            if known not in self._checked:
                outline(model, field=field, resizes=field in judging, last_skips=has_skips, **shapes)
                self._checked.add(known)
        if attack.inverter:
            find(INVERTERS, attack.inverter.name, image_size, "attack.model")
        if spec.prior and not spec.prior.weights:
            _check_generator(spec.prior, image_size)
        if attack.has_discriminator:
            count_halvings(image_size)

    def cut(self, spec: TrialSpec) -> NamedBudget:
        """Return the cut point that the budget means; raise `Refused` if there is none to freeze up to."""
        data, target = spec.data, spec.target
        if target.foreign:
            return FULL
        is_random = target.pretrain is None and target.weights is None
        if target.budget != FULL and is_random and not target.freezes_random:
            raise Refused(
                "target.budget",
                target.budget,
                "freezes layers at public weights, but target.pretrain is null",
                "add target.pretrain, use the budget full, or set target.freezes_random=true to freeze "
                "random first weights",
            )
        shapes = {"classes": target.classes, "channels": data.channels, "image_size": data.image_size}
        last_skips = not target.defense.rolss
        known = (target.model, target.budget, last_skips, *shapes.values())
        if known not in self._cuts:
            self._cuts[known] = resolve_budget(target.model, target.budget, last_skips=last_skips, **shapes)
        return self._cuts[known]

    def check_fit(self, spec: TrialSpec, weights: Weights, checked_on: Description | None) -> None:
        """Raise `Refused` if weights do not fit F's network, or their head not the set that checks them."""
        data, model = spec.data, spec.target.model
        name = checked_on and checked_on.name
        known = (model, weights.name, name, data.channels, data.image_size)
        if known not in self._checked:
            classes = checked_on.num_classes if checked_on else 2
            wanted, given = self._heads("target.pretrain", model, weights, data, classes=classes)
            if checked_on is not None:
                _check_head(wanted, given, weights.name, checked_on)
            self._checked.add(known)

    def check_given(self, spec: TrialSpec, weights: Weights) -> None:
        """Raise `Refused` unless weights are F whole: its network as the defense makes it, k outputs."""
        data, target = spec.data, spec.target
        known = ("given", target, data.channels, data.image_size)
        if known in self._checked:
            return
        given = self._outputs(
            "target", "target_outputs", target, data, dict(weights.shapes), name=weights.name
        )
        if given != target.classes:
            rule = f"have {given} outputs, and target.classes={target.classes}"
            raise Refused("target.weights", weights.name, rule, f"set target.classes={given}")
        self._checked.add(known)

    def check_given_judge(self, spec: TrialSpec, field: str, weights: Weights, about: Description) -> None:
        """Raise `Refused` unless weights are a judge whole, by its field: its network with an output for each
        class of the private set."""
        model, data, classes = spec.every_judge[field].model, spec.data, about.num_classes
        known = ("given judge", model, weights.name, classes, data.channels, data.image_size)
        if known in self._checked:
            return
        given = self._outputs(
            field, "judge_outputs", field, model, data, classes, dict(weights.shapes), name=weights.name
        )
        if given != classes:
            rule = f"have {given} outputs, and data.dataset={about.name} has {classes} classes"
            way_out = "name weights that tell all of them, or train the judge"
            raise Refused(f"{field}.weights", weights.name, rule, way_out)
        self._checked.add(known)

    def check_start(self, spec: TrialSpec, field: str, weights: Weights) -> None:
        """Raise `Refused` if weights do not fit the network of a judge or student, by its field, that is to
        start from them."""
        data, model, resizes = spec.data, spec.started[field].model, field in spec.every_judge
        known = ("start", model, weights.name, data.channels, data.image_size, resizes)
        if known not in self._checked:
            self._heads(field, model, weights, data, classes=2, resizes=resizes)
            self._checked.add(known)

    def check_prior(self, weights: Weights) -> None:
        """Raise `Refused` if weights are no whole generator, or its images are neither grey nor RGB."""
        known = ("prior", weights.name)
        if known not in self._checked:
            check = "orchestrator.models.public_generators.check_generator"
            channels = self._apart.call(check, dict(weights.shapes), weights.name).channels
            if channels not in (1, 3):
                rule = f"makes images of {channels} channels, which are neither grey nor RGB"
                raise Refused("prior.weights", weights.name, rule, "choose another generator")
            self._checked.add(known)

    def check_recogniser(self, weights: Weights) -> None:
        """Raise `Refused` if weights are not the face descriptor's."""
        known = ("recogniser", weights.name)
        if known not in self._checked:
            check = "orchestrator.models.face_descriptor.check_shapes"
            self._apart.call(check, dict(weights.shapes), weights.name)
            self._checked.add(known)

    def _heads(
        self, field: str, model: Model, weights: Weights, data: Data, *, classes: int, resizes: bool = False
    ) -> tuple[Shapes, Shapes]:
        """Return what `fit.heads` does; raise `Refused` of the field's `weights` if the body does not fit."""
        heads: tuple[Shapes, Shapes] = self._fitted(
            field,
            "orchestrator.models.fit.heads",
            model,
            dict(weights.shapes),
            name=weights.name,
            classes=classes,
            channels=data.channels,
            image_size=data.image_size,
            resizes=resizes,
        )
        return heads

    def _outputs(self, field: str, function: str, *arguments: Any, name: str) -> int:
        """Return what a function of `given_networks` does; raise `Refused` of the field's `weights` if they
        are another network's."""
        path = f"orchestrator.sweep.given_networks.{function}"
        outputs: int = self._fitted(field, path, *arguments, name=name)
        return outputs

    def _fitted(self, field: str, path: str, *arguments: Any, name: str, **named: Any) -> Any:
        """Return what a function does that takes weights called `name`, with its refusals under the field."""
        try:
            return self._apart.call(path, *arguments, name=name, **named)
        except Refused as refused:
            if refused.field != f"weights {name}":  # of the network
                raise
            raise Refused(f"{field}.weights", name, refused.rule, refused.way_out) from None


def check_names(field: str, weights: Weights, classes: Sequence[str]) -> None:
    """Raise `Refused` of the field's `weights` if they are staged with names of outputs that are not those of
    the classes, in order; names are compared folded."""
    names = classes if weights.classes is None else weights.classes
    if len(names) != len(classes):
        rule = f"are staged with {len(names)} names and have {len(classes)} outputs"
        way_out = "stage them under another name with one for each output"
        raise Refused(f"{field}.weights", weights.name, rule, way_out)
    for place, (told, name) in enumerate(zip(names, classes, strict=True)):
        if folded(told) != folded(name):
            rule = f"tell {told} by output {place}, and class {place} here is {name}"
            way_out = "set data.class_order=weights"
            if field != "target":
                way_out = "stage the data set with its classes in that order, or train the judge"
            raise Refused(f"{field}.weights", weights.name, rule, way_out)


def _check_generator(prior: Prior, image_size: int) -> None:
    """Raise `Refused` unless the generator is known, fits the loss and has images of this side."""
    name, needs_classes = prior.model.name, CRITICS[prior.loss].is_conditional
    found = find(GENERATORS, name, image_size, "prior.model")
    gan_channels(image_size, prior.model.width)
    if found.is_conditional != needs_classes:
        fitting = [other for other, one in GENERATORS.items() if one.is_conditional == needs_classes]
        rule = f"is no generator for prior.loss={prior.loss}"
        raise Refused("prior.model.name", name, rule, f"use {' or '.join(fitting)}")


def _check_head(wanted: Shapes, given: Shapes, name: str, checked_on: Description) -> None:
    """Raise `Refused` if the weights' own head has other classes than the set that they are checked on."""
    if wanted == given:
        return
    last = given.get(next(reversed(wanted)))  # a head of several layers has the classes in its last one
    if last is not None and last[0] != checked_on.num_classes:
        head = f"tell {last[0]} classes"
    else:
        head = "have another head" if given else "have no head"
    raise Refused(
        "target.pretrain.weights",
        name,
        f"{head}, but target.pretrain.dataset={checked_on.name}, which is to check them, has "
        f"{checked_on.num_classes}",
        "name a set with as many, or null to check nothing",
    )

"""Validation before anything starts: names, sizes, budgets, data sets and their checksums."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from pydantic import BaseModel

from orchestrator.attacks import build_attack
from orchestrator.config import ATTACK_SPECS, TrialSpec
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.budget import FULL, NamedBudget
from orchestrator.config.normalise import respelled
from orchestrator.config.report import Costs, Histogram
from orchestrator.config.study import SHORTHANDS, Study, StudyError, short_name
from orchestrator.datasets import PARTS, Description, Labels, Location, load_labels, verify, weights
from orchestrator.datasets.classes import (
    SAME_PARTS,
    auxiliary_dataset_name,
    check_auxiliary,
    check_data,
    check_parts,
    check_public,
    other_classes,
    private_classes,
)
from orchestrator.metrics.names import MetricName
from orchestrator.models import build_classifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.discriminator import Discriminator
from orchestrator.models.freezing import resolve_budget
from orchestrator.models.public import renamed
from orchestrator.stages.graph import STAGES, dataset_names, weight_names
from orchestrator.sweep.points import Point

SECTIONS = {"private": "data", "auxiliary": "auxiliary", "pretrain": "target.pretrain"}


def check_study(study: Study) -> None:
    """Raise `StudyError` if the study names a stage, a metric or an axis that does not exist."""
    check_resources(study)
    check_report(study)


def check_resources(study: Study) -> None:
    """Raise `StudyError` if `resources.stages` names a stage that does not exist."""
    if unknown := sorted(study.resources.stages.keys() - STAGES.keys()):
        way_out = f"stages are {', '.join(STAGES)}"
        raise StudyError(Refused(f"resources.stages.{unknown[0]}", NO_VALUE, "is no stage", way_out))


def check_report(study: Study) -> None:
    """Raise `StudyError` if the study names a metric that no stage measures, one of the wrong kind, or an
    axis that no study can have."""
    try:
        for name in study.search.objectives:
            MetricName.parse(name, "search.objectives")
        named = study.report.named().under("report")
        for field, name in named.metrics.items():
            MetricName.parse(name, field)
        _check_axes(named.axes, tuple(study.axes()))
        for place, histogram in enumerate(study.report.histograms):
            _check_histogram(histogram, f"report.histograms.{place}")
        _check_shares(named.shares)
        _check_costs(study.report.costs)
    except Refused as error:
        raise StudyError(error) from error


def _check_axes(axes: Mapping[str, str], swept: Sequence[str]) -> None:
    """Raise `Refused` for an axis that no study can have; one that could be swept and is not, as under
    `--set sweep=...`, passes."""
    for field, name in axes.items():
        if name not in swept and name not in _possible_axes():
            value = NO_VALUE if field.endswith(f".{name}") else name  # keys of `where` are in the path
            raise Refused(field, value, "is not an axis", f"swept here are {', '.join(swept)}")


def _check_histogram(histogram: Histogram, field: str) -> None:
    """Raise `Refused` if value and success of a histogram are not kept for the same images."""
    files = {
        place and place.file
        for place in (MetricName.parse(name).file() for name in (histogram.value, histogram.success))
    }
    if len(files) > 1 or None in files:
        raise Refused(
            f"{field}: value={histogram.value} and success",
            histogram.success,
            "must be kept for the same images",
            "choose two of class/... or two that end alike in _test or _train",
        )


def _check_shares(metrics: Mapping[str, str]) -> None:
    """Raise `Refused` for a metric that is no share of images."""
    for field, name in metrics.items():
        if not MetricName.parse(name).metric.is_share:
            raise Refused(
                field,
                name,
                "must be a share of images",
                "choose an accuracy, for example target/accuracy or attack/accuracy_top1_test",
            )


def _check_costs(costs: Costs | None) -> None:
    """Raise `Refused` for costs of a stage that does not exist."""
    if costs and costs.stage not in STAGES:
        stages = ", ".join(STAGES)
        raise Refused("report.costs.stage", costs.stage, "is no stage", f"choose from {stages}")


@functools.cache
def _possible_axes() -> frozenset[str]:
    """Return every name that an axis of some study may have."""
    paths = {path for model in ATTACK_SPECS.values() for path in _fields(model, "attack.")}
    return frozenset(short_name(path) for path in {*paths, *_fields(TrialSpec, ""), *SHORTHANDS})


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the dotted paths below a spec, those of parts that may be None included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part, f"{prefix}{name}.")


class Preflight:
    """Resolves points against the networks and data sets that exist; every set is verified once."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.descriptions: dict[str, Description] = {}
        self._weights: dict[str, weights.Weights] = {}
        self._labels: dict[str, Labels] = {}
        self._cuts: dict[str, NamedBudget] = {}
        self._built: set[str] = set()

    @property
    def digests(self) -> Mapping[str, str]:
        """Data set name -> digest of its manifest; `weights/NAME` -> digest of their file."""
        public = {weights.key_of(name): about.digest for name, about in self._weights.items()}
        return {name: about.digest for name, about in self.descriptions.items()} | public

    def resolve(self, point: Point) -> Point:
        """Return the point with its budget as a cut point's name; raise `StudyError` if it cannot be run."""
        spec = point.spec
        try:
            for role, name in dataset_names(spec).items():
                if name not in self.descriptions:
                    self.descriptions[name] = self._verify(role, name)
            self._check_classes(spec)
            self._check_networks(spec)
            self._check_weights(spec)
            return replace(point, spec=respelled(spec, cut=self._cut(spec)))
        except Refused as refused:
            raise StudyError(refused) from refused
        except ValueError as error:
            raise StudyError(" ".join(str(error).split())) from error

    def resolve_all(self, points: Iterable[Point]) -> list[Point]:
        """Resolve every point; raise `StudyError` with all distinct faults at once."""
        resolved = []
        faults: dict[str, str | Refused] = {}
        for point in points:
            try:
                resolved.append(self.resolve(point))
            except StudyError as error:
                faults |= {str(fault): fault for fault in error.faults}
        if faults:
            raise StudyError(*faults.values())
        return resolved

    def _verify(self, role: str, name: str) -> Description:
        try:
            return verify(name, self._location)
        except Refused as refused:  # what is wrong with a file has the file's address
            raise refused.under(SECTIONS[role]) if refused.field == "dataset" else refused from refused

    def _check_classes(self, spec: TrialSpec) -> None:
        about = self.descriptions[spec.data.dataset]
        check_data(about, spec.data, spec.target.classes)
        if spec.target.pretrain and spec.target.pretrain.dataset is None:
            check_public(about, spec.data, "target.pretrain.dataset")
        owns_images = spec.attack.owns_images  # others have the target model itself
        labels = self._labels_of(spec.data.dataset)
        kind = spec.auxiliary.kind if owns_images else "same-train"
        if owns_images:
            check_auxiliary(about, spec.data, spec.auxiliary)
        check_parts(about, labels, spec.data, spec.target.classes, kind)
        if owns_images:
            self._check_size(spec)

    def _check_size(self, spec: TrialSpec) -> None:
        size, kind, available = spec.auxiliary.size, spec.auxiliary.kind, self._count_auxiliary(spec)
        if size is not None and size > available:
            raise Refused(
                "auxiliary.size",
                size,
                f"must lie in 1..{available}, the images of kind {kind} at "
                f"target.classes={spec.target.classes}",
                "lower auxiliary.size or use null for all",
            )

    def _count_auxiliary(self, spec: TrialSpec) -> int:
        """Return how many images the adversary has before `size` cuts, or raise if private classes are among
        those that must be others; reads labels and splits only."""
        data, kind = spec.data, spec.auxiliary.kind
        if kind in SAME_PARTS:
            return self._count_private(spec, SAME_PARTS[kind])
        about = self.descriptions[data.dataset]
        name = auxiliary_dataset_name(spec.auxiliary, data)
        other = None if name is None else self.descriptions[name]
        classes = other_classes(about, other, data, spec.auxiliary)
        labels, _ = self._labels_of(name or data.dataset)
        augmented = self._count_private(spec, "train") if kind == "augmented" else 0
        return int(np.isin(labels, classes).sum()) + augmented

    def _count_private(self, spec: TrialSpec, part: str) -> int:
        """Return how many images one part of the private classes has."""
        data = spec.data
        labels, splits = self._labels_of(data.dataset)
        private = private_classes(self.descriptions[data.dataset], data, spec.target.classes)
        in_part = splits[data.split] == PARTS.index(part)
        return int((in_part & np.isin(labels, private)).sum())

    def _labels_of(self, name: str) -> Labels:
        if name not in self._labels:
            self._labels[name] = load_labels(name, self._location)
        return self._labels[name]

    def _check_networks(self, spec: TrialSpec) -> None:
        """Build each distinct network once; raise the error of one that cannot be built."""
        shapes = {
            "classes": spec.target.classes,
            "channels": spec.data.channels,
            "image_size": spec.data.image_size,
        }
        classifiers = {"target.model": spec.target.model, "judge.model": spec.judge.model}
        attack = spec.attack
        for field, model in {**classifiers, **attack.classifiers}.items():
            if self._is_new(f"{model} {field} {shapes}"):
                with torch.device("meta"):
                    build_classifier(model, field=field, resizes=field == "judge.model", **shapes)
        if attack.inverter and self._is_new(f"{attack.inverter} {shapes}"):
            build_attack(attack, **shapes)
        if attack.has_discriminator and self._is_new(f"discriminator {shapes}"):
            Discriminator(channels=shapes["channels"], image_size=shapes["image_size"], width=0.1)

    def _check_weights(self, spec: TrialSpec) -> None:
        """Find the public weights that a trial names; those that F starts from must fit its network."""
        for role, name in weight_names(spec).items():
            field = "target.pretrain.weights" if role == "pretrain" else f"evaluation.networks.{role}"
            if name not in self._weights:
                self._weights[name] = weights.verify(name, self._location, field)
        pretrain = spec.target.pretrain
        if pretrain is None or pretrain.weights is None:
            return
        model, data = spec.target.model, spec.data
        shapes = f"{data.channels} {data.image_size}"
        if not self._is_new(f"{model} {pretrain.weights} {pretrain.dataset} {shapes}"):
            return
        checked_on = self.descriptions[pretrain.dataset] if pretrain.dataset else None
        classes = checked_on.num_classes if checked_on else 2
        with torch.device("meta"):
            network = build_classifier(
                model, classes=classes, channels=data.channels, image_size=data.image_size
            )
            stored = self._weights[pretrain.weights].shapes
            public = {name: torch.empty(shape) for name, shape in stored.items()}
        state = renamed(network, public, name=pretrain.weights)
        if checked_on is not None:
            _check_head(network, state, pretrain.weights, checked_on)

    def _cut(self, spec: TrialSpec) -> NamedBudget:
        """Return the cut point that the budget means; raise `Refused` if there is none to freeze up to."""
        data, target = spec.data, spec.target
        if target.budget != FULL and target.pretrain is None and not target.freezes_random:
            raise Refused(
                "target.budget",
                target.budget,
                "freezes layers at public weights, but target.pretrain is null",
                "add target.pretrain, use the budget full, or set target.freezes_random=true to freeze "
                "random first weights",
            )
        known = f"{target.model} {target.budget} {target.classes} {data.channels} {data.image_size}"
        if known not in self._cuts:
            self._cuts[known] = resolve_budget(
                target.model,
                target.budget,
                classes=target.classes,
                channels=data.channels,
                image_size=data.image_size,
            )
        return self._cuts[known]

    def _is_new(self, what: str) -> bool:
        is_new = what not in self._built
        self._built.add(what)
        return is_new


def _check_head(
    network: Classifier, state: Mapping[str, torch.Tensor], name: str, checked_on: Description
) -> None:
    """Raise `Refused` if the weights' own head has other classes than the set that they are checked on."""
    wanted = {f"head.{key}": tensor.shape for key, tensor in network.head.state_dict().items()}
    given = {key: tensor.shape for key, tensor in state.items() if key.startswith("head.")}
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

"""What can be checked before anything starts: names, sizes, budgets, data sets and their checksums."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
from pydantic import BaseModel

from orchestrator.attacks import build_attack
from orchestrator.datasets import PARTS, Description, Labels, Location, load_labels, verify
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
from orchestrator.metrics import MEASURED
from orchestrator.models import build_classifier
from orchestrator.models.discriminator import Discriminator
from orchestrator.models.freezing import resolve_budget
from orchestrator.plan import dataset_names, queries_auxiliary
from orchestrator.points import Point
from orchestrator.spec import ATTACK_SPECS, InverterAttack, JointAttack, TrialSpec
from orchestrator.study import SHORTHANDS, Report, Study, StudyError, short_name

SECTIONS = {"private": "data", "auxiliary": "auxiliary", "pretrain": "target.pretrain"}


def check_report(study: Study) -> None:
    """Raise `StudyError` if the study asks for a metric that no stage measures or an axis that it has not."""
    report = study.report
    for field, names in (
        ("search.objectives", study.search.objectives),
        ("report.metrics", report.metrics),
    ):
        unknown = [name for name in names if name not in MEASURED]
        if unknown:
            raise StudyError(f"{field}: {unknown[0]} is not measured; choose from {', '.join(MEASURED)}.")
    metrics, axes = _metrics_and_axes(report)
    for field, name in metrics.items():
        if name not in MEASURED:
            raise StudyError(f"report.{field} is not measured; choose from {', '.join(MEASURED)}.")
    swept = study.axes()
    for field, name in axes.items():  # one that could be swept and is not, as under --set sweep=..., is none
        if name not in swept and name not in _possible_axes():
            raise StudyError(f"report.{field} is not an axis; swept here are {', '.join(swept)}.")


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


def _metrics_and_axes(report: Report) -> tuple[dict[str, str], dict[str, str]]:
    """Return the metrics and the axes that the printed numbers, the orders and the picture name, by field."""
    metrics: dict[str, str] = {}
    axes = {f"where.{axis}": axis for axis in report.where}
    for field, names in (("rows", report.rows), ("beside", report.beside)):
        axes |= {f"{field}.{place}={axis}": axis for place, axis in enumerate(names)}
    for place, printed in enumerate(report.printed):
        metrics[f"printed.{place}.metric={printed.metric}"] = printed.metric
        axes |= {f"printed.{place}.where.{axis}": axis for axis in printed.where}
    for place, ordering in enumerate(report.orderings):
        metrics[f"orderings.{place}.metric={ordering.metric}"] = ordering.metric
        axes[f"orderings.{place}.axis={ordering.axis}"] = ordering.axis
        axes |= {f"orderings.{place}.where.{axis}": axis for axis in ordering.where}
    return metrics, axes


class Preflight:
    """Resolves points against the networks and data sets that exist; every set is verified once."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.descriptions: dict[str, Description] = {}
        self._labels: dict[str, Labels] = {}
        self._budgets: dict[str, str] = {}
        self._built: set[str] = set()

    @property
    def digests(self) -> Mapping[str, str]:
        """Data set name -> digest of its manifest."""
        return {name: about.digest for name, about in self.descriptions.items()}

    def resolve(self, point: Point) -> Point:
        """Return the point with its budget as a cut point's name; raise `StudyError` with the way out."""
        spec = point.spec
        try:
            for role, name in dataset_names(spec).items():
                if name not in self.descriptions:
                    self.descriptions[name] = self._verify(role, name)
            self._check_classes(spec)
            self._check_networks(spec)
            return replace(point, spec=self._with_cut(spec))
        except ValueError as error:
            raise StudyError(" ".join(str(error).split())) from error

    def resolve_all(self, points: Iterable[Point]) -> list[Point]:
        """Resolve every point; all distinct faults are reported at once."""
        resolved, faults = [], []
        for point in points:
            try:
                resolved.append(self.resolve(point))
            except StudyError as error:
                faults.append(str(error))
        if faults:
            raise StudyError("\n".join(dict.fromkeys(faults)))
        return resolved

    def _verify(self, role: str, name: str) -> Description:
        try:
            return verify(name, self._location)
        except ValueError as error:  # `dataset=...` becomes the field's whole path
            raise ValueError(
                f"{SECTIONS[role]}.{error}" if str(error).startswith("dataset=") else error
            ) from error

    def _check_classes(self, spec: TrialSpec) -> None:
        about = self.descriptions[spec.data.dataset]
        check_data(about, spec.data, spec.target.classes)
        if spec.target.pretrain and spec.target.pretrain.dataset is None:
            check_public(about, spec.data, "target.pretrain.dataset")
        asks = queries_auxiliary(spec)  # others have the victim itself, and no images of their own
        labels = self._labels_of(spec.data.dataset)
        kind = spec.auxiliary.kind if asks else "same-train"
        if asks:
            check_auxiliary(about, spec.data, spec.auxiliary)
        check_parts(about, labels, spec.data, spec.target.classes, kind)
        if asks:
            self._check_size(spec)

    def _check_size(self, spec: TrialSpec) -> None:
        size, kind, available = spec.auxiliary.size, spec.auxiliary.kind, self._count_auxiliary(spec)
        if size is not None and size > available:
            raise ValueError(
                f"auxiliary.size={size} must lie in 1..{available}, the images of kind {kind} at "
                f"target.classes={spec.target.classes}; lower auxiliary.size or use null for all."
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
        """Build each distinct network once, to have its own error before anything runs."""
        shapes = {
            "classes": spec.target.classes,
            "channels": spec.data.channels,
            "image_size": spec.data.image_size,
        }
        classifiers = {"target.model": spec.target.model, "judge.model": spec.judge.model}
        attack = spec.attack
        if isinstance(attack, InverterAttack) and attack.losses.surrogate:
            classifiers["attack.losses.surrogate.model"] = attack.losses.surrogate.model
        for field, model in classifiers.items():
            if self._is_new(f"{model} {field} {shapes}"):
                build_classifier(model, field=field, **shapes)
        if isinstance(attack, InverterAttack | JointAttack) and self._is_new(f"{attack.model} {shapes}"):
            build_attack(attack, **shapes)
        is_adversarial = isinstance(attack, InverterAttack) and attack.losses.adversarial
        if is_adversarial and self._is_new(f"discriminator {shapes}"):
            Discriminator(channels=shapes["channels"], image_size=shapes["image_size"], width=0.1)

    def _with_cut(self, spec: TrialSpec) -> TrialSpec:
        data, target = spec.data, spec.target
        if target.budget != "full" and target.pretrain is None:
            raise ValueError(
                f"target.budget={target.budget} freezes layers at public weights, but target.pretrain is "
                "null; add target.pretrain or use the budget full."
            )
        known = f"{target.model} {target.budget} {target.classes} {data.channels} {data.image_size}"
        if known not in self._budgets:
            self._budgets[known] = resolve_budget(
                target.model,
                target.budget,
                classes=target.classes,
                channels=data.channels,
                image_size=data.image_size,
            )
        changes = {"budget": self._budgets[known]}
        if changes["budget"] == "full":  # nothing is frozen, so one target serves both ways of freezing
            changes["freeze"] = "weights"
        resolved = target.model_copy(update=changes)
        return spec.model_copy(update={"target": resolved})

    def _is_new(self, what: str) -> bool:
        is_new = what not in self._built
        self._built.add(what)
        return is_new

"""What can be checked before anything starts: names, sizes, budgets, data sets and their checksums."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from orchestrator.attacks import build_attack
from orchestrator.datasets import PARTS, Description, Location, load, verify
from orchestrator.datasets.classes import (
    auxiliary_dataset_name,
    check_auxiliary,
    check_data,
    check_public,
    private_classes,
    public_classes,
)
from orchestrator.metrics import MEASURED
from orchestrator.models import build_classifier
from orchestrator.models.freezing import resolve_budget
from orchestrator.plan import dataset_names
from orchestrator.points import Point
from orchestrator.spec import TrialSpec
from orchestrator.study import Study, StudyError

SECTIONS = {"private": "data", "auxiliary": "auxiliary", "pretrain": "target.pretrain"}


def check_report(study: Study) -> None:
    """Raise `StudyError` if the study asks for a metric that no stage measures."""
    for field, names in (
        ("search.objectives", study.search.objectives),
        ("report.metrics", study.report.metrics),
    ):
        unknown = [name for name in names if name not in MEASURED]
        if unknown:
            raise StudyError(f"{field}: {unknown[0]} is not measured; choose from {', '.join(MEASURED)}.")


class Preflight:
    """Resolves points against the networks and data sets that exist; every set is verified once."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.descriptions: dict[str, Description] = {}
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
        check_auxiliary(about, spec.data, spec.auxiliary)
        if spec.target.pretrain and spec.target.pretrain.dataset is None:
            check_public(about, spec.data, "target.pretrain.dataset")
        size, kind = spec.auxiliary.size, spec.auxiliary.kind
        if size is not None and size > (available := self._count_auxiliary(spec)):
            raise ValueError(
                f"auxiliary.size={size} must lie in 1..{available}, the images of kind {kind} at "
                f"target.classes={spec.target.classes}; lower auxiliary.size or use null for all."
            )

    def _count_auxiliary(self, spec: TrialSpec) -> int:
        """Return how many images the adversary could have; reads labels and splits only."""
        data, kind = spec.data, spec.auxiliary.kind
        private = load(data.dataset, self._location)
        parts = private.splits[data.split]
        is_private = np.isin(private.labels, private_classes(private, data, spec.target.classes))
        in_train = is_private & (parts == PARTS.index("train"))
        if kind == "same-train":
            return int(in_train.sum())
        if kind == "same-heldout":
            return int((is_private & (parts == PARTS.index("auxiliary"))).sum())
        other = auxiliary_dataset_name(spec.auxiliary, data)
        if other is not None:
            unseen = self.descriptions[other].num_images
        else:
            is_public = np.isin(private.labels, public_classes(private, data))
            unseen = int((is_public & (parts != PARTS.index("evaluation"))).sum())
        return unseen + (int(in_train.sum()) if kind == "augmented" else 0)

    def _check_networks(self, spec: TrialSpec) -> None:
        """Build each distinct network once, to have its own error before anything runs."""
        shapes = {
            "classes": spec.target.classes,
            "channels": spec.data.channels,
            "image_size": spec.data.image_size,
        }
        for model, field in ((spec.target.model, "target.model"), (spec.judge.model, "judge.model")):
            if self._is_new(f"{model} {field} {shapes}"):
                build_classifier(model, field=field, **shapes)
        if self._is_new(f"{spec.attack.name} {spec.attack.model} {shapes}"):
            build_attack(spec.attack, **shapes)

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

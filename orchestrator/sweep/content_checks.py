"""Content checks of a plan: images of a prior, or of a judge, that equal ones they must not have seen.

Sets of one image shape are compared as they are staged, without torch. Smaller sets of other shapes are
converted for a prior as its stage does. Sets that this process would have to read whole into memory beyond
`HELD_BYTES` are left to the search, which compares a prior's images too.
"""

from collections.abc import Hashable, Mapping

from orchestrator.config import TrialSpec
from orchestrator.datasets import Dataset, Description, Location, footprint, load, shards
from orchestrator.datasets.classes import auxiliary_dataset_name, other_classes, private_classes
from orchestrator.datasets.contents import check_judge_contents, check_prior_contents, of_classes
from orchestrator.sweep.adversary import held_private_parts

Descriptions = Mapping[str, Description]

OTHERS = ("generic", "augmented", "distinct")
"""Auxiliary kinds with images of other classes or of another set."""


class ContentChecks:
    """Compares images of the data sets at a location, once for all trials that have the same."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._checked: set[Hashable] = set()

    def check(self, spec: TrialSpec, about: Descriptions) -> None:
        """Raise `Refused` if a prior has private images, or a judge those of target or adversary."""
        judges = [field for field, judge in spec.every_judge.items() if judge.images == "auxiliary"]
        prior = spec.prior if spec.prior and not spec.prior.weights else None  # what others used is unknown
        if not (prior or judges) or not self._is_at_hand(about[spec.data.dataset]):
            return
        has = (held_private_parts(spec), spec.auxiliary.text if spec.attack.has_images else "")
        same = (spec.data.text, spec.target.classes, prior and (prior.dataset,), *(has if judges else ()))
        if same in self._checked:
            return
        if prior:
            self._check_prior(spec, prior.dataset, about)
        if judges:
            self._check_judge(spec, about, judges[0])
        self._checked.add(same)

    def _check_prior(self, spec: TrialSpec, name: str | None, about: Descriptions) -> None:
        private, k = about[spec.data.dataset], spec.target.classes
        used = about[name] if name else private
        if not self._is_at_hand(used):
            return
        other = self._load(used) if name else None
        if used.image_shape == private.image_shape:
            check_prior_contents(self._load(private), other, spec.data, k)
        elif max(private.num_bytes, used.num_bytes) <= shards.HELD_BYTES:
            from orchestrator.datasets.selection import check_prior_images  # here: it imports torch

            check_prior_images(self._load(private), other, spec.data, k)

    def _check_judge(self, spec: TrialSpec, about: Descriptions, field: str) -> None:
        private, k = self._load(about[spec.data.dataset]), spec.target.classes
        classes = private_classes(private, spec.data, k)
        others = {
            f"the adversary's {part} images": of_classes(private, spec.data, classes, (part,))
            for part in held_private_parts(spec)
            if part != "train"  # the target's are compared anyway
        }
        if spec.attack.has_images and spec.auxiliary.kind in OTHERS:
            name = auxiliary_dataset_name(spec.auxiliary, spec.data)
            used = about[name or spec.data.dataset]
            if used.image_shape == private.description.image_shape and self._is_at_hand(used):
                other = self._load(used) if name else None
                chosen = other_classes(private, other, spec.data, spec.auxiliary)
                others[f"the adversary's images in {used.name}"] = of_classes(
                    other or private, spec.data, chosen, None
                )
        check_judge_contents(private, spec.data, k, others, f"{field}.images")

    def _load(self, about: Description) -> Dataset:
        return load(about.name, self._location)

    def _is_at_hand(self, about: Description) -> bool:
        """Return whether a set is small or mapped, so that reading it needs little memory."""
        return about.num_bytes <= shards.HELD_BYTES or footprint(about, self._location).is_mapped

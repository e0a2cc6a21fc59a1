"""Validation of points before anything starts: data sets, their checksums, networks, budgets, public weights.

No torch, unless F or a judge is, or starts from, staged weights or a recogniser has some, whose names and
shapes are compared with the network.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from orchestrator.config import TrialSpec
from orchestrator.config.base import Refused, digest
from orchestrator.config.normalise import respelled
from orchestrator.config.study import StudyError
from orchestrator.datasets import (
    Description,
    Location,
    programs,
    services,
    verify,
    weights_manifest,
)
from orchestrator.datasets.classes import (
    check_auxiliary,
    check_data,
    check_labelled,
    check_parts,
    check_prior,
    check_public,
    private_classes,
    public_classes,
    resolved_order,
)
from orchestrator.datasets.published import PUBLISHED, Published
from orchestrator.models import CLASSIFIERS
from orchestrator.models.generator_outlines import Shapes
from orchestrator.stages.graph import dataset_names, weight_names
from orchestrator.sweep.adversary import check_judges
from orchestrator.sweep.content_checks import ContentChecks
from orchestrator.sweep.fits import Fit, check_fit, fits
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.network_checks import NetworkChecks, check_names
from orchestrator.sweep.points import Point
from orchestrator.sweep.program_checks import check_program, check_service

WEIGHTS = {
    "target": "target.weights",  # or a program, which is described otherwise
    "pretrain": "target.pretrain.weights",
    "recogniser": "judges.recogniser.weights",
    "prior": "prior.weights",
}
SECTIONS = {"private": "data", "auxiliary": "auxiliary", "pretrain": "target.pretrain", "prior": "prior"}


class Preflight:
    """Resolves points against the networks and data sets that exist; every set is verified once.

    `workers`: stage -> how many train one network together. With `stands_in`, for a plan that is not run,
    published sizes stand in for sets that are not staged, and names for weights.
    """

    def __init__(
        self,
        location: Location,
        workers: Callable[[str], int] = lambda stage: 1,
        *,
        stands_in: bool = False,
    ) -> None:
        self._location, self._workers, self._stands_in = location, workers, stands_in
        self._fitting: set[tuple[object, ...]] = set()  # trainings that have enough images
        self.descriptions: dict[str, Description] = {}
        self.digests: dict[str, str] = {}
        """Data set name -> digest of its manifest; `weights/NAME` -> digest of their file."""
        self._weights: dict[str, weights_manifest.Weights] = {}
        self._programs: dict[str, programs.StagedProgram] = {}
        self._contents_of_weights: dict[str, str] = {}
        self._services: dict[str, services.StagedService] = {}
        self._checked: set[Hashable] = set()  # what was checked of data sets without a fault
        self.counts = ImageCounts(location, self.descriptions)
        self.published: dict[str, Published] = {}
        """Sets that are not staged -> what stands in for them."""
        self.absent: dict[str, None] = {}
        """Names of weights and programs that are not staged."""
        self._networks = NetworkChecks()
        self._contents = ContentChecks(location)

    @property
    def shapes(self) -> dict[str, Shapes]:
        """Public weights that are staged -> their tensors."""
        return {name: one.shapes for name, one in self._weights.items()}

    def resolve(self, point: Point) -> Point:
        """Return the point with its budget as a cut point's name; raise `StudyError` if it cannot be run."""
        spec = point.spec
        try:
            for role, name in dataset_names(spec).items():
                if name not in self.descriptions:
                    self.descriptions[name] = self._verify(role, name)
                    self.digests[name] = self.descriptions[name].digest
            self._find_weights(spec)
            spec = self._ordered(spec)
            self._check_data(spec)
            check_judges(spec)
            if not self.published:  # their images are not here
                self._contents.check(spec, self.descriptions)
            self._check_fits(spec)
            self._networks.check(spec)
            self._check_weights(spec)
            cut, has_norm = self._networks.cut(spec), None
            if not spec.target.foreign:
                has_norm = CLASSIFIERS[spec.target.model.name].has_norm
            return replace(point, spec=respelled(spec, cut=cut, has_norm=has_norm))
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
            if refused.field != "dataset":
                raise
            if self._stands_in and name in PUBLISHED:
                return self._stand_in(name)
            raise refused.under(SECTIONS[role]) from refused

    def _stand_in(self, name: str) -> Description:
        about = self.published[name] = PUBLISHED[name]
        self.counts.stand_in(name, about.labels())
        return about.description(name)

    def _check_data(self, spec: TrialSpec) -> None:
        """Check classes and images once for all trials that have the same."""
        target, owns = spec.target, spec.attack.has_images
        pretrain = target.pretrain and (target.pretrain.dataset, target.pretrain.weights)
        prior = spec.prior and (spec.prior.dataset, spec.prior.weights)
        judging = frozenset(judge.images for judge in spec.every_judge.values())
        has = spec.auxiliary.text if owns else ""
        same = (spec.data.text, target.classes, pretrain, prior, owns, has, judging)
        if same not in self._checked:
            self._check_classes(spec)
            self._checked.add(same)

    def _check_classes(self, spec: TrialSpec) -> None:
        about = self.descriptions[spec.data.dataset]
        check_data(about, spec.data, spec.target.classes)
        self._check_pretraining(spec)
        if spec.prior and spec.prior.weights:
            pass  # its images are not here
        elif spec.prior and spec.prior.dataset:
            check_prior(about, self.descriptions[spec.prior.dataset], spec.data)
        elif spec.prior:
            check_public(about, spec.data, "prior.dataset")
        has_images = spec.attack.has_images  # others have the target model itself
        labels = self.counts.labels(spec.data.dataset)
        kind = spec.auxiliary.kind if has_images else "same-train"
        if has_images:
            check_auxiliary(about, spec.data, spec.auxiliary)
        check_parts(about, labels, spec.data, spec.target.classes, kind)
        if any(judge.images == "auxiliary" for judge in spec.every_judge.values()):
            check_parts(about, labels, spec.data, spec.target.classes, "same-heldout")
        if has_images:
            self._check_size(spec)

    def _check_pretraining(self, spec: TrialSpec) -> None:
        pretrain, about = spec.target.pretrain, self.descriptions[spec.data.dataset]
        if pretrain is None:
            return
        if pretrain.dataset is not None:
            check_labelled(self.descriptions[pretrain.dataset], "target.pretrain.dataset")
        if pretrain.weights is not None:
            return
        if pretrain.dataset is None:
            check_public(about, spec.data, "target.pretrain.dataset")
            if len(public_classes(about, spec.data)) == 1:
                rule = f"leaves one public class of the {about.num_classes} of {about.name}, and pretraining "
                way_out = "lower data.class_pool or name another set in target.pretrain.dataset"
                raise Refused("data.class_pool", spec.data.class_pool, f"{rule}needs two", way_out)
        elif self.descriptions[pretrain.dataset].num_classes < 2:
            rule = "has one class, and pretraining needs two"
            raise Refused("target.pretrain.dataset", pretrain.dataset, rule, "name another set")

    def _check_fits(self, spec: TrialSpec) -> None:
        """Raise `Refused` if a training would have too few images, too small batches or several workers where
        its loss is of a whole batch."""
        workers = self._workers("prior")
        if spec.prior and spec.prior.loss == "kedmi" and workers > 1:
            rule = (
                f"compares the images of a whole batch with each other, but {workers} workers would share it"
            )
            raise Refused("prior.loss", "kedmi", rule, "set resources.stages.prior.workers to 1")
        for fit in fits(spec):
            known = (fit, spec.data, spec.target.classes, spec.auxiliary)
            if known not in self._fitting:
                count = self._count(fit, spec)
                if spec.prior and fit.stage == "prior":
                    count = spec.prior.num_trained_on(count, spec.target.classes)
                check_fit(fit, count, self._workers(fit.stage))
                self._fitting.add(known)

    def _count(self, fit: Fit, spec: TrialSpec) -> int:
        """Return how many images a training has, those that it holds out included."""
        data, pretrain, counts = spec.data, spec.target.pretrain, self.counts
        if fit.images == "private":
            return counts.private(data, spec.target.classes, "train")
        if fit.images == "auxiliary":
            return counts.auxiliary(data, spec.target, spec.auxiliary)
        if fit.stage == "pretrain" and pretrain and pretrain.dataset:
            return counts.whole(pretrain.dataset)
        if fit.source.startswith("prior.") and spec.prior and spec.prior.dataset:
            return counts.whole(spec.prior.dataset)
        if fit.images.startswith("every "):
            return counts.every(data, fit.images.removeprefix("every "))
        return counts.public(data)

    def _check_size(self, spec: TrialSpec) -> None:
        size, kind = spec.auxiliary.size, spec.auxiliary.kind
        available = self.counts.available(spec.data, spec.target, spec.auxiliary)
        if size is not None and size > available:
            raise Refused(
                "auxiliary.size",
                size,
                f"must lie in 1..{available}, the images of kind {kind} at "
                f"target.classes={spec.target.classes}",
                "lower auxiliary.size or use null for all",
            )

    def _ordered(self, spec: TrialSpec) -> TrialSpec:
        """Return the trial with its order of classes as ids, where it names them itself or by F's weights."""
        order, about = spec.data.class_order, self.descriptions[spec.data.dataset]
        if order != "seeded" and (about.name in self.published or self.absent):  # the names are not here
            return spec.but(data=spec.data.but(class_order="seeded"))
        if order == "weights":
            order = self._output_names(spec)
        if isinstance(order, str):
            return spec
        return spec.but(data=spec.data.but(class_order=resolved_order(about, order)))

    def _output_names(self, spec: TrialSpec) -> tuple[str, ...]:
        """Return the names of the outputs of an F that exists; raise `Refused` if they are not known."""
        target = spec.target
        if target.service:
            names, again = self._services[target.service].service.names, "the service again with names"
        elif target.program:
            names, again = self._programs[target.program].program.names, "the program again with --classes"
        else:
            names, again = self._weights[str(target.weights)].classes, "the weights again with --classes"
        if names is None:
            given = getattr(target, str(target.given))
            rule = f"needs the names of the outputs of {given}, which were staged without"
            raise Refused("data.class_order", "weights", rule, f"stage {again}, or list the names here")
        return names

    def _find_weights(self, spec: TrialSpec) -> None:
        """Find the public weights that a trial names, and its program or service."""
        for role, name in weight_names(spec).items():
            if self._is_absent(name):
                continue
            if role == "target" and spec.target.foreign:
                self._find_foreign(spec.target.foreign, name)
                continue
            own = f"{role}.weights" if role in spec.started else f"evaluation.networks.{role}"
            field = WEIGHTS.get(role, own)
            if name not in self._weights:
                self._weights[name] = weights_manifest.verify(name, self._location, field)
                self.digests[weights_manifest.key_of(name)] = self._weights[name].digest

    def _is_absent(self, name: str) -> bool:
        """Return whether weights, a program or a service are not staged and a plan does without; note it."""
        if (
            self._stands_in
            and name not in self.absent
            and not weights_manifest.is_staged(name, self._location)
        ):
            self.absent[name] = None
            self.digests[weights_manifest.key_of(name)] = digest({"absent": name})
        return name in self.absent

    def _find_foreign(self, kind: str, name: str) -> None:
        key = weights_manifest.key_of(name)
        if kind == "program" and name not in self._programs:
            self._programs[name] = programs.verify(name, self._location)
            self.digests[key] = self._programs[name].digest
        if kind == "service" and name not in self._services:
            self._services[name] = services.describe(name, self._location)
            self.digests[key] = self._services[name].digest

    def _check_weights(self, spec: TrialSpec) -> None:
        """Check the weights or the program that a trial names against its networks and classes."""
        if self.absent and any(name in self.absent for name in weight_names(spec).values()):
            return
        if spec.judges.recogniser:
            self._networks.check_recogniser(self._weights[spec.judges.recogniser.weights])
        if spec.prior and spec.prior.weights:
            self._networks.check_prior(self._weights[spec.prior.weights])
        about = self.descriptions[spec.data.dataset]
        private = private_classes(about, spec.data, spec.target.classes)
        names = [about.class_names[one] for one in private]
        if spec.target.weights:
            given = self._weights[spec.target.weights]
            self._networks.check_given(spec, given)
            check_names("target", given, names)
            _check_order(spec, given.classes)
            self._check_others_start_elsewhere(spec)
        if spec.target.program:
            program = self._programs[spec.target.program]
            check_program(spec, program, names)
            _check_order(spec, program.program.names)
        if spec.target.service:
            service = self._services[spec.target.service]
            check_service(spec, service, names)
            _check_order(spec, service.service.names)
        self._check_starts(spec)
        pretrain = spec.target.pretrain
        if pretrain and pretrain.weights:
            checked_on = self.descriptions[pretrain.dataset] if pretrain.dataset else None
            self._networks.check_fit(spec, self._weights[pretrain.weights], checked_on)

    def _check_starts(self, spec: TrialSpec) -> None:
        """Check weights that judges are, and those that judges and students start from."""
        about = self.descriptions[spec.data.dataset]
        given = [field for field, judge in spec.every_judge.items() if not judge.trained]
        earlier = dict[tuple[str, str], str]()
        for field, one in spec.started.items():
            if one.weights and field in given:
                self._networks.check_given_judge(spec, field, self._weights[one.weights], about)
                check_names(field, self._weights[one.weights], about.class_names)
                same = earlier.setdefault((self._content(one.weights), one.model.text), field)
                if same != field:
                    rule = f"are {same} under another name, with which it would always agree"
                    raise Refused(f"{field}.weights", one.weights, rule, "name other weights or leave it out")
            elif one.weights:
                self._networks.check_start(spec, field, self._weights[one.weights])

    def _check_others_start_elsewhere(self, spec: TrialSpec) -> None:
        """Raise `Refused` if a judge is or a judge or student starts from F itself, by the values of its
        tensors."""
        for field, one in spec.started.items():
            if one.weights and self._content(one.weights) == self._content(str(spec.target.weights)):
                rule = "are the target itself under another name, which must not judge what is made of it"
                if field not in spec.every_judge:
                    rule = "is the target itself under another name, which the adversary does not have"
                raise Refused(f"{field}.weights", one.weights, rule, "name other weights or leave them out")

    def _content(self, name: str) -> str:
        """Return the digest of the values of staged weights, which is one for files of any layout."""
        if name not in self._contents_of_weights:
            self._contents_of_weights[name] = weights_manifest.content(name, self._location)
        return self._contents_of_weights[name]


def _check_order(spec: TrialSpec, names: Sequence[str] | None) -> None:
    """Raise `Refused` if classes are drawn for a given target whose outputs have no names, and nothing would
    notice that they are others'."""
    target = spec.target
    if spec.data.class_order != "seeded" or names is not None or target.minimum_accuracy:
        return
    rule = f"is a drawn order, and the outputs of {target.named} have no names"
    named = "names" if target.service else "--classes"
    way_out = f"use staged, list the classes, stage the {target.given} with {named}"
    raise Refused("data.class_order", "seeded", rule, f"{way_out}, or set target.minimum_accuracy")

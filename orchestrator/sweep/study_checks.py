"""Validation of a study before its points exist: names of stages, metrics and axes."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel

from orchestrator.config import ATTACK_SPECS, TrialSpec
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.report import Costs, Histogram
from orchestrator.config.search import Search
from orchestrator.config.study import SHORTHANDS, Study, StudyError, short_name
from orchestrator.metrics.names import MetricName
from orchestrator.stages.graph import STAGES
from orchestrator.sweep.profiles import profile_of, profiles_of


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
        reference_point(study.search)
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


def reference_point(search: Search) -> dict[str, float]:
    """Return the worst value that counts of each objective: as `search.stop` has it, else of a share 0 where
    it is maximized and 1 where it is minimized.

    Raise `Refused` for an objective that is no share and has none, in a search that stops by them.
    """
    given = search.stop.reference if search.stop else {}
    for name in search.objectives if search.stop else ():
        if name not in given and not MetricName.parse(name).metric.is_share:
            rule = f"has no worst value of {name}, which is no share of images"
            way_out = f"add {{{name}: VALUE}}, the worst value that counts"
            raise Refused("search.stop.reference", NO_VALUE, rule, way_out)
    shares = {name: float(way == "minimize") for name, way in search.objectives.items()}
    return {name: given.get(name, shares[name]) for name in search.objectives}


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


def check_local(study: Study) -> None:
    """Raise `Refused` if the study needs several workers or accelerators that are not here."""
    profiles = {"resources": profile_of(study.resources)}
    profiles |= {f"resources.stages.{stage}": one for stage, one in profiles_of(study.resources).items()}
    for section, profile in profiles.items():
        if profile.workers > 1:
            field = f"{section}.workers"
            raise Refused(field, profile.workers, "needs Ray", f"drop --local or set {field}=1")
        if profile.device == "cuda" and not _has_accelerator():
            gpus = study.resources.of(section.removeprefix("resources.stages.")).gpus_per_worker
            rule = "needs an accelerator, and this process sees none"
            way_out = "set it to 0 or drop --local for a cluster"
            raise Refused(f"{section}.gpus_per_worker", gpus, rule, way_out)


def _has_accelerator() -> bool:
    import torch  # seconds: only a study that asks for one pays them

    return torch.cuda.is_available()

"""Validation of a target that is a program or a service: its images and classes are the trial's, and it can
give what the attack reads. A program has logits, and gradients unless it is ONNX; a service has what it
releases. Neither has features by name."""

from collections.abc import Sequence

from orchestrator.config import TrialSpec
from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.attacks import alternatives
from orchestrator.config.base import Refused
from orchestrator.config.normalise import normalise
from orchestrator.config.program import Program
from orchestrator.config.release import Release
from orchestrator.config.service import Service
from orchestrator.datasets import programs, services
from orchestrator.datasets.programs import StagedProgram
from orchestrator.datasets.services import StagedService
from orchestrator.datasets.sources.exclusion import folded


def check_program(spec: TrialSpec, staged: StagedProgram, classes: Sequence[str]) -> None:
    """Raise `Refused` if a staged program cannot be the target model of a trial, whose private classes have
    these names in the order of the outputs."""
    field, program, attack = programs.FIELD, staged.program, spec.attack
    _check_shapes(spec, field, staged.name, program, classes)
    if attack.has_weights and not program.is_differentiable:
        rule = f"is ONNX, which gives no gradients, and attack.name={attack.name} reads them"
        way_out = f"choose {alternatives(attack, _asks_answers)}, or stage it as TorchScript or torch.export"
        raise Refused(field, staged.name, rule, way_out)


def check_service(spec: TrialSpec, staged: StagedService, classes: Sequence[str]) -> None:
    """Raise `Refused` if a staged service cannot be the target model of a trial, whose private classes have
    these names in the order of the scores, or releases less than the trial reads."""
    field, service, attack = services.FIELD, staged.service, spec.attack
    _check_shapes(spec, field, staged.name, service, classes)
    if attack.has_weights:
        rule = f"answers and gives no gradients, and attack.name={attack.name} reads them"
        raise Refused(field, staged.name, rule, f"choose {alternatives(attack, _asks_answers)}")
    planned = normalise(spec)
    has = f"{staged.name}, which answers labels alone"
    if service.outputs != "labels":
        has = f"{staged.name}, which releases {service.num_released} of each image"
    if _is_beyond(planned.release, service):
        if service.outputs == "labels":
            raise Refused("release.labels_only", "false", f"asks scores of {has}", "set it to true")
        shown = planned.release.truncation or "null"
        way_out = f"set it to {service.num_released} or less"
        raise Refused("release.truncation", shown, f"asks more scores of {has}", way_out)
    if _is_beyond(planned.attacked_release, service):
        rule = f"reads scores beyond the release (attack.align), and so more of {has}"
        raise Refused("attack.name", attack.name, rule, "set attack.align=true or choose another attack")


def _is_beyond(release: Release, service: Service) -> bool:
    """Return whether a release holds more of each answer than a service returns."""
    if release.labels_only:
        return False
    return service.outputs == "labels" or (release.truncation or service.classes) > service.num_released


def _check_shapes(
    spec: TrialSpec, field: str, name: str, given: Program | Service, classes: Sequence[str]
) -> None:
    """Raise `Refused` if images or classes are not the trial's, or if the attack reads features."""
    data, target, attack = spec.data, spec.target, spec.attack
    if given.channels != data.channels:
        rule = f"takes images of {given.channels} channels, and data.channels={data.channels}"
        raise Refused(field, name, rule, f"set data.channels={given.channels}")
    if given.classes != target.classes:
        rule = f"has {given.classes} outputs, and target.classes={target.classes}"
        raise Refused(field, name, rule, f"set target.classes={given.classes}")
    for place, (told, here) in enumerate(zip(given.names or classes, classes, strict=True)):
        if folded(told) != folded(here):
            rule = f"tells {told} by output {place}, and class {place} here is {here}"
            raise Refused(field, name, rule, "set data.class_order=weights")
    if attack.access == "features":
        rule = f"has no features by name, and attack.name={attack.name} reads them"
        asks = _asks_answers if isinstance(given, Service) else _reads_no_features
        raise Refused(field, name, rule, f"choose {alternatives(attack, asks)}")


def _reads_no_features(attack: type[AttackSpec]) -> bool:
    return attack.access not in ("features", "training")


def _asks_answers(attack: type[AttackSpec]) -> bool:
    return attack.access in ("labels", "scores")

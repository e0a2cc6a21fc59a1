"""Validation of a target that is a program: its images and classes are the trial's, and it can give what the
attack reads. A program has logits, and gradients unless it is ONNX; it has no features by name."""

from collections.abc import Sequence

from orchestrator.config import TrialSpec
from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.attacks import alternatives
from orchestrator.config.base import Refused
from orchestrator.datasets.programs import FIELD, StagedProgram
from orchestrator.datasets.sources.exclusion import folded


def check_program(spec: TrialSpec, staged: StagedProgram, classes: Sequence[str]) -> None:
    """Raise `Refused` if a staged program cannot be the target model of a trial, whose private classes have
    these names in the order of the outputs."""
    program, data, target = staged.program, spec.data, spec.target
    if program.channels != data.channels:
        rule = f"takes images of {program.channels} channels, and data.channels={data.channels}"
        raise Refused(FIELD, staged.name, rule, f"set data.channels={program.channels}")
    if program.classes != target.classes:
        rule = f"has {program.classes} outputs, and target.classes={target.classes}"
        raise Refused(FIELD, staged.name, rule, f"set target.classes={program.classes}")
    for place, (told, name) in enumerate(zip(program.names or classes, classes, strict=True)):
        if folded(told) != folded(name):
            rule = f"tells {told} by output {place}, and class {place} here is {name}"
            raise Refused(FIELD, staged.name, rule, "set data.class_order=weights")
    attack = spec.attack
    if attack.access == "features":
        rule = f"has no features by name, and attack.name={attack.name} reads them"
        raise Refused(FIELD, staged.name, rule, f"choose {alternatives(attack, _reads_no_features)}")
    if attack.has_weights and not program.is_differentiable:
        rule = f"is ONNX, which gives no gradients, and attack.name={attack.name} reads them"
        way_out = f"choose {alternatives(attack, _asks_answers)}, or stage it as TorchScript or torch.export"
        raise Refused(FIELD, staged.name, rule, way_out)


def _reads_no_features(attack: type[AttackSpec]) -> bool:
    return attack.access not in ("features", "training")


def _asks_answers(attack: type[AttackSpec]) -> bool:
    return attack.access in ("labels", "scores")

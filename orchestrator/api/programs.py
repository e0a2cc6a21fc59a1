"""Programs before they are staged: what is declared of one is compared with its answers to images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.program import Program
from orchestrator.models.programs import ProgramNetwork, kind_of, load_program
from orchestrator.runtime.words import sentences

PROBED = 2
"""Images of the one pass: more than one, so that a trace of a single image is met here."""

_TOLERANCE = 1e-3  # of the sum of probabilities


def found(
    data: bytes,
    source: str,
    declared: Mapping[str, object],
    names: tuple[str, ...] | None,
    spelled: Callable[[str], str] = str,
) -> tuple[Program, ProgramNetwork]:
    """Return what is declared of a program and what one pass finds, and its network.

    `declared`: field of `Program` -> value; `names`: those of the classes; `spelled` gives a field's name in
    messages. Raise `Refused` where they differ from the program, or if it is none.
    """
    try:
        facts = {**declared, "kind": kind_of(data, source), "classes": 2, "names": names}
        program = Program.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        rule = f"cannot be used ({first['msg']})"
        raise Refused(spelled(str(first["loc"][0])), first["input"], rule, "correct it") from None
    network = load_program(data, program.but(outputs="logits"), source)
    scores = _answer(network, program, source, spelled)
    _check_outputs(scores, program, source, spelled)
    num_classes = scores.shape[1]
    if names is not None and len(names) != num_classes:
        rule = f"holds {len(names)} names, and the program has {num_classes} outputs"
        way_out = "give one name for each output, in their order"
        raise Refused(spelled("classes"), NO_VALUE, rule, way_out)
    program = program.but(classes=num_classes)
    return program, ProgramNetwork(network.program, program).eval()


def _answer(network: torch.nn.Module, program: Program, source: str, spelled: Callable[[str], str]) -> Tensor:
    """Return the program's answers (N, k) to images of zeros."""
    side = program.image_size
    images = torch.zeros(PROBED, program.channels, side, side)
    shape = f"images of {PROBED}x{program.channels}x{side}x{side}"
    try:
        with torch.no_grad():
            scores: Any = network(images)
    except Exception as error:  # of whatever is in the program
        reason = sentences(str(error).strip().rpartition("\n")[2])
        rule = f"does not take {shape} ({type(error).__name__}: {reason})"
        fields = f"{spelled('image_size')} and {spelled('channels')}"
        way_out = f"correct {fields}, or save a program that takes any number of images"
        raise Refused(source, NO_VALUE, rule, way_out) from None
    if scores.ndim != 2 or scores.shape[0] != PROBED or scores.shape[1] < 2:
        rule = f"returns {tuple(scores.shape)} of {shape}, not ({PROBED}, k), a score for each of k classes"
        raise Refused(source, NO_VALUE, rule, "save a program that returns one tensor of scores")
    return scores


def _check_outputs(scores: Tensor, program: Program, source: str, spelled: Callable[[str], str]) -> None:
    """Refuse what cannot be the declared outputs."""
    outputs = spelled("outputs")
    if not bool(torch.isfinite(scores).all()):
        rule = "returns scores that are not finite of an image of zeros"
        raise Refused(source, NO_VALUE, rule, f"correct {spelled('scaling')}, or take another program")
    low, high = float(scores.min()), float(scores.max())
    is_share = low >= 0.0 and high <= 1.0
    if program.outputs == "probabilities" and not is_share:
        rule = f"is wrong: the program returned {low:.3g} to {high:.3g}"
        raise Refused(outputs, program.outputs, rule, f"use {outputs}{_joined(outputs)}logits")
    if program.outputs == "logits" and is_share and bool((scores.sum(dim=1) - 1).abs().max() < _TOLERANCE):
        rule = "is wrong: the program returned shares that sum to 1"
        raise Refused(outputs, program.outputs, rule, f"use {outputs}{_joined(outputs)}probabilities")


def _joined(field: str) -> str:
    """Return what stands between an option or an argument and its value."""
    return " " if field.startswith("--") else "="

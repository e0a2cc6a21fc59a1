"""Staging of programs: a file is checked, run once on images of zeros, stored with what is known of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from jobs.weight_sources import file_at
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.program import Program
from orchestrator.datasets import programs
from orchestrator.datasets.weights_manifest import FOLDER
from orchestrator.models.programs import kind_of, load_program
from orchestrator.runtime.open_store import check
from orchestrator.runtime.words import sentences
from orchestrator.store.blobs import Blobs

PROBED = 2
"""Images of the one pass: more than one, so that a trace of a single image is met here."""

_TOLERANCE = 1e-3  # of the sum of probabilities


def stage_program(
    source: str, declared: Mapping[str, object], names: tuple[str, ...] | None, blobs: Blobs, name: str
) -> Sequence[str]:
    """Stage the program at SOURCE under a name; return the lines to print.

    `declared`: option -> value; `names`: those of the classes. Raise `Refused` if the file is no
    program, asks for anything but computing, or does not return what was declared.
    """
    if not source.startswith("s3://") and not Path(source).is_file():  # a library's name
        raise Refused("SOURCE", source, "is no file", "name a program's file or s3://bucket/object")
    data, _ = file_at(source)
    program = found(data, source, declared, names)
    check(blobs, option="DEST")
    manifest, is_new = programs.stage(data, program, source.rpartition("/")[2], blobs, name)
    where = f"{blobs.uri.rstrip('/')}/{FOLDER}/{name}"
    return (
        f"{'staged' if is_new else 'already staged, nothing written:'} {where}",
        f"program: {program.kind}, {program.classes} classes, {manifest.file.size} bytes",
        f"sha256: {manifest.file.sha256}",
    )


def found(data: bytes, source: str, declared: Mapping[str, object], names: tuple[str, ...] | None) -> Program:
    """Return what is declared of a program and what one pass finds; raise `Refused` where they differ."""
    facts = {option.removeprefix("--").replace("-", "_"): value for option, value in declared.items()}
    try:
        program = Program(**facts, kind=kind_of(data, source), classes=2, names=names)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise Refused(option, first["input"], f"cannot be used ({first['msg']})", "correct it") from None
    network = load_program(data, program.but(outputs="logits"), source)
    scores = _answer(network, program, source)
    _check_outputs(scores, program, source)
    num_classes = scores.shape[1]
    if names is not None and len(names) != num_classes:
        rule = f"holds {len(names)} names, and the program has {num_classes} outputs"
        raise Refused("--classes", NO_VALUE, rule, "give one name a line, in the order of the outputs")
    return program.but(classes=num_classes)


def _answer(network: torch.nn.Module, program: Program, source: str) -> Tensor:
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
        way_out = "correct --image-size and --channels, or save a program that takes any number of images"
        raise Refused(source, NO_VALUE, rule, way_out) from None
    if scores.ndim != 2 or scores.shape[0] != PROBED or scores.shape[1] < 2:
        rule = f"returns {tuple(scores.shape)} of {shape}, not ({PROBED}, k), a score for each of k classes"
        raise Refused(source, NO_VALUE, rule, "save a program that returns one tensor of scores")
    return scores


def _check_outputs(scores: Tensor, program: Program, source: str) -> None:
    """Refuse what cannot be the declared outputs."""
    if not bool(torch.isfinite(scores).all()):
        rule = "returns scores that are not finite of an image of zeros"
        raise Refused(source, NO_VALUE, rule, "correct --scaling, or take another program")
    low, high = float(scores.min()), float(scores.max())
    is_share = low >= 0.0 and high <= 1.0
    if program.outputs == "probabilities" and not is_share:
        rule = f"is wrong: the program returned {low:.3g} to {high:.3g}"
        raise Refused("--outputs", program.outputs, rule, "use --outputs logits")
    if program.outputs == "logits" and is_share and bool((scores.sum(dim=1) - 1).abs().max() < _TOLERANCE):
        rule = "is wrong: the program returned shares that sum to 1"
        raise Refused("--outputs", program.outputs, rule, "use --outputs probabilities")

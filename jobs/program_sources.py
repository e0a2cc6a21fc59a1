"""Staging of programs: a file is checked, run once on images of zeros, stored with what is known of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.weight_sources import file_at
from orchestrator.api.programs import found
from orchestrator.config.base import Refused
from orchestrator.datasets import programs
from orchestrator.datasets.weights_manifest import FOLDER
from orchestrator.runtime.open_store import check
from orchestrator.store.blobs import Blobs


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
    facts = {option.removeprefix("--").replace("-", "_"): value for option, value in declared.items()}
    program, _ = found(data, source, facts, names, _option)
    check(blobs, option="DEST")
    manifest, is_new = programs.stage(data, program, source.rpartition("/")[2], blobs, name)
    where = f"{blobs.uri.rstrip('/')}/{FOLDER}/{name}"
    return (
        f"{'staged' if is_new else 'already staged, nothing written:'} {where}",
        f"program: {program.kind}, {program.classes} classes, {manifest.file.size} bytes",
        f"sha256: {manifest.file.sha256}",
    )


def _option(field: str) -> str:
    """Return the command's option of a field."""
    return f"--{field.replace('_', '-')}"
